"""``credx broker serve``."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

import click

from credx.cli.broker.common import data_option, policy_option
from credx.cli.longrun import ended_by_signals, log_to_stderr
from credx.cli.options import needs
from credx.errors import UsageError
from credx.ui import clean

if TYPE_CHECKING:
    from pathlib import Path

    from credx.cli.edges import App

DEFAULT_LISTEN: Final = "127.0.0.1:8080"  # TLS ends in front of it, see docs/broker.md
_LISTEN = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})")


@click.command()
@policy_option
@data_option
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
