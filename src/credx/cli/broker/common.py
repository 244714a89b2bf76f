"""What several of the broker's commands share: where a broker's things are, and who is at the keyboard."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from credx.cli.options import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credx.broker.assemble import Office
    from credx.cli.edges import App

policy_option = click.option(
    "--policy", "policy_file", required=True, metavar="FILE", envvar="CREDX_BROKER_POLICY", show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path), help="The policy, a TOML file.",
)  # fmt: skip
data_option = click.option(
    "--data", "data_dir", required=True, metavar="DIR", envvar="CREDX_BROKER_DATA", show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path), help="Where the store and the keys are.",
)  # fmt: skip


@contextlib.contextmanager
def office(app: App, data_dir: Path) -> Iterator[Office]:
    """The broker's store and audit trail, for a command of its administrators."""
    with needs("broker"):
        from credx.broker.assemble import open_office
    opened = open_office(data_dir, now=app.edges.now)
    with contextlib.closing(opened.store):
        yield opened


def administrator() -> str:
    """Whoever may open the store, by the name that this host knows; the audit record says so."""
    import getpass
    import socket

    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # an account without a name
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
