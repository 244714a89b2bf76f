"""Commands about you and this machine: ``init``, ``login``, ``logout``, ``status``, ``roles``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from credx.cli.options import as_json, no_input
from credx.errors import ConfigError, UsageError
from credx.ui import clean

if TYPE_CHECKING:
    from credx.cli.edges import App
    from credx.config import Settings


# What a person has chosen for this broker, and a second `init` does not take away
_OWN: Final = ("default_role", "ca_file", "sts_endpoint", "token_source", "prompt")


@click.command()
@click.argument("url")
@click.option("--ca-file", metavar="PATH", help="CA certificates to trust instead of the system's.")
@click.option("--yes", is_flag=True, help="Replace another broker or issuer without asking.")
@no_input
@click.pass_obj
def init(app: App, url: str, ca_file: str | None, yes: bool) -> None:
    """Configure credx from the broker at URL. From then on only this broker and this issuer are trusted."""
    import dataclasses

    from credx import config
    from credx.broker_client import BrokerClient
    from credx.urls import permitted_url

    if not permitted_url(url):
        raise UsageError(f"{clean(url)} is not an https address", hint="credx init https://BROKER")
    url = url.rstrip("/")
    ca_file = str(Path(ca_file).resolve()) if ca_file else None
    document = BrokerClient(url, app.http(ca_file)).configuration()
    settings = dataclasses.replace(config.from_broker_document(url, document), ca_file=ca_file)
    before = _configured(app)
    _confirm_change(app, before, settings, yes=yes)
    if before is not None and before.broker == settings.broker:
        own = {name: getattr(before, name) for name in _OWN if name != "ca_file" or ca_file is None}
        settings = dataclasses.replace(settings, **own)
    config.save(app.places, settings)
    app.ui.note(f"broker  {settings.broker}")
    app.ui.note(f"issuer  {settings.issuer}")
    app.ui.note(f"written to {app.places.config_file}; next: credx login")


def _configured(app: App) -> Settings | None:
    from credx import config

    if not app.places.config_file.exists():
        return None
    try:
        return config.load(app.places)
    except ConfigError as exc:
        app.ui.note(f"the present configuration cannot be read and will be replaced: {exc.message}")
        return None


def _confirm_change(app: App, before: Settings | None, after: Settings, *, yes: bool) -> None:
    """Whoever swaps the broker or the issuer gets the next sign-in, so a change is seen and agreed to."""
    if before is None or (before.broker, before.issuer) == (after.broker, after.issuer):
        return
    for name, old, new in (
        ("broker", before.broker, after.broker),
        ("issuer", before.issuer, after.issuer),
    ):
        app.ui.note(f"{name}  {old}" + (f"  ->  {new}" if old != new else ""))
    if yes:
        return
    if not app.ui.interactive:
        raise ConfigError(
            "credx is configured for another broker or issuer, and nobody is here to confirm the change",
            hint=f"credx init {after.broker} --yes",
        )
    if not app.ui.confirm("replace the configured broker and issuer?"):
        raise ConfigError("nothing was changed", hint=f"credx init {after.broker}")


@click.command()
@click.option(
    "--token-source", metavar="SOURCE",
    help="Take the ID token from file:PATH, env:NAME or stdin instead of the browser.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Sign in anew although you are signed in.")
@no_input
@click.pass_obj
def login(app: App, token_source: str | None, force: bool) -> None:
    """Sign in at your identity provider."""
    from credx import config

    if token_source is not None and not config.TOKEN_SOURCE.fullmatch(token_source):
        raise UsageError("a token source is file:PATH, env:NAME or stdin", hint="credx login --help")
    overrides = {} if token_source is None else {"token_source": token_source}
    claims = app.flow(**overrides).sign_in(force=force)
    name = next(
        (claims.claims[key] for key in ("email", "preferred_username", "name") if claims.claims.get(key)),
        claims.subject,
    )
    app.ui.note(f"signed in as {clean(name, 100)} at {clean(claims.issuer, 200)}")


@click.command()
@click.pass_obj
def logout(app: App) -> None:
    """Sign out: revoke what can be revoked, and forget everything that is cached."""
    left = app.flow().log_out()
    for line in left:
        app.ui.note(line)
    app.ui.note("signed out" + ("" if not left else "; what is named above could not be revoked"))


@click.command()
@as_json
@click.pass_obj
def status(app: App, as_json: bool) -> None:
    """Show who you are, what is cached and for how long."""
    from credx.cli import tables

    found = app.flow().status()
    now = app.edges.now()
    app.out(tables.to_json(found) if as_json else tables.status(found, now, app.edges.is_terminal()))


@click.command()
@as_json
@no_input
@click.pass_obj
def roles(app: App, as_json: bool) -> None:
    """List the roles you may take: which factor, how long, for what, and what enforces it."""
    from credx.cli import tables

    found = app.flow().roles()
    app.out(tables.to_json(found) if as_json else tables.roles(found, app.edges.is_terminal()))
