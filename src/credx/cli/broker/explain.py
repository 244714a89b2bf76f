"""``credx broker explain``: why somebody would be given something, or not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from credx.cli.broker.common import existing_office, policy_option, table_options
from credx.cli.options import Duration, as_json, make_ask
from credx.errors import ConfigError, DeniedError, UsageError
from credx.protocol import OPERATION
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credx.broker.policy.explain import Standing
    from credx.broker.policy.rules import Policy
    from credx.cli.edges import App

# what to try next, by the rule that said no
_NEXT: Final = {
    "target": "name one with --target ARN",
    "scope": "name one with --scope NAME",
    "reason": "give one with --reason TEXT",
    "access": "credx broker users show USER",
    "enrolled": "credx broker users show USER",
}
MAX_CLAIMS: Final = 64 * 1024  # bytes; an ID token has 16 KiB at the most

_OPTIONS: Final = (
    policy_option,
    click.option(
        "--data", "data_dir", metavar="DIR", envvar="CREDX_BROKER_DATA", show_envvar=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="Look in this store, too: disabled, enrolled, locked.",
    ),
    table_options,
    click.option("--resource", "--target", "resources", multiple=True, metavar="ARN", help="The ARN that the session is for; repeatable."),
    click.option("--scope", "scopes", multiple=True, metavar="NAME", help="A scope of the role; repeatable."),
    click.option("--operation", default="creds", show_default=True, metavar="NAME", help="Or shell, run, forward:HOST:PORT."),
    click.option("--duration", type=Duration(0, 10**6), help="How long, such as 15m or 1h."),
    click.option("--reason", default="", metavar="TEXT", help="Why."),
    click.option(
        "--group", "groups", multiple=True, metavar="NAME",
        help="A value of the provider's groups claim; repeatable.",
    ),
    click.option(
        "--claims", "claims_file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
        help="The claims of an ID token, as JSON.",
    ),
    as_json,
)  # fmt: skip


def _options(command: Any) -> Any:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("user")
@click.argument("role")
@_options
@click.pass_obj
def explain(
    app: App,
    /,
    *,
    user: str,
    role: str,
    policy_file: Path,
    data_dir: Path | None,
    resources: Sequence[str],
    scopes: Sequence[str],
    operation: str,
    duration: int | None,
    reason: str,
    groups: Sequence[str],
    claims_file: Path | None,
    as_json: bool,
) -> None:
    """Say rule by rule whether USER would get ROLE, and what the session would hold.

    USER is 'ISSUER|SUBJECT', or with --data a shown name. Which groups somebody is in only the identity provider
    knows: give them with --group or --claims. The exit code is 0 for a yes and 6 for a no.
    """
    from credx.broker.policy import explain as policy_explain
    from credx.broker.policy.file import load_policy
    from credx.cli import tables
    from credx.cli.broker.explanation import explanation

    if not OPERATION.fullmatch(operation):
        raise UsageError(f"{clean(operation)!r} is no operation", hint="credx broker explain --help")
    policy = load_policy(policy_file)
    ask = make_ask(role, scopes=scopes, resources=resources, duration=duration, reason=reason)
    issuer, subject, standing = _somebody(app, user, data_dir)
    claims = _claims(claims_file, issuer, subject)
    supposed = _add_groups(app, policy, issuer, claims, groups)
    found = policy_explain.explain(
        policy,
        dataclasses.replace(ask, operation=operation),
        issuer=issuer,
        subject=subject,
        claims=claims,
        standing=standing,
    )
    told = {
        "granted": found.granted,
        "user": found.user,
        "issuer": issuer,
        "subject": subject,
        "groups": list(found.groups),
        "policy_version": policy.version,
        "steps": [step._asdict() for step in found.steps],
        "session": found.session,
    }
    app.out(tables.to_json(told) if as_json else explanation(told, app.edges.is_terminal()))
    if not supposed:
        app.ui.note("in which groups he is only the identity provider knows: --group, --claims")
    if not found.granted:
        raise DeniedError(
            f"{clean(role)} would be refused: {found.why_not}",
            hint=_NEXT.get(found.why_not.partition(":")[0], f"credx broker check {policy_file}"),
        )


def _somebody(app: App, user: str, data_dir: Path | None) -> tuple[str, str, Standing | None]:
    """Issuer, subject, and what the store knows of them."""
    issuer, bar, subject = user.partition("|")
    if data_dir is None:
        if not bar:
            raise UsageError(
                f"{clean(user)!r} is not 'ISSUER|SUBJECT'; a shown name needs --data DIR",
                hint="credx broker explain --help",
            )
        return issuer, subject, None
    with existing_office(app, data_dir) as at:
        from credx.broker import directory
        from credx.broker.administration import described
        from credx.broker.policy.explain import Standing

        now = app.edges.now()
        who = directory.find(at.store, user, now=now)
        known = described(at.store, who, now=now)
    if not who.issuer:
        raise UsageError(
            "the store does not know whose name that is; say 'ISSUER|SUBJECT'", hint="credx broker users list"
        )
    usable = tuple((f["kind"], f["name"]) for f in known["factors"] if not f["disabled"])
    return who.issuer, who.subject, Standing(known["disabled"], usable, bool(known["locked"]))


def _claims(file: Path | None, issuer: str, subject: str) -> dict[str, Any]:
    from credx.strict import json_object

    claims: dict[str, Any] = {}
    if file is not None:
        try:
            with file.open("rb") as opened:
                claims = json_object(opened.read(MAX_CLAIMS))
        except OSError as exc:
            raise ConfigError(f"{file}: cannot be read: {exc.strerror}", hint="--claims FILE") from exc
        except ValueError as exc:
            raise ConfigError(f"{file}: no JSON object with claims: {exc}", hint="--claims FILE") from exc
    for name, value in (("iss", issuer), ("sub", subject)):
        if claims.setdefault(name, value) != value:
            raise UsageError(
                f"the claims are of {clean(claims[name])}, not of {clean(value)}", hint="--claims FILE"
            )
    return claims


def _add_groups(app: App, policy: Policy, issuer: str, claims: dict[str, Any], groups: Sequence[str]) -> bool:
    """What ``--group`` says goes where the provider would put it; False: no groups are given at all."""
    rule = policy.issuers.get(issuer)
    if rule is None or rule.groups_claim is None:
        if groups:
            raise UsageError(f"{clean(issuer)} has no groups claim in this policy", hint="--claims FILE")
        return True
    table: Any = claims
    for name in rule.groups_claim[:-1]:
        table = table.setdefault(name, {})
    listed = table.setdefault(rule.groups_claim[-1], [])
    if groups:
        table[rule.groups_claim[-1]] = [*([listed] if isinstance(listed, str) else listed), *groups]
    known = {value for group in policy.groups.values() if group.issuer == issuer for value in group.claims}
    for name in groups:
        if name not in known:
            named = policy.groups.get(name)
            meant = f"; the group {name} is for {', '.join(sorted(named.claims))}" if named else ""
            app.ui.note(f"no group of the policy takes the claim {clean(name)!r}{meant}")
    return bool(listed or groups)
