"""What several of the broker's commands share: where a broker's things are, and who is at the keyboard."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from credx.cli.options import needs
from credx.errors import ConfigError, UnavailableError, UsageError
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from credx.broker.assemble import Office
    from credx.broker.stores.dynamodb import Table
    from credx.cli.edges import App

policy_option = click.option(
    "--policy", "policy_file", required=True, metavar="FILE", envvar="CREDX_BROKER_POLICY", show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path), help="The policy, a TOML file.",
)  # fmt: skip
_TABLE: Final = "credx.broker.table"  # the keys in ctx.meta
_REGION: Final = "credx.broker.region"


def data_option(command: Callable[..., None]) -> Callable[..., None]:
    """``--data`` as ``data_dir``; ``--table`` and ``--region`` are for ``office`` and ``the_table``."""
    return _data(table_options(command))


def table_options(command: Callable[..., None]) -> Callable[..., None]:
    """For a command with a ``--data`` of its own."""
    return _table(_region(command))


def _kept(name: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def keep(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        ctx.meta[name] = value

    return keep


_data = click.option(
    "--data", "data_dir", required=True, metavar="DIR", envvar="CREDX_BROKER_DATA", show_envvar=True,
    type=click.Path(file_okay=False, path_type=Path), help="Where the store and the keys are.",
)  # fmt: skip
_table = click.option(
    "--table", metavar="NAME", envvar="CREDX_BROKER_TABLE", show_envvar=True, expose_value=False,
    callback=_kept(_TABLE), help="The store is this table in DynamoDB; the keys stay in --data.",
)  # fmt: skip
_region = click.option(
    "--region", metavar="REGION", envvar="AWS_REGION", show_envvar=True, expose_value=False,
    callback=_kept(_REGION), help="Where the table is.",
)  # fmt: skip


def the_table() -> Table | None:
    """What ``--table`` and ``--region`` say.

    Raises:
        UsageError: the region is missing.
    """
    with needs("broker"):
        from credx.broker.stores.dynamodb import Table
    meta = click.get_current_context().meta
    if not meta.get(_TABLE):
        return None
    if not meta.get(_REGION):
        raise UsageError("say which region the table is in", hint="--table NAME --region eu-central-1")
    return Table(meta[_TABLE], meta[_REGION])


@contextlib.contextmanager
def store_answers() -> Iterator[None]:
    """A store that is out of reach is told as such. Raises ``UnavailableError``."""
    from credx.broker.stores import StoreUnavailableError

    try:
        yield
    except StoreUnavailableError as exc:
        raise UnavailableError(
            f"the broker's store does not answer: {clean(exc)}", hint="try again in a minute"
        ) from exc


@contextlib.contextmanager
def opening(data_dir: Path) -> Iterator[None]:
    """A directory that cannot be made or opened is told as such. Raises ``ConfigError``."""
    try:
        yield
    except OSError as exc:
        raise ConfigError(
            f"{clean(exc.filename or data_dir)}: cannot be made or opened: {exc.strerror or type(exc).__name__}",
            hint="give --data a directory that the broker's account owns",
        ) from exc


@contextlib.contextmanager
def office(app: App, data_dir: Path) -> Iterator[Office]:
    """The broker's store and audit trail, for a command of its administrators."""
    with needs("broker"):
        from credx.broker.assemble import open_office
    with store_answers():
        with opening(data_dir):
            opened = open_office(data_dir, table=the_table(), now=app.edges.now)
        with contextlib.closing(opened.store):
            yield opened


@contextlib.contextmanager
def existing_office(app: App, data_dir: Path, *, new_store: bool = False) -> Iterator[Office]:
    """The same where a directory that is no broker's is a mistake: neither a key nor a store is made in it.

    ``new_store``: next to the keys a store may be made, by what must be done before a broker serves it.

    Raises:
        ConfigError: the directory is no broker's.
    """
    with needs("broker"):
        from credx.broker.assemble import DATABASE, SIGNING_KEY
    for name in (SIGNING_KEY, *(() if the_table() or new_store else (DATABASE,))):
        if not (data_dir / name).is_file():
            raise ConfigError(
                f"{data_dir} is no broker's directory: there is no {name} in it",
                hint="give --data the directory that `credx broker serve` was given, and --table if it was",
            )
    with office(app, data_dir) as at:
        yield at


def administrator() -> str:
    """Whoever may open the store, by the name that this host knows; the audit record says so.

    By the user id and not, as ``getpass.getuser``, by variables that anybody sets as he likes.
    """
    import os
    import socket

    try:
        import pwd

        name = pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):  # Windows, where no store opens; an account without a name
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
