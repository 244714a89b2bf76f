"""The UI protocol on a real terminal: prompts on the controlling terminal, notes on stderr.

stdin and stdout are never used: inside ``credential_process`` stdout is a pipe to an SDK, and stderr is
swallowed by most of them, so what has to be seen goes to ``/dev/tty`` (``CONIN$``/``CONOUT$`` on Windows).
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Final, Protocol

from credx.errors import CredxError, FactorError
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from credx.model import Secret

PROCESS_PROMPT_SECONDS: Final = 50.0  # the Go SDK, so Terraform, kills credential_process at 60 s
NOTE_LIMIT: Final = 4096  # characters: an address to sign in at is of no use when it is cut
MAX_LINE: Final = 4096  # bytes of one answer; what a terminal's canonical mode holds
_FALSE: Final = frozenset({"", "0", "false", "no"})


class Device(Protocol):
    """The controlling terminal, as little of it as credx needs."""

    def write(self, text: str) -> None: ...

    def ask(self, question: str, *, echo: bool, seconds: float | None) -> str:
        """Raises ``EOFError`` at the end of input and ``TimeoutError`` after ``seconds``."""


def forbids_prompts(environ: Mapping[str, str]) -> bool:
    """``CI=true`` and its spellings: nobody is there to answer."""
    return environ.get("CI", "").strip().lower() not in _FALSE


class Terminal:
    """``credx.ui.UI``.

    Args:
        allowed: False after ``--no-input``.
        mirror_notes: notes go to the terminal too where stderr is not one (``process``).
        prompt_seconds: after its start, until when everything that waits for a person has ended; None: whenever.
        open_device: gives the controlling terminal or None; asked once, when first needed.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        open_device: Callable[[], Device | None],
        write_note: Callable[[str], None],
        notes_visible: Callable[[], bool],
    ) -> None:
        self.allowed = True
        self.mirror_notes = False
        self.prompt_seconds: float | None = None
        self._started = time.monotonic()
        self._environ = environ
        self._open_device = open_device
        self._write_note = write_note
        self._notes_visible = notes_visible
        self._opened: list[Device | None] = []

    @property
    def interactive(self) -> bool:
        return not self.forbidden and self._device() is not None

    @property
    def forbidden(self) -> bool:
        """Somebody said that nothing may be asked, whether or not there is a terminal."""
        return not self.allowed or forbids_prompts(self._environ)

    def patience(self, limit: float) -> float:
        if self.prompt_seconds is None:
            return limit
        return max(0.0, min(limit, self._started + self.prompt_seconds - time.monotonic()))

    def note(self, text: str) -> None:
        line = f"credx: {clean(text, NOTE_LIMIT)}\n"
        self._write_note(line)
        if self.mirror_notes and not self._notes_visible():
            device = self._device() if self.interactive else None
            if device is not None:
                device.write(line)

    def show(self, text: str) -> None:
        """Lines that only the person at the terminal may see, such as a TOTP secret.

        Raises:
            FactorError: there is no terminal; the lines then go nowhere.
        """
        device = self._device() if self.interactive else None
        if device is None:
            raise FactorError(
                "a secret is shown only on a terminal, and there is none",
                hint="run this command in a terminal, without --no-input and without CI=true",
            )
        device.write("".join(clean(line) + "\n" for line in text.splitlines()))

    def prompt(self, text: str) -> str:
        return self._ask(text, echo=True)

    def prompt_secret(self, text: str) -> Secret:
        from credx.model import Secret

        return Secret(self._ask(text, echo=False))

    def confirm(self, text: str) -> bool:
        """Yes or no; anything but yes is no."""
        return self.prompt(f"{text} [y/N]").strip().lower() in {"y", "yes"}

    def _device(self) -> Device | None:
        if not self._opened:
            self._opened.append(self._open_device())
        return self._opened[0]

    def _ask(self, text: str, *, echo: bool) -> str:
        device = self._device() if self.interactive else None
        if device is None:
            raise CredxError(
                f"there is no terminal to ask on: {clean(text)}", hint="run this command in a terminal"
            )
        seconds = None if self.prompt_seconds is None else self.patience(self.prompt_seconds)
        question = f"credx: {clean(text).rstrip(': ')}: "
        try:
            return device.ask(question, echo=echo, seconds=seconds)
        except EOFError as exc:
            raise KeyboardInterrupt from exc  # Ctrl-D at a question means: leave it
        except TimeoutError as exc:
            raise FactorError(
                f"no answer within {self.prompt_seconds:.0f} seconds",
                hint="run the same command again; `credx exec` waits without a limit",
            ) from exc


if sys.platform == "win32":
    import msvcrt

    class WindowsDevice:
        """``CONIN$`` and ``CONOUT$``, through the C runtime's console functions."""

        def write(self, text: str) -> None:
            with open("CONOUT$", "w", encoding="utf-8", errors="replace") as console:  # noqa: PTH123 -- no path
                console.write(text)

        def ask(self, question: str, *, echo: bool, seconds: float | None) -> str:
            self.write(question)
            line = ""
            deadline = None if seconds is None else time.monotonic() + seconds
            while True:
                if deadline is not None:
                    while not msvcrt.kbhit():
                        if time.monotonic() > deadline:
                            raise TimeoutError
                        time.sleep(0.05)
                key = (msvcrt.getwche if echo else msvcrt.getwch)()
                if key in "\r\n":
                    self.write("\n")
                    return line
                if key == "\x03":
                    raise KeyboardInterrupt
                if key in "\x04\x1a" or len(line) >= MAX_LINE:
                    raise EOFError
                line = line[:-1] if key == "\b" else line + key

    def open_device() -> Device | None:
        """The controlling terminal, or None where this process has none."""
        return WindowsDevice() if sys.stdin is not None and sys.stdin.isatty() else None

else:
    import termios

    class PosixDevice:
        """``/dev/tty``."""

        def __init__(self, descriptor: int) -> None:
            self._descriptor = descriptor

        def write(self, text: str) -> None:
            data = text.encode("utf-8", "replace")
            while data:
                data = data[os.write(self._descriptor, data) :]

        def ask(self, question: str, *, echo: bool, seconds: float | None) -> str:
            deadline = None if seconds is None else time.monotonic() + seconds
            line = b""
            with contextlib.nullcontext() if echo else self._without_echo():
                self.write(question)
                while not line.endswith(b"\n"):
                    left = None if deadline is None else max(0.0, deadline - time.monotonic())
                    if not select.select([self._descriptor], [], [], left)[0]:
                        self.write("\n")
                        raise TimeoutError
                    got = os.read(self._descriptor, MAX_LINE)
                    if not got or len(line) + len(got) > MAX_LINE:
                        raise EOFError
                    line += got
            return line.decode("utf-8", "replace").rstrip("\r\n")

        @contextlib.contextmanager
        def _without_echo(self) -> Iterator[None]:
            before = termios.tcgetattr(self._descriptor)
            silent = before[:]
            silent[3] &= ~termios.ECHO
            # FLUSH: what was typed before the question is not the answer to it
            termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, silent)
            try:
                yield
            finally:
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)
                self.write("\n")

    def open_device() -> Device | None:
        """The controlling terminal, or None where this process has none."""
        try:
            # O_NOCTTY: asking must never make a terminal the controlling one
            return PosixDevice(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            return None


def write_note(text: str) -> None:
    """A line on stderr; a closed stderr is no reason to fail."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()


def notes_visible() -> bool:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return sys.stderr.isatty()
    return False
