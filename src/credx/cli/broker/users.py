"""``credx broker invite``: who may enrol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from credx.cli.broker.common import administrator, data_option, office, policy_option
from credx.cli.options import needs, spell
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
@click.pass_obj
def invite(app: App, policy_file: Path, data_dir: Path, issuer: str, subject: str) -> None:
    """Make a one-time invitation with which SUBJECT of ISSUER enrols a first factor.

    It is printed once, works for 24 hours and for nobody else.
    """
    if not subject.strip() or not subject.isprintable():
        raise UsageError(
            "the subject is what the ID token's `sub` says, and not empty", hint="credx broker invite --help"
        )
    with needs("broker"):
        from credx.broker.invitation import create_invitation
        from credx.broker.policy_file import load_policy
    issuers = load_policy(policy_file).issuers
    if issuer not in issuers:
        raise UsageError(
            f"the policy trusts no identity provider called {clean(issuer)}",
            hint=f"one of: {', '.join(issuers)}",
        )
    with office(app, data_dir) as at:
        secret = create_invitation(
            at.audit,
            issuer,
            subject,
            administrator=administrator(),
            now=app.edges.now(),
            rng=app.edges.rng,
        )
    app.out(secret.reveal() + "\n")
    app.ui.note(f"good once, for {spell(24 * 3600)}, with {clean(subject)}'s own sign-in alone")
