"""``credx broker audit``: who did what, whether the record of it is whole, and a copy to take away."""

from __future__ import annotations

import os
import re
import tempfile
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from credx.broker.audit.record import EVENTS, STARTED
from credx.cli.broker.common import data_option, existing_office
from credx.cli.options import as_json, counted
from credx.errors import ConfigError, CredxError, UsageError
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from credx.broker.audit.verify import PublicKeys, Verified
    from credx.cli.edges import App

T = TypeVar("T")

DEFAULT_SPAN: Final = 24 * 3600  # seconds
LIMIT: Final = 200
AT_ONCE: Final = 1000  # records of one write to stdout
TELL_EVERY: Final = 100_000  # records

_KINDS: Final = tuple(sorted({*EVENTS, STARTED}))
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO = re.compile(r"([0-9]{1,6})([mhdw])")
_ISSUANCE = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}")


class Moment(click.ParamType[float]):
    """``7d`` or ``12h``: that long ago; or an ISO 8601 date or time, UTC unless it says otherwise."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return value
        text = str(value).strip()
        ago = _AGO.fullmatch(text)
        if ago:
            app: App = (ctx or click.get_current_context()).find_root().obj
            return app.edges.now() - int(ago[1]) * _UNITS[ago[2]]
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{value!r} is no time; write 7d, 12h, 2026-11-23 or 2026-11-23T08:00Z", param, ctx)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


since_option = click.option("--since", type=Moment(), help="From then on: 7d, 12h, 2026-11-23T08:00Z.")
until_option = click.option("--until", type=Moment(), help="Up to then, and not that moment itself.")
jwks_option = click.option(
    "--jwks", "jwks_file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A JWK Set with more public mint keys: retired ones, another broker's.",
)  # fmt: skip


@click.group()
def audit() -> None:
    """Show, verify and export the audit trail.

    What a record holds, and how to come from a CloudTrail event to a person: docs/audit.md.
    """


@audit.command(short_help="Show records, the newest last.")
@data_option
@click.option("--user", metavar="USER", help="Shown name, user key or 'ISSUER|SUBJECT'.")
@click.option("--role", metavar="ROLE", help="A role of the policy.")
@click.option(
    "--event", type=click.Choice(_KINDS), metavar="EVENT", help=f"One kind of event: {', '.join(_KINDS)}."
)
@click.option("--issuance", metavar="ID", help="An issuance id, or the eight digits that end a session name.")
@click.option("--access-key", metavar="ID", help="An access key id, where the broker called STS.")
@since_option
@until_option
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=LIMIT, show_default=True, help="Records at the most."
)
@as_json
@click.pass_obj
def show(
    app: App,
    /,
    *,
    data_dir: Path,
    user: str | None,
    role: str | None,
    event: str | None,
    issuance: str | None,
    access_key: str | None,
    since: float | None,
    until: float | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show records, the newest last: of the last 24 hours unless --since, --until or a whole --issuance says else."""
    from credx.cli import tables

    issuance = issuance.strip().lower() if issuance else None
    if issuance is not None and not _ISSUANCE.fullmatch(issuance):
        raise UsageError(
            "an issuance id has 32 hex digits, and a session name ends with the last eight",
            hint="credx broker audit show --help",
        )
    last_day = since is until is None and len(issuance or "") != 32  # which says when
    if last_day:
        since = app.edges.now() - DEFAULT_SPAN
    with existing_office(app, data_dir) as at:
        if user:
            from credx.broker.directory import name_prefix

            # a name without its digits would find nothing, and look as if there were nothing
            name_prefix(user)
        newest_first = at.audit.read(
            app.edges.now(), newest_first=True, user=user, role=role, event=event, issuance=issuance,
            access_key_id=access_key, since=since, until=until,
        )  # fmt: skip
        found = list(islice(newest_first, limit + 1))
    shown = found[:limit][::-1]
    app.out(tables.to_json(shown) if as_json else tables.audit(shown, app.edges.is_terminal()))
    if len(found) > limit:
        app.ui.note(f"the newest {limit}; there are more: --limit, --since, --until")
    elif last_day:
        app.ui.note("of the last 24 hours; --since 7d looks further back")


