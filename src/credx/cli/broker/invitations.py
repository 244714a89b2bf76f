"""``credx broker invite`` and ``credx broker invitations``: who may enrol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credx.cli.broker.common import administrator, data_option, existing_office, policy_option
from credx.cli.options import as_json, needs, spell
from credx.errors import UsageError
from credx.ui import clean

if TYPE_CHECKING:
    from pathlib import Path

    from credx.cli.edges import App


@click.command()
@policy_option
@data_option
@click.argument("issuer")
@click.argument("subject")
@as_json
@click.pass_obj
def invite(
    app: App, /, *, policy_file: Path, data_dir: Path, issuer: str, subject: str, as_json: bool
) -> None:
    """Make a one-time invitation with which SUBJECT of ISSUER enrols a factor.

    It is printed once, works for 24 hours and for nobody else.
    """
    from credx.cli import tables

    with needs("broker"):
        from credx.broker.directory import key_of
        from credx.broker.invitation import LIFE, create_invitation
        from credx.broker.policy.file import load_policy
    issuers = load_policy(policy_file).issuers
    if issuer not in issuers:
        raise UsageError(
            f"the policy trusts no identity provider called {clean(issuer)}",
            hint=f"one of: {', '.join(issuers)}",
        )
    key_of(issuer, subject)
    with existing_office(app, data_dir, new_store=True) as at:
        secret = create_invitation(
            at.audit,
            issuer,
            subject,
            administrator=administrator(),
            now=app.edges.now(),
            rng=app.edges.rng,
        )
    if as_json:
        app.out(tables.to_json({"invitation": secret.reveal(), "issuer": issuer, "subject": subject}))
    else:
        app.out(secret.reveal() + "\n")
    app.ui.note(
        f"good once, for {spell(LIFE)}, with {clean(subject)}'s own sign-in alone; it is asked for by:"
    )
    app.ui.note("credx factor add webauthn --name NAME")


@click.group()
def invitations() -> None:
    """List open invitations, or take one back."""


@invitations.command("list")
@data_option
@as_json
@click.pass_obj
def list_invitations(app: App, data_dir: Path, as_json: bool) -> None:
    """List the invitations that nobody has used yet. What they open with was shown once and is not stored."""
    from credx.cli import tables

    with existing_office(app, data_dir) as at:
        from credx.broker.invitation import open_invitations

        found = sorted(open_invitations(at.store, now=app.edges.now()), key=lambda one: one.expires_at)
    rows = [one._asdict() for one in found]
    app.out(tables.to_json(rows) if as_json else tables.invitations(rows, app.edges.is_terminal()))


@invitations.command()
@data_option
@click.argument("name", metavar="ID")
@as_json
@click.pass_obj
def revoke(app: App, data_dir: Path, name: str, as_json: bool) -> None:
    """Take an invitation back, by the ID that the list shows."""
    from credx.cli import tables

    with existing_office(app, data_dir) as at:
        from credx.broker.invitation import revoke_invitation

        gone = revoke_invitation(at.store, at.audit, name, administrator=administrator(), now=app.edges.now())
    if as_json:
        app.out(tables.to_json(gone._asdict()))
    app.ui.note(f"revoked: the invitation of {clean(gone.subject)} at {clean(gone.issuer)}")
