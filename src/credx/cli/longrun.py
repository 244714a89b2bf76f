"""Commands that run for long: what they log, and how they end.

They end once, through every ``finally``, whatever signal asks for it.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator

SIGNALLED: Final = 128  # a shell's exit code for "ended by signal n" is 128 + n
SECOND: Final = 1.0
_ENDING: Final = ("SIGTERM", "SIGHUP", "SIGINT")


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP leave through every ``finally`` on the way, once."""

    def leave(number: int, _frame: object) -> NoReturn:
        ignore_signals()
        sys.exit(SIGNALLED + number)

    def interrupt(_number: int, _frame: object) -> NoReturn:
        ignore_signals()
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread alone
        return
    before = {number: signal.getsignal(number) for number in numbers()}
    for number in before:
        signal.signal(number, interrupt if number == signal.SIGINT else leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def at_hangup(act: Callable[[], object]) -> Iterator[None]:
    """SIGHUP calls ``act`` instead of ending anything, in a thread of its own: a handler must not wait for a lock."""
    number = getattr(signal, "SIGHUP", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(
        number, lambda *_: threading.Thread(target=act, name="hangup", daemon=True).start()
    )
    try:
        yield
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def every_second(act: Callable[[], object]) -> Iterator[None]:
    """``act``, which raises nothing, again and again in a thread of its own."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(SECOND):
            act()

    threading.Thread(target=work, name="every-second", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def numbers() -> list[signal.Signals]:
    return [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]


def ignore_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        for number in numbers():
            signal.signal(number, signal.SIG_IGN)


def log_to_stderr(name: str, level: str | None, formatter: logging.Formatter | None = None) -> None:
    """Messages of the logger ``name`` from ``level`` on go to stderr, as they are or as ``formatter`` has them.

    None as the level keeps them quiet.
    """
    import logging

    logger = logging.getLogger(name)
    handler = logging.NullHandler() if level is None else logging.StreamHandler()
    handler.setFormatter(formatter)
    logger.propagate = False
    logger.handlers[:] = [handler]
    logger.setLevel(level or "CRITICAL")
