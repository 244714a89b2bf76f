"""``credx broker users``: who is there, who may come in, and what ends sessions that were given out already."""

from __future__ import annotations

import json
import shlex
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from credx.cli.broker.common import administrator, data_option, existing_office
from credx.cli.options import as_json, needs
from credx.errors import UsageError
from credx.ui import clean

if TYPE_CHECKING:
    from credx.broker.assemble import Office
    from credx.broker.directory import Somebody
    from credx.cli.edges import App

PAGE: Final = 200  # people of one list; a read of the store for each
LINE: Final = 1000  # characters of a command to type: cut, it would be for somebody else
ABOVE_HEX: Final = "g"  # sorts behind every digit of a key

user_argument = click.argument("who", metavar="USER")


@click.group()
def users() -> None:
    """Look up people, shut them out, let them in, take their factors away.

    USER is a shown name as AWS and the audit have it (alice-0123456789abcdef), a user key (64 hex digits) or
    'ISSUER|SUBJECT'.
    """


@users.command("list")
@data_option
@click.argument("text", required=False, default="")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=PAGE, show_default=True, help="People at the most."
)
@click.option("--after", default="", metavar="USER", help="Go on behind this person, in the order of keys.")
@as_json
@click.pass_obj
def list_users(app: App, /, *, data_dir: Path, text: str, limit: int, after: str, as_json: bool) -> None:
    """List people: all, or with TEXT in name, issuer or subject.

    Somebody is listed from the first factor on, and once disabled.
    """
    from credx.cli import tables

    with existing_office(app, data_dir) as at:
        from credx.broker.administration import listed
        from credx.broker.directory import everybody, name_prefix
        from credx.broker.users import load_factors

        now = app.edges.now()
        behind = name_prefix(after)[0] + ABOVE_HEX if after else ""
        wanted = text.casefold()
        people = (
            who
            for who in everybody(at.store, now=now, after=behind)
            if wanted in f"{who.user}\n{who.issuer}\n{who.subject}".casefold()
        )
        found = list(islice(people, limit + 1))
        page = sorted(found[:limit], key=lambda who: who.user)
        rows = [listed(who, load_factors(at.store, who.user_key, now=now)) for who in page]
    app.out(tables.to_json(rows) if as_json else tables.users(rows, app.edges.is_terminal()))
    if len(found) > limit:
        more = f" {text}" if text else ""
        app.ui.note(f"there are more: credx broker users list{more} --after {found[limit - 1].user}")


@users.command()
@data_option
@user_argument
@as_json
@click.pass_obj
def show(app: App, data_dir: Path, who: str, as_json: bool) -> None:
    """Show one person: factors, what is pending, wrong codes."""
    from credx.cli import tables

    with existing_office(app, data_dir) as at:
        from credx.broker.administration import described

        found = described(at.store, _known(app, at, who), now=app.edges.now())
    app.out(tables.to_json(found) if as_json else tables.user(found, app.edges.is_terminal()))


@users.command()
@data_option
@user_argument
@as_json
@click.pass_obj
def disable(app: App, data_dir: Path, who: str, as_json: bool) -> None:
    """Shut a person out: at once, and until enabled again."""
    with existing_office(app, data_dir, new_store=True) as at:
        from credx.broker.administration import set_disabled
        from credx.broker.directory import find

        now = app.edges.now()
        person = find(at.store, who, now=now)
        set_disabled(at.store, at.audit, person, disabled=True, administrator=administrator(), now=now)
    _done(app, as_json, person, "disabled")
    if not person.known:
        app.ui.note("nobody was known by this issuer and subject: compare them with what the ID token says")
    app.ui.note("sessions already issued live on until they expire; what ends them:")
    app.ui.note(f"credx broker users deny {person.user}")


@users.command()
@data_option
@user_argument
@as_json
@click.pass_obj
def enable(app: App, data_dir: Path, who: str, as_json: bool) -> None:
    """Let a person in again."""
    with existing_office(app, data_dir) as at:
        from credx.broker.administration import set_disabled

        person, now = _known(app, at, who), app.edges.now()
        set_disabled(at.store, at.audit, person, disabled=False, administrator=administrator(), now=now)
    _done(app, as_json, person, "enabled")


