"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Final

import click

from credx.aws_limits import REGION
from credx.errors import ConfigError, UsageError
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from credx.flow import Flow
    from credx.protocol import Ask

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"([0-9]{1,6})([smh]?)")
COMMAND: Final = "credx.command"  # the key in ctx.meta
MIN_LEFT: Final = 300  # seconds; what `process` never goes below, see credentials.process


class Duration(click.ParamType[int]):
    """``15m``, ``1h``, ``900``: whole seconds."""

    name = "duration"

    def __init__(self, lowest: int, highest: int) -> None:
        self.lowest, self.highest = lowest, highest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = _DURATION.fullmatch(str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is no duration; write 15m, 1h or seconds", param, ctx)
        seconds = int(match[1]) * _UNITS[match[2]]
        if not self.lowest <= seconds <= self.highest:
            self.fail(f"{value!r} is not between {spell(self.lowest)} and {spell(self.highest)}", param, ctx)
        return seconds


def spell(seconds: float) -> str:
    """A length of time for people: ``8h``, ``1h30m``, ``15m``, ``40s``."""
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    if not hours and not minutes:
        return f"{whole}s"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")


def counted(number: int, what: str) -> str:
    """``no warnings``, ``1 warning``, ``2 warnings``."""
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


class WithCommand(click.Command):
    """``[OPTIONS] [ROLE] -- CMD...``: what follows the first ``--`` goes into ``ctx.meta[COMMAND]`` as it stands."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "--", "CMD..."]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, command = args, []
        if "--" in args:
            at = args.index("--")
            own, command = args[:at], args[at + 1 :]
        ctx.meta[COMMAND] = command
        rest = super().parse_args(ctx, own)
        if not command and not ctx.resilient_parsing:
            raise click.UsageError("give the command to run after --", ctx)
        return rest


def _forbid_prompts(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().obj.ui.allowed = False


no_input = click.option(
    "--no-input", is_flag=True, expose_value=False, callback=_forbid_prompts, help="Never ask anything."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def issuing(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that issues credentials."""
    for option in reversed(_ISSUING):
        command = option(command)
    return command


def _a_region(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Looked at before anybody has touched a key for it."""
    if value is not None and not REGION.fullmatch(value):
        raise click.BadParameter(f"{clean(value, 80)!r} is no region; write one such as eu-central-1")
    return value


_ISSUING: Final = (
    click.option("--scope", "scopes", multiple=True, metavar="NAME", help="A scope of the role; repeatable."),
    click.option(
        "--resource", "--target", "resources", multiple=True, metavar="ARN",
        help="The ARN that the session is for; repeatable.",
    ),
    click.option("--duration", type=Duration(900, 43200), help="How long, such as 15m or 1h."),
    click.option("--reason", default="", metavar="TEXT", help="Why; goes into the audit record."),
    click.option(
        "--min-left", type=Duration(MIN_LEFT, 43200), default=MIN_LEFT,
        help="Take cached credentials only with this much time left.  [default: 5m]",
    ),
    click.option("--fresh", is_flag=True, help="Issue anew, whatever is cached."),
    click.option(
        "--region", metavar="REGION", callback=_a_region, help="The region to work in, instead of the role's."
    ),
    no_input,
)  # fmt: skip


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Importing inside says which extra to install where a library is missing.

    Raises:
        ConfigError: it is missing.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        if (exc.name or "credx").split(".")[0] == "credx":
            raise
        raise ConfigError(
            f"this command needs a library that is not installed: {exc.name}",
            hint=f"pip install 'credx[{extra}]'",
        ) from exc


def make_ask(
    role: str, *, scopes: Sequence[str], resources: Sequence[str], duration: int | None, reason: str
) -> Ask:
    """An ask that the broker will read.

    Raises:
        UsageError: a name, an ARN, a number of them or the reason is out of the protocol's bounds.
    """
    from credx import protocol

    for name, what in ((role, "role"), *((scope, "scope") for scope in scopes)):
        if not protocol.NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be the name of a {what}", hint="credx roles")
    if len(set(scopes)) > protocol.MAX_SCOPES or len(set(resources)) > protocol.MAX_RESOURCES:
        raise UsageError(
            f"at most {protocol.MAX_SCOPES} scopes and {protocol.MAX_RESOURCES} resources go into one request",
            hint="ask in parts",
        )
    for arn in resources:
        if not arn.startswith("arn:") or len(arn) > protocol.MAX_ARN or not arn.isprintable():
            raise UsageError(f"{arn[:80]!r} is not an ARN", hint="give the full ARN, arn:aws:...")
    if len(reason) > protocol.MAX_REASON or not reason.isprintable():
        raise UsageError(
            f"a reason is one printable line of at most {protocol.MAX_REASON} characters",
            hint="--reason 'TICKET-1: what for'",
        )
    return protocol.Ask(
        role=role,
        resources=tuple(sorted(set(resources))),
        scopes=tuple(sorted(set(scopes))),
        duration=duration,
        reason=reason,
    )


def the_role(named: str | None, default: str | None, flow: Flow) -> str:
    """The role that was named, the configured one, or the only one there is.

    Raises:
        UsageError: it has to be named.
    """
    if named or default:
        return str(named or default)
    names = [str(role["name"]) for role in flow.roles()]
    if len(names) == 1:
        return names[0]
    raise UsageError(
        "name a role: " + ", ".join(names) if names else "no role is open to you",
        hint="credx roles" if names else "ask the people who run the broker for access",
    )
