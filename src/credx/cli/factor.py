"""``credx factor``: list, add and remove second factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credx.cli.options import as_json, no_input
from credx.errors import UsageError

if TYPE_CHECKING:
    from credx.cli.edges import App
    from credx.model import Secret

MAX_INVITATION = 1024  # characters read from stdin; an invitation is a handle of at most 128


@click.group()
def factor() -> None:
    """List, add and remove second factors."""


@factor.command("list")
@as_json
@no_input
@click.pass_obj
def list_(app: App, as_json: bool) -> None:
    """List your second factors."""
    from credx.cli import tables

    found = app.flow().factors()
    app.out(tables.to_json(found) if as_json else tables.factors(found, app.edges.is_terminal()))


@factor.command()
@click.argument("kind", type=click.Choice(["webauthn", "totp"]))
@click.option("--name", required=True, metavar="NAME", help="What you call it, such as 'blue key'.")
@click.option(
    "--invitation", metavar="-",
    help="- asks for the invitation on the terminal, or reads it from a pipe on stdin.",
)  # fmt: skip
@no_input
@click.pass_obj
def add(app: App, kind: str, name: str, invitation: str | None) -> None:
    """Add a security key or passkey (webauthn), or an authenticator app (totp).

    The first factor needs an invitation from the people who run the broker; every further one is confirmed
    with a factor you have.
    """
    if invitation not in {None, "-"}:
        # the value is not repeated: the shell's history has it already, no log shall
        raise UsageError(
            "an invitation on the command line can be read by others on this machine",
            hint=f"credx factor add {kind} --name NAME --invitation -",
        )
    secret = _read_invitation(app) if invitation else None

    def show(uri: Secret, seed: Secret) -> None:
        app.ui.show(
            f"\nsecret  {seed.reveal()}\nURI     {uri.reveal()}\n\nadd one of them to your authenticator app"
        )

    app.flow().add_factor(kind, name, invitation=secret, show=show)
    app.ui.note("added; see it with: credx factor list")


def _read_invitation(app: App) -> Secret:
    from credx.model import Secret

    stdin = app.edges.stdin
    if stdin.isatty():
        found = app.ui.prompt_secret("invitation")
    else:
        line = stdin.readline(MAX_INVITATION)
        found = Secret(line.decode("ascii", "replace") if isinstance(line, bytes) else line)
    stripped = found.reveal().strip()
    if not stripped:
        raise UsageError("the invitation is empty", hint="paste it, or pipe it to stdin")
    return Secret(stripped)


@factor.command()
@click.argument("factor_id", metavar="ID")
@no_input
@click.pass_obj
def remove(app: App, factor_id: str) -> None:
    """Remove a factor; a fresh proof confirms it."""
    app.flow().remove_factor(factor_id)
    app.ui.note(f"removed {factor_id}")