@users.command()
@data_option
@user_argument
@as_json
@click.pass_obj
def unlock(app: App, data_dir: Path, who: str, as_json: bool) -> None:
    """Forget a person's wrong codes."""
    with existing_office(app, data_dir) as at:
        from credx.broker import administration

        person, now = _known(app, at, who), app.edges.now()
        administration.unlock(at.store, at.audit, person, administrator=administrator(), now=now)
    _done(app, as_json, person, "unlocked")


@users.command("reset-factors")
@data_option
@user_argument
@as_json
@click.pass_obj
def reset_factors(app: App, data_dir: Path, who: str, as_json: bool) -> None:
    """Take all factors away; the next takes an invitation."""
    with existing_office(app, data_dir) as at:
        from credx.broker import administration

        person, now = _known(app, at, who), app.edges.now()
        gone = administration.reset_factors(
            at.store, at.audit, person, administrator=administrator(), now=now
        )
    _done(app, as_json, person, "reset", factors=gone)
    app.ui.note(f"gone: {', '.join(clean(name) for name in gone) or 'nothing, there was no factor'}")
    whom = (
        f"{shlex.quote(person.issuer)} {shlex.quote(person.subject)}" if person.issuer else "ISSUER SUBJECT"
    )
    app.ui.note(f"what lets this person enrol again: credx broker invite {clean(whom, LINE)}")


@users.command()
@click.option(
    "--policy",
    "policy_file",
    metavar="FILE",
    envvar="CREDX_BROKER_POLICY",
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Say where to attach it: the roles of this policy.",
)
@click.option(
    "--role", "names", multiple=True, metavar="NAME", help="Of --policy, only this role; repeatable."
)
@user_argument
@click.pass_obj
def deny(app: App, policy_file: Path | None, names: tuple[str, ...], who: str) -> None:
    """Print the IAM policy that kills sessions already given out.

    Disable the person first: the policy ends what was issued until then. It needs no store, so it works where
    the broker does not.
    """  # fmt: skip
    with needs("broker"):
        from credx.broker.directory import name_prefix
        from credx.broker.offboarding import deny_policy, ends_at, policy_name
        from credx.broker.person import USER_HASH
    from credx.strict import timestamp

    user_hash, now = name_prefix(who)[0][:USER_HASH], app.edges.now()
    arns = _role_arns(policy_file, names)
    app.out(json.dumps(deny_policy(user_hash, now=now), indent=2) + "\n")
    app.ui.note(f"kills sessions of *-{user_hash} that began before {timestamp(ends_at(now))}:")
    app.ui.note("by then no token that the broker minted until now opens another one")
    app.ui.note(
        "once AWS has spread it print and attach it once more: a session may have begun anew until then"
    )
    for arn in arns:
        role = arn.rpartition("/")[2]
        app.ui.note(f"account {arn.split(':')[4]}: aws iam put-role-policy --role-name {role}"
                    f" --policy-name {policy_name(user_hash)} --policy-document file://FILE")  # fmt: skip
    if not arns:
        app.ui.note("attach it to every role that credx serves (--policy FILE lists them), or as an SCP")


def _role_arns(policy_file: Path | None, names: tuple[str, ...]) -> list[str]:
    if policy_file is None:
        if names:
            raise UsageError(
                "--role is a role of a policy: add --policy FILE", hint="credx broker users deny"
            )
        return []
    with needs("broker"):
        from credx.broker.policy.file import load_policy
    roles = load_policy(policy_file).roles
    for name in names:
        if name not in roles:
            raise UsageError(
                f"the policy has no role {clean(name)!r}", hint=f"credx broker check {policy_file}"
            )
    return sorted({roles[name].arn for name in names or roles})


def _known(app: App, at: Office, who: str) -> Somebody:
    from credx.broker.directory import find

    person = find(at.store, who, now=app.edges.now())
    if not person.known:
        raise UsageError("nobody with this issuer and subject is known", hint="credx broker users list")
    return person


def _done(app: App, as_json: bool, person: Somebody, what: str, **more: Any) -> None:
    from credx.cli import tables

    if as_json:
        app.out(tables.to_json({"user": person.user, "user_key": person.user_key, "done": what, **more}))
    app.ui.note(f"{what}: {clean(person.user)}")
