"""How often one person may be refused: a refusal is a record for ever, and an ID token alone causes it.

Only refusals count, so nobody who gets what he asks for is ever held up. In memory and per process: what it
protects is the store, not a secret (guesses are counted durably, see ``totp``).
"""

from __future__ import annotations

import threading
from typing import Final

BURST: Final = 200  # refusals of one person at once; 64 parallel jobs with one code cause 63
RATE: Final = 0.2  # a second after that: 17 280 records a day
MAX_PEOPLE: Final = 10_000  # that are remembered; the one refused longest ago gives way


class Pace:
    """A bucket of refusals for each (issuer, subject)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}  # who -> left, as of

    def allows(self, who: tuple[str, str], *, now: float) -> bool:
        """Whether one more request of this person may be looked at."""
        with self._lock:
            return self._left(who, now) >= 1

    def refused(self, who: tuple[str, str], *, now: float) -> None:
        """Count one refusal."""
        with self._lock:
            left = max(0.0, self._left(who, now) - 1)
            self._buckets.pop(who, None)  # to the end: a dictionary keeps the order of insertion
            self._buckets[who] = (left, now)
            if len(self._buckets) > MAX_PEOPLE:
                del self._buckets[next(iter(self._buckets))]

    def _left(self, who: tuple[str, str], now: float) -> float:
        left, since = self._buckets.get(who, (float(BURST), now))
        return min(float(BURST), left + max(0.0, now - since) * RATE)
