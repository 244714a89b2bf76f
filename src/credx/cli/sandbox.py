"""``credx sandbox``: a world on loopback, for as long as it is needed and not longer."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from credx.cli.longrun import SIGNALLED, ended_by_signals, ignore_signals, log_to_stderr, numbers
from credx.cli.options import COMMAND, WithCommand, needs
from credx.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from credx.cli.edges import App
    from credx.sandbox.world import World

DEFAULT_USER: Final = "alice"


@contextlib.contextmanager
def fresh_world(*, log: bool = False) -> Iterator[World]:
    """A world in a directory of its own; both are gone afterwards, also after SIGTERM and SIGHUP.

    ``log``: what the broker and AWS refuse, and why, goes to stderr, one line each.
    """
    log_to_stderr("credx", "INFO" if log else None)
    log_to_stderr("credx.requests", None)  # a line for each would bury them
    with contextlib.ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        with needs("sandbox"):
            from credx.sandbox.world import World

            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="credx-sandbox-"))
            world = stack.enter_context(World(Path(directory)))
        stack.callback(ignore_signals)  # what is being taken down is taken down to the end
        yield world


def run_child(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run ``command`` and give its exit code, 128 + n where signal n ended it.

    SIGTERM and SIGHUP are handed on to it. Ctrl-C it gets from the terminal itself, so the parent only waits.

    Raises:
        UsageError: it cannot be started.
    """
    try:
        child = subprocess.Popen(list(command), env=dict(environ))
    except OSError as exc:
        raise UsageError(f"{command[0]!r} cannot be run: {exc.strerror}", hint="check the PATH") from exc

    def hand_on(number: int, _frame: object) -> None:
        if number != signal.SIGINT:
            child.send_signal(number)

    for number in numbers():
        signal.signal(number, hand_on)
    with child:
        code = child.wait()
    return SIGNALLED - code if code < 0 else code


@click.group()
def sandbox() -> None:
    """A whole world on this machine: identity provider, broker, AWS and a security key made of software."""


@sandbox.command(cls=WithCommand)
@click.option("--user", default=DEFAULT_USER, show_default=True, help="Who you are in it.")
@click.pass_context
def run(ctx: click.Context, user: str) -> None:
    """Run CMD in a fresh world, then take the world down. CMD's exit code is credx's."""
    with needs("sandbox"):
        from credx.sandbox.world import World
    if user not in World.people:  # before a world is built for nobody
        people = ", ".join(World.people)
        raise UsageError(f"nobody in the sandbox is called {user!r}", hint=f"one of: {people}")
    with fresh_world() as world:
        code = run_child(ctx.meta[COMMAND], world.environment(user))
    ctx.exit(code)


@sandbox.command()
@click.pass_obj
def up(app: App) -> None:
    """Keep a world running until Ctrl-C. What its AWS and its broker refuse is told here, with the reason."""
    with fresh_world(log=True) as world:
        app.out(_welcome(world, app.edges.is_terminal()))
        with contextlib.suppress(KeyboardInterrupt):
            _wait()
        app.ui.note("taking the sandbox down")
    app.ui.note("nothing of it is left")


def _wait() -> None:
    if hasattr(signal, "pause"):
        signal.pause()
    else:
        threading.Event().wait()


# a shell's own credentials come before a profile's, and CI=true forbids every prompt
_IN_THE_WAY: Final = "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE CI"


def _write_environment(world: World, user: str) -> Path:
    """A file for a shell to source: the person's variables, their ``credx`` first on PATH."""
    environ = world.environment(user)
    first, _, _ = environ["PATH"].partition(os.pathsep)
    lines = [f"unset {_IN_THE_WAY}", f'export PATH={shlex.quote(first)}:"$PATH"']
    for name, value in environ.items():
        if name not in {"PATH", "HOME"} and os.environ.get(name) != value:
            lines.append(f"export {name}={shlex.quote(value)}")
    path = world.directory / f"{user}.env"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")  # in a 0700 directory, and no secret in it
    return path


def _welcome(world: World, is_terminal: bool) -> str:
    from credx.cli import tables

    where = {
        "identity provider": world.idp.issuer,
        "broker": world.broker_url,
        "AWS": world.aws.url,
        "policy": str(world.policy_file),
        "broker's data": str(world.directory / "broker"),
    }
    people = {
        person.username: (", ".join(person.groups), f". {_write_environment(world, person.username)}")
        for person in world.idp.people.values()
    }
    return tables.sandbox(where, people, is_terminal)
