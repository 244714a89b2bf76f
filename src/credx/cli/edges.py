"""Everything of the command line that touches the outside, as values that can be replaced.

The application is ``build(Edges())``; the sandbox and the tests build the same application over other
edges. Nothing is opened before it is used: ``process`` with a cached answer opens the vault and no more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import select
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from credx.cli import terminal
from credx.errors import CredxError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from credx.config import Places, Settings
    from credx.credentials.keystore import KeyStore
    from credx.flow import Flow
    from credx.http import Http
    from credx.model import Secret


def _system_keystore() -> KeyStore:
    from credx.credentials.keystore import SystemKeyStore

    return SystemKeyStore()


def _hid_devices() -> Sequence[Any]:
    from credx.factors.fido2 import hid_devices

    return hid_devices()


def _open_browser(url: str) -> bool:
    """Show ``url``; what a browser prints, and how long it runs, is nothing to whoever reads our output.

    Chrome says "Opening in existing browser session." on the stdout that it inherits, which an SDK reads as
    credentials and a shell evaluates; and one that is started so holds the pipe open until it is closed.
    """
    import webbrowser

    with _lent_output():
        return webbrowser.open(url)


@contextlib.contextmanager
def _lent_output() -> Iterator[None]:
    """A child that is started meanwhile inherits stdout and stderr only where they are a terminal."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    ours: dict[int, int] = {}
    try:
        for number in (1, 2):
            with contextlib.suppress(OSError):  # closed by the caller: there is nothing to inherit
                if not os.isatty(number):
                    ours[number] = os.dup(number)
        if ours:
            null = os.open(os.devnull, os.O_WRONLY)
            for number in ours:
                os.dup2(null, number)
            os.close(null)
        yield
    finally:
        for number, kept in ours.items():
            os.dup2(kept, number)
            os.close(kept)


def _write_stdout(data: bytes) -> None:
    if sys.stdout is None:  # closed by the caller: descriptor 1 may be any file by now, and secrets go there
        raise UsageError(
            "stdout is closed, so there is nowhere to write to", hint="give it a file, a pipe or a terminal"
        )
    try:
        sys.stdout.flush()
        while data:
            data = data[_write_some(data) :]
    except BrokenPipeError:  # the reader has left: not an error to tell
        raise
    except OSError as exc:
        raise CredxError(f"stdout cannot be written to: {exc.strerror}", hint="df, then try again") from exc


def _write_some(data: bytes) -> int:
    """How much was written. A pipe may be full and not block: whoever shares it can have said so."""
    try:
        return os.write(1, data)
    except BlockingIOError:
        select.select([], [1], [])
        return 0


def _stdout_is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _replace_process(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Become ``command``: its exit code, its signals and its terminal are its own. Windows has no such call.

    Raises:
        OSError: it cannot be started.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    if sys.platform == "win32":
        import subprocess

        return subprocess.run(list(command), env=dict(environ), check=False).returncode
    else:  # noqa: RET505 -- so that type checkers see one platform at a time
        import signal

        # Python ignores these two, and ignored signals survive execve: `exec -- sh -c "yes | head"` would not end
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        return os.execvpe(command[0], list(command), dict(environ))  # noqa: S606 -- an argv list, no shell


@dataclass
class Edges:
    """The outside.

    Attributes:
        rng: that many random bytes. now: seconds since 1970.
        keystore: where the vault's key is. devices: security keys that are plugged in.
        totp_code: answers codes without a terminal; None outside the sandbox.
        open_browser: shows a URL to the person; False where it cannot.
        write: data to stdout, all of it in one call. is_terminal: stdout is one.
        execute: become another program, or run it and give its exit code.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    now: Callable[[], float] = time.time
    rng: Callable[[int], bytes] = os.urandom
    keystore: Callable[[], KeyStore] = _system_keystore
    devices: Callable[[], Sequence[Any]] = _hid_devices
    totp_code: Callable[[], Secret | None] | None = None
    open_browser: Callable[[str], bool] = _open_browser
    stdin: Any = field(default_factory=lambda: sys.stdin)
    write: Callable[[bytes], None] = _write_stdout
    is_terminal: Callable[[], bool] = _stdout_is_terminal
    execute: Callable[[Sequence[str], Mapping[str, str]], int] = _replace_process
    open_device: Callable[[], terminal.Device | None] = terminal.open_device
    write_note: Callable[[str], None] = terminal.write_note
    notes_visible: Callable[[], bool] = terminal.notes_visible
    flow: Callable[[Settings, App], Flow] = lambda settings, app: app.new_flow(settings)


class _LaterHttp:
    """``credx.http.Http`` that loads TLS and urllib3 with the first request: a cached answer makes none."""

    def __init__(self, ca_file: str | None) -> None:
        self._ca_file = ca_file

    @functools.cached_property
    def _http(self) -> Http:
        from credx.http import Http

        return Http(ca_file=self._ca_file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._http, name)


class App:
    """One run of the command line: what a command gets to work with (click's ``obj``)."""

    def __init__(self, edges: Edges) -> None:
        self.edges = edges
        self.ui = terminal.Terminal(
            environ=edges.environ,
            open_device=edges.open_device,
            write_note=edges.write_note,
            notes_visible=edges.notes_visible,
        )

    @functools.cached_property
    def places(self) -> Places:
        from credx import config

        return config.places(self.edges.environ)

    @functools.cached_property
    def settings(self) -> Settings:
        """Raises ``ConfigError`` with the hint ``credx init URL``."""
        from credx import config

        return config.load(self.places)

    def http(self, ca_file: str | None) -> Http:
        return cast("Http", _LaterHttp(ca_file))

    def flow(self, **overrides: Any) -> Flow:
        """The client story over these edges; ``overrides`` replace single settings for this run."""
        if self.ui.forbidden:
            overrides["prompt"] = "auto"  # `prompt = "touch"` is about a missing terminal, not about a no
        return self.edges.flow(dataclasses.replace(self.settings, **overrides), self)

    def new_flow(self, settings: Settings) -> Flow:
        from credx.credentials.store import open_vault
        from credx.flow import Flow

        edges = self.edges
        return Flow(
            settings=settings,
            vault=open_vault(edges.keystore(), self.places.state_dir, note=self.ui.note),
            http=self.http(settings.ca_file),
            ui=self.ui,
            devices=edges.devices,
            totp_code=edges.totp_code,
            open_browser=None if self.ui.forbidden else edges.open_browser,
            now=edges.now,
            rng=edges.rng,
            environ=edges.environ,
            stdin=edges.stdin,
        )

    def out(self, text: str) -> None:
        """Data for stdout: once per command, after everything has worked."""
        self.edges.write(text.encode("utf-8"))
