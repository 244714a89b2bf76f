"""``credx broker template``: what an administrator of AWS creates for a role."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from credx.cli.broker.common import policy_option
from credx.errors import UsageError
from credx.ui import clean

if TYPE_CHECKING:
    from pathlib import Path

    from credx.cli.edges import App

PARTS: Final = ("all", "trust", "permissions", "provider")


@click.command()
@policy_option
@click.option("--role", "name", required=True, metavar="NAME", help="A role of the policy.")
@click.option("--part", type=click.Choice(PARTS), default="all", show_default=True, help="Only this of it.")
@click.pass_obj
def template(app: App, policy_file: Path, name: str, part: str) -> None:
    """Print the trust policy, the permission policy and the rest that AWS must be told of a role."""
    from credx.broker.policy.file import load_policy
    from credx.broker.policy.role_template import role_template

    policy = load_policy(policy_file)
    role = policy.roles.get(name)
    if role is None:
        raise UsageError(
            f"the policy has no role {clean(name)}", hint=f"one of: {', '.join(sorted(policy.roles))}"
        )
    made = role_template(policy, role)
    everything: dict[str, Any] = {
        "role": made.role,
        "max_session_duration": made.max_session_duration,
        "trust_policy": made.trust_policy,
        "permission_policy": made.permission_policy,
        "provider": made.provider,
    }
    parts = {"trust": made.trust_policy, "permissions": made.permission_policy, "provider": made.provider}
    app.out(json.dumps(parts.get(part, everything), indent=2) + "\n")
    for note in made.notes:
        app.ui.note(f"{made.role}: {note}")
