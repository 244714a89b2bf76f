"""Requests that fail before their ID token is verified: a line in the log, never a record.

Anybody who reaches the broker can cause such a line, so it is rate limited per event (what was dropped is
counted and told), bounded in length, and cleaned: one line of JSON, whatever the strings held.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from credx.broker import telemetry
from credx.model import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

BURST = 20  # lines of one event at once
RATE = 1.0  # lines a second of one event, after the burst: 86 400 a day, about 40 MB at the most
MAX_EVENTS = 64  # kinds of events; more can only be a fault of the program, and share one bucket


class SecurityLog:
    """Args:
    clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float, int]] = {}  # event -> tokens, as of, dropped since

    def __call__(self, event: str, **fields: object) -> None:
        """One line. Raises ``TypeError`` for a Secret, also where the line is dropped."""
        if any(isinstance(value, Secret) for value in fields.values()):
            raise TypeError("a Secret does not belong into a log")
        now = self._clock()
        dropped = self._admit(event, now)
        if dropped is None:
            return
        told = {"dropped": dropped} if dropped else {}
        telemetry.SECURITY.warning("%s", telemetry.event_line(event, told | fields | told, at=now))

    def _admit(self, event: str, now: float) -> int | None:
        """How many lines of this event were dropped since the last one, or None: drop this one too."""
        with self._lock:
            if event not in self._buckets and len(self._buckets) >= MAX_EVENTS:
                event = "other"
            tokens, since, dropped = self._buckets.get(event, (float(BURST), now, 0))
            tokens = min(float(BURST), tokens + max(0.0, now - since) * RATE)
            if tokens < 1:
                self._buckets[event] = (tokens, now, dropped + 1)
                return None
            self._buckets[event] = (tokens - 1, now, 0)
            return dropped
