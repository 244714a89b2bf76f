"""Whether this broker can do its work now: three checks in one word each, and nothing that helps an attacker.

Anybody may ask, so the store is asked once a second at the most, by one thread of its own, and nobody waits
longer than ``PATIENCE`` for it, also where the store does not come back at all.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from credx.broker.stores import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from credx.broker.service import Broker

FRESH: Final = 1.0  # seconds that an answer is given again
PATIENCE: Final = 1.0  # seconds for the store; load balancers give a probe two to five
OK: Final = "ok"
STALE: Final = "stale"  # an earlier policy holds, because the file that is there now is broken
FAILED: Final = "failed"
STATES: Final = (OK, STALE, FAILED)

_PROBE: Final = Key("readiness", "probe")  # never written; a read of nothing is a read


class Readiness:
    def __init__(self, broker: Broker, clock: Callable[[], float] = time.monotonic) -> None:
        self._broker = broker
        self._clock = clock
        self._asking = threading.Lock()
        self._since = float("-inf")
        self._checks: Mapping[str, str] = {"store": FAILED, "policy": FAILED, "signing_key": FAILED}

    def __call__(self) -> Mapping[str, str]:
        """``ok``, ``stale`` or ``failed`` for each check, at most a second old."""
        # one asks, whoever comes meanwhile gets the last answer
        if self._clock() - self._since >= FRESH and self._asking.acquire(blocking=False):
            done = threading.Event()
            try:
                threading.Thread(target=self._ask, args=(done,), daemon=True, name="readiness").start()
            except RuntimeError:  # the system has no thread left; it may have one later
                self._asking.release()
            if not done.wait(PATIENCE):
                self._told({"store": FAILED})
        return self._checks

    def _ask(self, done: threading.Event) -> None:
        try:
            self._told({
                "store": _outcome(self._store),
                "policy": _outcome(self._policy),
                "signing_key": _outcome(lambda: OK if self._broker.signer.kid else FAILED),
            })  # fmt: skip
        finally:
            self._asking.release()  # not before the store came back: one thread waits for it, never two
            done.set()

    def _told(self, checks: Mapping[str, str]) -> None:
        self._checks = {**self._checks, **checks}
        self._since = self._clock()

    def _store(self) -> str:
        self._broker.store.get(_PROBE, now=self._broker.now())
        return OK

    def _policy(self) -> str:
        policy = self._broker.policy
        policy()
        state = getattr(policy, "state", None)  # a source that follows its file has one
        return OK if state is None or not getattr(state(), "error", None) else STALE


def _outcome(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception:  # noqa: BLE001 -- why is in the log of whoever failed; here it is a no
        return FAILED
