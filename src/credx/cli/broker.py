"""``credx broker``: for the people who run one."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from credx.cli.longrun import ended_by_signals, log_to_stderr
from credx.cli.options import needs, spell
from credx.errors import UsageError
from credx.ui import clean

if TYPE_CHECKING:
    from credx.cli.edges import App

DEFAULT_LISTEN: Final = "127.0.0.1:8080"  # TLS ends in front of it, see docs/broker.md
_LISTEN = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})")

_policy = click.option(
    "--policy", "policy_file", required=True, metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="The policy, a TOML file.",
)  # fmt: skip
_data = click.option(
    "--data", "data_dir", required=True, metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
    help="Where the store and the signing key are.",
)  # fmt: skip


@click.group()
def broker() -> None:
    """Run and look after the broker."""


@broker.command()
@_policy
@_data
@click.option("--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", show_default=True)
@click.option(
    "--trusted-proxy", metavar="ADDRESS", help="The proxy in front, whose X-Forwarded-For is believed."
)
@click.option(
    "--ca-file", metavar="PATH", type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="CA certificates to trust instead of the system's.",
)  # fmt: skip
@click.pass_obj
def serve(
    app: App,
    /,
    *,
    policy_file: Path,
    data_dir: Path,
    listen: str,
    trusted_proxy: str | None,
    ca_file: str | None,
) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    host, port = _address(listen)
    with needs("broker"):
        from credx.broker import wsgi
        from credx.broker.assemble import open_broker
    running = open_broker(policy_file, data_dir, ca_file=ca_file, now=app.edges.now)
    log_to_stderr("credx", "INFO")  # the security log, one JSON line each
    log_to_stderr("waitress", "WARNING")
    log_to_stderr("waitress.queue", "ERROR")  # it warns of every request that waits for a moment
    try:
        server = wsgi.serve(running, host, port, trusted_proxy=trusted_proxy)
    except OSError as exc:
        raise UsageError(f"cannot listen on {listen}: {exc.strerror}", hint="--listen HOST:PORT") from exc
    with contextlib.closing(running.store), ended_by_signals():
        app.ui.note(f"{running.policy().broker.issuer} listens on http://{host}:{server.effective_port}")
        server.run()  # returns after Ctrl-C and SIGTERM, once the requests at hand are answered
        server.close()
    app.ui.note("stopped")


def _address(listen: str) -> tuple[str, int]:
    match = _LISTEN.fullmatch(listen)
    if match is None or not 0 <= int(match[3]) <= 65535:
        raise UsageError(f"{clean(listen)!r} is not HOST:PORT", hint=f"--listen {DEFAULT_LISTEN}")
    return match[1] or match[2], int(match[3])


@broker.command()
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


@broker.command()
@_policy
@_data
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
        from credx.broker.assemble import open_broker
        from credx.broker.invitation import create_invitation
    running = open_broker(policy_file, data_dir, now=app.edges.now)
    with contextlib.closing(running.store):
        if issuer not in running.policy().issuers:
            raise UsageError(
                f"the policy trusts no identity provider called {clean(issuer)}",
                hint=f"one of: {', '.join(running.policy().issuers)}",
            )
        secret = create_invitation(
            running.audit,
            issuer,
            subject,
            administrator=_administrator(),
            now=app.edges.now(),
            rng=app.edges.rng,
        )
    app.out(secret.reveal() + "\n")
    app.ui.note(f"good once, for {spell(24 * 3600)}, with {clean(subject)}'s own sign-in alone")


def _administrator() -> str:
    """Whoever may read the store's files, by the name that this host knows; the audit record says so."""
    import getpass
    import socket

    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # an account without a name
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
