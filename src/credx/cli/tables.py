"""What people read: tables with rich where stdout is a terminal, plain aligned columns where it is not."""

from __future__ import annotations

import functools
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, ParamSpec

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from credx.cli.options import spell
from credx.protocol import not_understood
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

P = ParamSpec("P")

PIPED_WIDTH: Final = 400  # columns; a pipe has no edge to fold at


def to_json(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=False, default=str) + "\n"


def _understood(table: Callable[P, str]) -> Callable[P, str]:
    """What the broker lists is looked at here first; another shape is as good as no answer."""

    @functools.wraps(table)
    def tell(*args: P.args, **kwargs: P.kwargs) -> str:
        try:
            return table(*args, **kwargs)
        except (LookupError, TypeError, ValueError, OverflowError, OSError) as exc:
            raise not_understood() from exc

    return tell


@_understood
def roles(found: Sequence[Mapping[str, Any]], is_terminal: bool) -> str:
    table = _table("role, scope", "account", "factor", "life", "target", "enforced by")
    table.columns[-1].no_wrap = True
    for role in found:
        table.add_row(
            _cell(role["name"], "bold"),
            _cell(role["account"]),
            _cell(", ".join(role.get("factors", ()))),
            _cell(spell(role["duration"])),
            _cell(_wanted(role)),
            _enforcement(role.get("enforcement")),
        )
        for scope in role.get("scopes", ()):
            row = (_cell(f"  {clean(scope['name'])}", "dim"), *[Text("")] * 4)
            table.add_row(*row, _enforcement(scope.get("enforcement")))
    return _render(table if found else Text("no role is open to you"), is_terminal)


def _wanted(role: Mapping[str, Any]) -> str:
    target = str(role.get("requires_target") or "")
    wanted = {"True": "required", "False": "", "none": ""}.get(target, target)
    fitting = role.get("session_policy", {}).get("targets")  # of `broker check`
    reason = "reason" if role.get("requires_reason") is True else ""
    return ", ".join(filter(None, (wanted, "" if fitting is None else f"up to {fitting}", reason)))


def _enforcement(value: object) -> Text:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value or "")
    return _cell(text, "yellow" if "narrowing" in text else "green")


@_understood
def factors(found: Sequence[Mapping[str, Any]], is_terminal: bool) -> str:
    table = _table("id", "kind", "name", "added (UTC)", "last used")
    for one in found:
        table.add_row(
            _cell(one["id"], "bold"),
            _cell(one["kind"]),
            _cell(one["name"]),
            _cell(_day(one.get("created_at"))),
            _cell(_day(one.get("last_used_at"))),
        )
    return _render(table if found else Text("you have no second factor yet"), is_terminal)


def status(found: Mapping[str, Any], now: float, is_terminal: bool) -> str:
    """``Flow.status`` for people."""
    person = found.get("signed_in")
    table = Table(box=None, show_header=False, pad_edge=False)
    if person:
        left = float(person["expires_at"]) - now
        life = f"for {spell(left)}" if left > 0 else "expired"
        table.add_row(_cell("signed in", "bold"), _cell(person["user"]))
        table.add_row(_cell("issuer", "bold"), _cell(person["issuer"]))
        renews = ", renews itself" if person.get("renewable") else ""
        table.add_row(_cell("ID token", "bold"), _cell(life + renews))
    else:
        table.add_row(_cell("signed in", "bold"), _cell("no; credx login", "yellow"))
    kept = "in the vault" if found.get("persistent") else "nowhere: no keyring, every call issues anew"
    table.add_row(_cell("kept", "bold"), _cell(kept))
    label = "credentials"
    for one in found.get("credentials", ()):
        words = [str(one["role"]), *(f"--scope {scope}" for scope in one.get("scopes", ()))]
        words += [f"--target {arn}" for arn in one.get("resources", ())]
        shown = f"{' '.join(words)}  for {spell(one['expires_in'])}"
        table.add_row(_cell(label, "bold"), _cell(shown))
        label = ""
    return _render(table, is_terminal)


def sandbox(where: Mapping[str, str], people: Mapping[str, tuple[str, str]], is_terminal: bool) -> str:
    """What runs where, and who is there with what to type."""
    parts = Table(box=None, show_header=False, pad_edge=False)
    for name, address in where.items():
        parts.add_row(_cell(name, "bold"), _cell(address, "cyan"))
    persons = Table(box=None, show_header=False, pad_edge=False)
    for name, (groups, line) in people.items():
        persons.add_row(_cell(name, "bold"), _cell(groups), _cell(line, "cyan"))
    hint = Text(
        "\nIn another terminal, be one of them (bash, zsh); then try: credx roles"
        "\nCtrl-C here takes everything down.\n"
    )
    # as wide as it is: a path that is folded or cut cannot be typed
    shown = (_render(part, is_terminal, width=PIPED_WIDTH) for part in (parts, hint, persons))
    return "\n" + "".join(shown) + "\n"


