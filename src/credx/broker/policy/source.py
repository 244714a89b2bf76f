"""The policy that holds now: the file is looked at while the broker serves, and a broken one changes nothing.

A changed file is read when two looks in a row have seen it the same, so that one in the middle of being written is
not: cut after a role's Allow and before its Deny, it would be a policy too. Whoever replaces the file by a rename
never gets near that.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from credx.broker.policy.file import read_policy
from credx.broker.policy.reader import MAX_FILE
from credx.broker.telemetry import POLICY, event_line
from credx.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from credx.broker.policy.faults import Source
    from credx.broker.policy.rules import Policy

LOOK_EVERY: Final = 1.0  # seconds between two looks; a change holds after two of them
# a broker is known by these, in AWS, to its clients and to every security key
FIXED: Final = ("issuer", "url", "rp_id")


class State(NamedTuple):
    """``version``, ``loaded_at`` (seconds since 1970): of the policy that holds. ``error``: of the file since then."""

    version: str
    loaded_at: int
    error: str | None


# what a look sees of a file: when it was changed, how large it is, which one it is; or why it cannot be seen
_Seen = tuple[int, ...] | str


class PolicySource:
    """Call it for the policy that holds. It never waits: one caller looks, the others take what there is.

    Args:
        now: seconds since 1970, for the log. clock: seconds that never go back.

    Raises:
        ConfigError: the file is not as it must be at the start.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(path)
        self._now = now
        self._clock = clock
        self._looking = threading.Lock()
        self._looked_at = clock()
        self._seen, text = self._read()
        self._pending: _Seen | None = None
        self._digest = _digest(text)
        self._policy, _ = read_policy(text, str(self._path))
        self._state = State(self._policy.version, int(now()), None)

    def __call__(self) -> Policy:
        """The policy that holds; at most once a second it looks at the file first."""
        if self._clock() - self._looked_at >= LOOK_EVERY and self._looking.acquire(blocking=False):
            try:
                self._look(settled=False)
            finally:
                self._looking.release()
        return self._policy

    def look_now(self) -> None:
        """Whoever says so has finished writing: what is there now is read, changed or not."""
        with self._looking:
            self._look(settled=True)

    def state(self) -> State:
        return self._state

    def _look(self, *, settled: bool) -> None:
        self._looked_at = self._clock()
        seen = self._stat()
        if seen == self._seen and not settled:
            self._pending = None
            return
        if seen != self._pending and not settled:
            self._pending = seen
            return
        self._pending = None
        try:
            seen, text = self._read()
            self._take(text)
        except Exception as exc:  # noqa: BLE001 -- whatever it is, the policy that holds goes on holding
            error = exc.message if isinstance(exc, ConfigError) else f"unexpected {type(exc).__name__}"
            self._state = self._state._replace(error=error)
            POLICY.warning("%s", self._line("policy_refused", error=error, version=self._policy.version))
        finally:
            self._seen = seen

    def _take(self, text: str) -> None:
        """Make a text the policy that holds. Raises ``ConfigError``, and then nothing has changed."""
        digest = _digest(text)
        if digest == self._digest:
            policy = self._policy
            if self._state.error is None:
                return  # touched, or written anew as it was
        else:
            policy, source = read_policy(text, str(self._path))
            self._refuse_what_takes_a_restart(policy, source)
        self._policy, self._digest = policy, digest
        self._state = State(policy.version, int(self._now()), None)
        POLICY.info("%s", self._line("policy_loaded", version=policy.version))

    def _refuse_what_takes_a_restart(self, policy: Policy, source: Source) -> None:
        for name in FIXED:
            if getattr(policy.broker, name) != getattr(self._policy.broker, name):
                where = source.where(("broker", name))
                raise ConfigError(
                    f"{where}: broker.{name}: a change takes a restart", hint="credx broker serve"
                )

    def _stat(self) -> _Seen:
        try:
            return _signature(self._path.stat())
        except OSError as exc:
            return exc.strerror or type(exc).__name__

    def _read(self) -> tuple[_Seen, str]:
        """The text, and what was seen of the file it came from.

        Raises:
            ConfigError: no regular file, open to everybody, not readable, too large, changing under the reader, or
                not UTF-8.
        """
        try:
            # O_NONBLOCK: opening a FIFO must not wait for somebody to write
            handle = os.open(self._path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(handle, "rb") as file:
                before = os.fstat(handle)
                if not stat.S_ISREG(before.st_mode):
                    raise self._error("is no regular file")
                if before.st_mode & stat.S_IWOTH:  # whoever writes it gives himself any role
                    raise self._error("can be written by everybody: chmod o-w")
                data = file.read(MAX_FILE + 1)
                after = _signature(os.fstat(handle))
        except OSError as exc:
            raise self._error(f"cannot be read: {exc.strerror}") from exc
        if len(data) > MAX_FILE:
            raise self._error(f"is larger than {MAX_FILE} bytes")
        if after != _signature(before):
            raise self._error("was changed while it was read")
        try:
            return after, data.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise self._error("is not UTF-8") from exc

    def _error(self, reason: str) -> ConfigError:
        return ConfigError(f"{self._path}: {reason}", hint=f"credx broker check {self._path}")

    def _line(self, event: str, **fields: str) -> str:
        return event_line(event, fields, at=self._now())


def _signature(found: os.stat_result) -> tuple[int, ...]:
    # ctime: a copy that keeps times and size is a change as well
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
