"""``credx broker check``: what a policy file says, before anybody relies on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from credx.cli.edges import App


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_obj
def check(app: App, file: Path) -> None:
    """Check a policy FILE, and say per role and scope what enforces it."""
    from credx.broker.policy import role_enforcement, scope_enforcement
    from credx.broker.policy_file import load_policy
    from credx.cli import tables

    policy = load_policy(file)
    listed = [
        {
            "name": role.name,
            "account": role.account,
            "factors": role.factors,
            "duration": role.duration,
            "requires_target": role.target == "required",
            "requires_reason": role.reason == "required",
            "enforcement": role_enforcement(role),
            "scopes": [
                {"name": scope.name, "enforcement": scope_enforcement(role, scope)}
                for scope in role.scopes.values()
            ],
        }
        for role in policy.roles.values()
    ]
    app.out(tables.roles(listed, app.edges.is_terminal()))
    app.ui.note(f"ok: {file}: {len(listed)} roles, {len(policy.issuers)} identity providers")