@audit.command(short_help="Write records to stdout, one line of JSON each.")
@data_option
@since_option
@until_option
@click.pass_obj
def export(app: App, data_dir: Path, since: float | None, until: float | None) -> None:
    """Write records to stdout, oldest first, one line of JSON each, exactly as stored.

    The first record of every chain comes along, whenever it was: it holds the key that verifies the others.
    """
    count = 0
    with existing_office(app, data_dir) as at:
        from credx.broker.audit.files import exported
        from credx.broker.audit.read import Wanted, read_with_starts

        records = read_with_starts(at.store, Wanted(since=since, until=until, starts=True), app.edges.now())
        while block := [exported(record) for record in islice(records, AT_ONCE)]:
            count += len(block)
            app.out("".join(block))
    app.ui.note(counted(count, "record"))


@audit.command(short_help="Recompute every chain, from the store.")
@data_option
@jwks_option
@click.option(
    "--against", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Heads saved earlier: nothing up to them may be gone.",
)  # fmt: skip
@click.option(
    "--save", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the heads of today, if all is well. Keep the file on another host.",
)  # fmt: skip
@click.pass_obj
def verify(app: App, data_dir: Path, jwks_file: Path | None, against: Path | None, save: Path | None) -> None:
    """Recompute every chain. Ends with 1 at the first record that is changed, missing or forged.

    An end that was cut off, or a chain that is gone, is missed by a chain that started later; --against finds it
    in the newest ones too.
    """
    with existing_office(app, data_dir) as at:
        from credx.broker.audit.files import heads_text, read_heads
        from credx.broker.audit.verify import verify as verify_trail

        keys = {**_retired(jwks_file), **at.audit.own_keys()}
        heads = _read(against, read_heads, "no file of saved heads") if against else []
        now = app.edges.now()
        found = verify_trail(at.store, keys, now, against=heads, progress=_progress(app))
    _tell(app, found)
    if save:
        _write_private(save, heads_text(found.heads, now))


@audit.command("verify-export", short_help="Recompute the chains of an export, without the store.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option(
    "--jwks", "jwks_file", required=True, metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The broker's JWK Set: public mint keys.",
)  # fmt: skip
@click.pass_obj
def verify_export(app: App, file: Path, jwks_file: Path) -> None:
    """Verify what `credx broker audit export` wrote into FILE, without the store.

    It cannot show that a chain, its end or what follows its first record was left out: for that compare with the store.
    """
    from credx.broker.audit.files import imported
    from credx.broker.audit.verify import verify_export as verify_records

    keys = _retired(jwks_file)
    try:
        with click.open_file(str(file), encoding="utf-8") as lines:
            found = verify_records(imported(lines), keys, _progress(app))
    except ValueError as exc:
        raise CredxError(f"the audit trail is broken: {clean(exc)}", hint=_BROKEN_HINT) from exc
    _tell(app, found)
    if found.begins_late:
        app.ui.note(
            f"of {counted(found.begins_late, 'chain')} the export holds the first record and a later part"
        )


_BROKEN_HINT: Final = "keep the store as it is, and compare with your exports: docs/audit.md"


def _tell(app: App, found: Verified) -> None:
    if found.broken:
        writer, seq, why = found.broken
        where = f"chain {writer}, record {seq}" if seq else f"chain {writer}"
        raise CredxError(f"the audit trail is broken: {where}: {clean(why)}", hint=_BROKEN_HINT)
    by = f", begun by mint key {', '.join(sorted(found.kids))}" if found.kids else ""
    app.ui.note(f"ok: {counted(found.records, 'record')} in {counted(len(found.heads), 'chain')}{by}")


def _progress(app: App) -> Callable[[int], None]:
    def tell(count: int) -> None:
        if count % TELL_EVERY == 0:
            app.ui.note(f"{count} records so far")

    return tell


def _retired(jwks_file: Path | None) -> PublicKeys:
    from credx.broker.audit.files import mint_keys

    return _read(jwks_file, mint_keys, "no JWK Set") if jwks_file else {}


def _read(path: Path, parse: Callable[[bytes], T], otherwise: str) -> T:
    try:
        return parse(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}", hint="credx broker audit --help") from exc
    except ValueError as exc:
        raise ConfigError(
            f"{path} is {otherwise}: {clean(exc)}", hint="credx broker audit verify --help"
        ) from exc


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, for its owner only: whoever may write it may say that nothing is missing."""
    try:
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600, O_EXCL
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).replace(path)
        except BaseException:
            Path(beside).unlink()
            raise
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc.strerror}", hint="--save FILE") from exc
