"""``credx broker check``: what a policy file says, before anybody relies on it."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from credx.cli.options import as_json, counted
from credx.errors import ConfigError
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credx.broker.policy.faults import Finding
    from credx.broker.policy.rules import Policy
    from credx.cli.edges import App

LINE: Final = 1000  # characters of a finding


@click.command()
@click.argument("file", envvar="CREDX_BROKER_POLICY", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--strict", is_flag=True, help="Fail where there is a warning, too.")
@as_json
@click.pass_obj
def check(app: App, file: Path, strict: bool, as_json: bool) -> None:
    """Check a policy FILE (or CREDX_BROKER_POLICY), and say what enforces each role and scope.

    Faults (a broker refuses the file) and warnings go to stderr as FILE:LINE: key: text. The exit code is 3 where
    there is a fault, and with --strict where there is a warning.

    With --json: {"roles": [...], "findings": [{"level", "line", "key", "text"}]}.
    """
    from credx.broker.policy.faults import PolicyFileError
    from credx.broker.policy.file import read_policy, read_text
    from credx.broker.policy.review import review
    from credx.cli import tables

    text = read_text(file)
    try:
        policy, source = read_policy(text, str(file))
    except PolicyFileError as exc:
        if as_json:
            found = [_finding(fault.finding, fault.line) for fault in exc.faults]
            app.out(tables.to_json({"roles": [], "findings": found}))
        _tell(app, [fault.told for fault in exc.faults])
        faults = counted(len(exc.faults), "fault")
        raise ConfigError(
            f"{file}: {faults}: a broker refuses this file", hint=f"mend it, then: credx broker check {file}"
        ) from exc
    warnings = review(policy)
    roles = _roles(policy)
    if as_json:
        found = [_finding(finding, source.line(finding.path)) for finding in warnings]
        app.out(tables.to_json({"roles": roles, "findings": found}))
    else:
        app.out(tables.roles(roles, app.edges.is_terminal()))
    _tell(app, [source.told(finding) for finding in warnings])
    providers = counted(len(policy.issuers), "identity provider")
    told = f"{file}: {counted(len(roles), 'role')}, {providers}, {counted(len(warnings), 'warning')}"
    if warnings and strict:
        raise ConfigError(told, hint="mend it, or leave out --strict")
    app.ui.note(f"ok: {told}")


def _tell(app: App, lines: Sequence[str]) -> None:
    """As they are, so that an editor finds the line; on a terminal folded at spaces."""
    for line in lines:
        text = clean(line, LINE)
        if app.edges.notes_visible():
            width = shutil.get_terminal_size().columns
            text = textwrap.fill(
                text, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
            )
        app.edges.write_note(f"{text}\n")


def _finding(finding: Finding, line: int | None) -> dict[str, Any]:
    from credx.broker.policy.faults import dotted

    return {"level": finding.level, "line": line, "key": dotted(finding.path), "text": finding.text}


def _roles(policy: Policy) -> list[dict[str, Any]]:
    from credx.broker.policy import role_enforcement, scope_enforcement
    from credx.broker.policy.review import room

    return [
        {
            "name": role.name,
            "account": role.account,
            "arn": role.arn,
            "groups": sorted(role.groups),
            "factors": list(role.factors),
            "duration": role.duration,
            "max_duration": role.max_duration,
            "requires_target": role.target == "required",
            "requires_reason": role.reason == "required",
            "operations": list(role.operations),
            "enforcement": role_enforcement(role),
            "session_policy": room(role)._asdict(),
            "scopes": [
                {"name": scope.name, "enforcement": scope_enforcement(role, scope)}
                for scope in role.scopes.values()
            ],
        }
        for role in policy.roles.values()
    ]
