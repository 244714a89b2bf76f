"""What ``credx broker explain`` found, for people: the rules in their order, then what the session would hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table
from rich.text import Text

from credx.cli.options import spell
from credx.cli.tables import _cell, _render
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

_MARKS: Final = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "dim")}


def explanation(found: Mapping[str, Any], is_terminal: bool) -> str:
    """``found``: what ``--json`` prints."""
    steps = _columns(3)
    for step in found["steps"]:
        mark, style = _MARKS[step["passed"]]
        steps.add_row(_cell(mark, style), _cell(step["rule"], "bold"), _cell(step["text"]))
    if found["session"] is None:
        return _render(steps, is_terminal)
    parts = (steps, Text(""), *_session(found["session"]))
    return "".join(_render(part, is_terminal) for part in parts)


def _columns(count: int) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(count):
        table.add_column(overflow="fold")  # an ARN that is cut cannot be compared
    return table


def _session(session: Mapping[str, Any]) -> tuple[Table, Text]:
    serves = session["proof_serves"]
    table = _columns(2)
    for name, value in {
        "role": session["role_arn"],
        "life": spell(session["duration"]),
        "proof": f"{' or '.join(session['factors'])}, {'for ' + spell(serves) if serves else 'once'}",
        "tags": ", ".join(f"{key}={value}" for key, value in session["tags"].items()),
        "enforced by": session["enforcement"],
        **{f"  {scope['name']}": scope["enforcement"] for scope in session["scopes"]},
    }.items():
        table.add_row(_cell(name, "bold"), _cell(value))
    policy = session["session_policy"]
    shown = "none: whatever the role may do" if policy is None else json.dumps(policy, indent=2)
    return table, Text("session policy\n", style="bold").append(
        "\n".join(map(clean, shown.splitlines())), style="not bold"
    )
