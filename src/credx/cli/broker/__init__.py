"""``credx broker``: for the people who run one. Each command's module is loaded when it is called."""

from __future__ import annotations

import importlib
from typing import Final

import click

# name: (module, attribute, the line that --help shows without importing the module)
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "serve": ("serve", "serve", "Serve until Ctrl-C or SIGTERM."),
    "check": ("policy", "check", "Check a policy FILE, and say what enforces each role and scope."),
    "explain": ("explain", "explain", "Say rule by rule why a person would get a role, or not."),
    "template": ("template", "template", "Print the trust and permission policy of a role."),
    "users": ("users", "users", "List, show, disable and enable people; reset their factors."),
    "invite": ("invitations", "invite", "Make a one-time invitation to enrol a factor."),
    "invitations": ("invitations", "invitations", "List open invitations, or take one back."),
    "audit": ("audit", "audit", "Show, verify and export the audit trail."),
}


class _Broker(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, attribute, line = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
        command.short_help = line
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=_Broker)
def broker() -> None:
    """Run and look after the broker."""
