"""The root command: which commands there are, and the one place where errors become text and exit codes."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from credx import __version__
from credx.cli.edges import App, Edges
from credx.cli.options import no_input
from credx.errors import CredxError
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence

# name: (module, attribute, the line that --help shows without importing the module)
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "init": ("credx.cli.people", "init", "Configure credx from your company's broker."),
    "login": ("credx.cli.people", "login", "Sign in at your identity provider."),
    "logout": ("credx.cli.people", "logout", "Sign out and forget everything that is cached."),
    "status": ("credx.cli.people", "status", "Show who you are, what is cached and for how long."),
    "roles": ("credx.cli.people", "roles", "List the roles you may take and what each asks for."),
    "creds": ("credx.cli.issue", "creds", "Print credentials for a role."),
    "process": ("credx.cli.issue", "process", "The credential_process hook of AWS SDKs."),
    "exec": ("credx.cli.issue", "execute", "Run a command with credentials in its environment."),
    "factor": ("credx.cli.factor", "factor", "List, add and remove second factors."),
    "broker": ("credx.cli.broker", "broker", "Run and look after the broker."),
    "sandbox": ("credx.cli.sandbox", "sandbox", "A whole world on this machine, to try things out."),
    "demo": ("credx.cli.demo", "demo", "The main job from start to end, in the sandbox."),
}

INTERRUPTED: Final = 130
USAGE: Final = 2
# what to type where an error has nothing better to say, by exit code
_NEXT: Final[Mapping[int, str]] = {
    2: "credx --help",
    3: "credx init URL",
    4: "credx login",
    5: "credx factor list",
    6: "credx roles",
    7: "check the network, VPN and proxy, then try again",
    8: "credx roles",
}
# what a token, a key or a code looks like; an exception's own text may quote one
_SECRET_LIKE = re.compile(r"[A-Za-z0-9_+/=.~-]{20,}|(?<![0-9])[0-9]{6}(?![0-9])")


class Root(click.Group):
    """Loads a command when it is called, not when it is listed."""

    def __init__(self, make_app: Callable[[], App], **attributes: Any) -> None:
        super().__init__(**attributes)
        self._make_app = make_app

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, line = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        command.short_help = line
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        app = self._make_app()

        def call() -> object:
            # the class is named because super() without arguments does not work in a nested function
            return super(Root, self).main(
                args,
                prog_name or "credx",
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                obj=app,
                **extra,
            )

        if not standalone_mode:
            return call()
        sys.exit(outcome(call, app.edges.environ))


def outcome(call: Callable[[], object], environ: MutableMapping[str, str] | Any) -> int:
    """Run ``call``; an exit code comes back and every error has been told. Nothing is raised."""
    try:
        value = call()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # the reader has left; leave as quietly, and keep the interpreter from flushing into the void
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        _tell("interrupted")
        return INTERRUPTED
    except Exception as exc:  # noqa: BLE001 -- the one place that ends every error
        return _explain(exc, debug=environ.get("CREDX_DEBUG", "") not in {"", "0"})
    return value if isinstance(value, int) else 0


def _explain(exc: Exception, *, debug: bool) -> int:
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        sys.stderr.write(exc.format_message() + "\n")
        return USAGE
    if isinstance(exc, click.Abort):
        _tell("interrupted")
        return INTERRUPTED
    if isinstance(exc, click.ClickException):
        path = exc.ctx.command_path if isinstance(exc, click.UsageError) and exc.ctx else "credx"
        said = exc.message if isinstance(exc, click.NoSuchCommand) else exc.format_message()
        _tell(_our_style(said), f"{_meant(exc, path)}{path} --help")
        return USAGE
    if isinstance(exc, CredxError):
        _tell(exc.message, exc.hint or _NEXT.get(exc.exit_code))
        code = exc.exit_code
    else:
        _tell(
            f"unexpected error: {type(exc).__name__}: {_masked(exc)}",
            None if debug else "set CREDX_DEBUG=1 and run it again to see where it happened",
        )
        code = 1
    if debug:
        _trace(exc)
    return code


def _meant(exc: click.ClickException, path: str) -> str:
    """A hint line with the command that was meant. Click knows none: the root has its commands elsewhere."""
    if (
        not isinstance(exc, click.NoSuchCommand)
        or exc.ctx is None
        or not isinstance(exc.ctx.command, click.Group)
    ):
        return ""
    import difflib

    known = exc.ctx.command.list_commands(exc.ctx)
    return "".join(f"{path} {name}\n" for name in difflib.get_close_matches(exc.command_name, known, n=1))


def _tell(message: str, hint: str | None = None) -> None:
    lines = [f"credx: {clean(message)}", *(f"hint: {clean(line)}" for line in (hint or "").splitlines())]
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed stderr: the exit code says it
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()


def _our_style(message: str) -> str:
    """Click writes sentences; an error of credx is one lower-case line without a full stop."""
    line = " ".join(message.split()).rstrip(".")
    return line[:1].lower() + line[1:] if line[1:2].islower() else line


def _masked(exc: BaseException) -> str:
    return _SECRET_LIKE.sub("***", " ".join(str(exc).split()))


def _trace(exc: BaseException | None) -> None:
    """Frames without locals and messages without anything that looks like a secret, causes first."""
    import traceback

    chain: list[BaseException] = []
    while exc is not None and exc not in chain:
        chain.append(exc)
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    for link in reversed(chain):
        for frame in traceback.extract_tb(link.__traceback__):
            sys.stderr.write(f'  File "{clean(frame.filename)}", line {frame.lineno}, in {frame.name}\n')
        sys.stderr.write(f"{type(link).__name__}: {clean(_masked(link))}\n")


def build(edges: Edges) -> click.Command:
    """The application over ``edges``. Calling it runs it, tells its errors and exits."""
    root = Root(
        lambda: App(edges),
        name="credx",
        callback=lambda: None,
        help="Short-lived, scoped AWS credentials from your corporate sign-in and a second factor.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    return click.version_option(__version__, prog_name="credx")(no_input(root))


def main() -> NoReturn:
    build(Edges())()
    raise AssertionError("unreachable: calling the root command exits")