def users(found: Sequence[Mapping[str, Any]], is_terminal: bool) -> str:
    """People of the broker, as its administrators see them."""
    table = _table("user", "keys", "apps", "last used")
    for one in found:
        last = _cell("disabled", "red") if one["disabled"] else _cell(_day(one["last_used_at"])[:10])
        keys, apps = (_cell(one["factors"][kind] or "-") for kind in ("webauthn", "totp"))
        table.add_row(_cell(one["user"], "bold"), keys, apps, last)
    return _render(table if found else Text("nobody"), is_terminal)


def user(found: Mapping[str, Any], is_terminal: bool) -> str:
    """``described`` for people."""
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {"user": found["user"], "issuer": found["issuer"], "subject": found["subject"]}
    for name, value in rows.items():
        table.add_row(_cell(name, "bold"), _cell(value or "not known"))
    table.add_row(
        _cell("access", "bold"), _cell(*(("disabled", "red") if found["disabled"] else ("enabled",)))
    )
    label = "factors"
    for one in found["factors"]:
        words = f"{one['kind']:8}  {one['name']}" + (", disabled" if one["disabled"] else "")
        table.add_row(_cell(label, "bold"), _cell(words))
        used = f"{one['id']}  added {_day(one['created_at'])}, used {_day(one['last_used_at'])}"
        table.add_row(Text(""), _cell(used, "dim"))
        label = ""
    if not found["factors"]:
        table.add_row(_cell(label, "bold"), _cell("none"))
    waiting = [f"{count} {name.replace('_', ' ')}" for name, count in found["pending"].items() if count]
    table.add_row(_cell("pending", "bold"), _cell(", ".join(waiting) or "nothing"))
    locked = found["locked"]
    rest = f", locked {locked if isinstance(locked, str) else 'for ' + spell(locked)}" if locked else ""
    table.add_row(_cell("codes", "bold"), _cell(f"{found['wrong_codes'] or 'none'} wrong in a row{rest}"))
    return _render(table, is_terminal)


def invitations(found: Sequence[Mapping[str, Any]], is_terminal: bool) -> str:
    table = _table("id", "for", "until (UTC), by")
    for one in found:
        person = Text("\n").join((_cell(one["subject"]), _cell(one["issuer"], "dim")))
        made = Text("\n").join((_cell(_day(one["expires_at"])), _cell(one["administrator"], "dim")))
        table.add_row(_cell(one["id"], "bold"), person, made)
    return _render(table if found else Text("no invitation is open"), is_terminal)


def audit(found: Sequence[Mapping[str, Any]], is_terminal: bool) -> str:
    """Audit records for people; all that is in them is in the JSON."""
    wide = _table("time (UTC)", "event", "user", "role", "target", "scope", "factor", "why")
    narrow = _table(
        "time (UTC)", "event", "who, what, why"
    )  # a name in pieces can be neither found nor copied
    for one in found:
        who = one.get("user") or one.get("subject") or one.get("user_key") or ""
        why = (one.get("reason"), one.get("error"), one.get("detail"))
        when = _cell(_second(one.get("at")))
        event = _cell(one.get("event", "?"), _EVENT_STYLES.get(str(one.get("event")), ""))
        user = _cell(who, "bold")
        role, target = _cell(one.get("role", "")), _cell(_words(one.get("resources", ())))
        scope = _cell(_words(one.get("scopes", ())))
        factor = _cell(" ".join(str(one[name]) for name in ("factor_kind", "factor_id") if name in one))
        said = _cell("; ".join(str(text) for text in why if text))
        wide.add_row(when, event, user, role, target, scope, factor, said)
        asked = Text("  ").join(filter(None, (role, scope, factor)))
        narrow.add_row(when, event, Text("\n").join(filter(None, (user, asked, target, said))))
    if not found:
        return _render(Text("no record matches"), is_terminal)
    return _render(narrow if is_terminal and not _fits(wide) else wide, is_terminal)


def _fits(table: Table) -> bool:
    """Whether a terminal shows it without folding a cell."""
    console = Console(file=io.StringIO(), force_terminal=True)
    whole = console.options.update(max_width=PIPED_WIDTH)
    return Measurement.get(console, whole, table).maximum <= console.width


_EVENT_STYLES: Final = {
    "refused": "red",
    "failed": "red",
    "granted": "green",
    "issued": "green",
}


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _second(at: object) -> str:
    if isinstance(at, int) and 0 <= at < 2**37:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return str(at)


def _day(at: object) -> str:
    if isinstance(at, (int, float)):
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
    return str(at or "never")


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _cell(value: object, style: str = "") -> Text:
    # Text, never markup: a role called [red] is a role called [red]
    return Text(clean(value), style=style)


def _render(what: Table | Text, is_terminal: bool, width: int | None = None) -> str:
    into = io.StringIO()
    if is_terminal:
        console = Console(file=into, width=width, force_terminal=True, highlight=False)
    else:
        if isinstance(what, Table):
            what.box, what.padding = None, (0, 2, 0, 0)
        console = Console(file=into, width=PIPED_WIDTH, no_color=True, force_terminal=False, highlight=False)
    console.print(what)
    return "\n".join(line.rstrip() for line in into.getvalue().splitlines()) + "\n"
