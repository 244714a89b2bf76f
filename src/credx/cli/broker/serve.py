"""``credx broker serve``."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import TYPE_CHECKING, Final

import click

from credx.cli.broker.common import data_option, opening, policy_option, store_answers, the_table
from credx.cli.longrun import at_hangup, ended_by_signals, every_second, log_to_stderr
from credx.cli.options import needs
from credx.errors import UsageError
from credx.ui import clean
from credx.urls import is_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credx.broker.service import Broker
    from credx.cli.edges import App

DEFAULT_LISTEN: Final = "127.0.0.1:8080"  # TLS ends in front of it, see docs/broker.md
# one line of JSON each, see broker/telemetry.py
_LOGS: Final = {
    "credx": "INFO",
    "waitress": "WARNING",
    "waitress.queue": "ERROR",  # it warns of every request that waits for a moment
}
_LISTEN = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})")


@click.command()
@policy_option
@data_option
@click.option(
    "--listen",
    default=DEFAULT_LISTEN,
    metavar="HOST:PORT",
    show_default=True,
    help="Where to listen, in plain HTTP.",
)
@click.option(
    "--trusted-proxy",
    metavar="ADDRESS",
    help="IP address of the proxy in front, whose X-Forwarded-For is believed.",
)
@click.option(
    "--ca-file", metavar="PATH", type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="CA certificates to trust instead of the system's.",
)  # fmt: skip
@click.option(
    "--log-audit/--no-log-audit",
    default=True,
    show_default=True,
    help="Copy every audit record to the log: the copy that a cut chain is held against.",
)
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
    log_audit: bool,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    A changed policy file holds after two seconds, with SIGHUP at once; where stderr is a terminal SIGHUP ends the
    broker, as a terminal that is closed does.
    """
    host, port = _address(listen)
    if trusted_proxy is not None and not is_address(trusted_proxy):  # "*" would believe everybody
        raise UsageError(f"{clean(trusted_proxy)!r} is no IP address", hint="--trusted-proxy 127.0.0.1")
    with needs("broker"):
        from credx.broker import telemetry
        from credx.broker.assemble import open_broker
        from credx.broker.front import wsgi
    for name, level in _LOGS.items():
        log_to_stderr(name, level, telemetry.JsonLines())
    copy = telemetry.audit_copy if log_audit else None
    with store_answers(), opening(data_dir):
        running = open_broker(
            policy_file, data_dir, table=the_table(), ca_file=ca_file, now=app.edges.now, copy=copy
        )
    try:
        server = wsgi.serve(running, host, port, trusted_proxy=trusted_proxy)
    except OSError as exc:
        raise UsageError(f"cannot listen on {listen}: {exc.strerror}", hint="--listen HOST:PORT") from exc
    with contextlib.closing(running.store), ended_by_signals(), _following(app, running):
        if not _loopback(host):
            app.ui.note(
                f"warning: {host} is no loopback address and this is plain HTTP: end TLS in front of it"
            )
        app.ui.note(f"{running.policy().broker.issuer} listens on http://{host}:{server.effective_port}")
        server.run()  # returns after Ctrl-C and SIGTERM, once the requests at hand are answered
        server.close()
    app.ui.note("stopped")


@contextlib.contextmanager
def _following(app: App, running: Broker) -> Iterator[None]:
    """The policy file is looked at each second: nobody's first request after a quiet night is decided by the old one.

    SIGHUP looks now. In a terminal it says that the terminal has gone.
    """
    look = getattr(running.policy, "look_now", None)
    hangup = contextlib.nullcontext() if look is None or app.edges.notes_visible() else at_hangup(look)
    with every_second(running.policy), hangup:
        yield


def _address(listen: str) -> tuple[str, int]:
    match = _LISTEN.fullmatch(listen)
    if match is None or not 0 <= int(match[3]) <= 65535:
        raise UsageError(f"{clean(listen)!r} is not HOST:PORT", hint=f"--listen {DEFAULT_LISTEN}")
    return match[1] or match[2], int(match[3])


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
