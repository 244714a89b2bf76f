"""``[roles.X]`` of the policy file: what each role gives, and every way to write one that makes no sense."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from credx.aws_limits import DURATION_RANGE, REGION
from credx.broker.policy.arn import RoleArn, is_pattern, parse_role_arn
from credx.broker.policy.rules import (
    BROKER,
    CLIENT,
    NOT_NEEDED,
    OPTIONAL,
    REQUIRED,
    WORKLOAD,
    Role,
    Scope,
    Statement,
)
from credx.broker.policy.session_policy import EXPIRY_ROOM, TARGET, SessionPolicyError, compose
from credx.protocol import KINDS, NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from credx.broker.policy.reader import Table

HOUR: Final = 3600
MAX_FACTOR_AGE: Final = 24 * HOUR  # one proof serves for a working day, not for a week
BROKER_TAGS: Final = 4  # credx-role, -factor, -issuance, -target (design, step 6)
MAX_TAGS: Final = 50 - BROKER_TAGS  # STS session tags

_ACTION = re.compile(r"\*|[a-z0-9-]{1,63}:[A-Za-z0-9*?]{1,128}")
_RESOURCE = re.compile(
    r"\*|(?P<arn>arn:(?P<partition>[a-z*-]+):[^:]+:[^:]*:[^:]*:.+)|\$\{target\}(?:[/:][!-~]*)?"
)
_VARIABLE = re.compile(r"\$\{(?!target\}|[a-z0-9-]+:[^${}]+\}|[*?$]\})")  # an unknown ${...}
# every one of IAM's (IAM User Guide, condition operators): STS refuses a session with another
_OPERATOR = re.compile(
    r"(?:ForAnyValue:|ForAllValues:)?(?:String(?:Not)?(?:Equals(?:IgnoreCase)?|Like)|Arn(?:Not)?(?:Equals|Like)|"
    r"(?:Numeric|Date)(?:(?:Not)?Equals|(?:Less|Greater)Than(?:Equals)?)|Bool|BinaryEquals|(?:Not)?IpAddress)"
    r"(?:IfExists)?|Null"
)
_CONDITION_KEY = re.compile(r"[^\s:]+:\S.*")
_OPERATION = re.compile(r"creds|shell|run|forward|forward:[A-Za-z0-9.\[\]:_*-]+:(?:[0-9]{1,5}|\*)")
# STS session tags; the comma and the asterisk are not among them
_TAG_KEY = re.compile(r"[\w .:/=+@-]{1,128}")
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")
_RESERVED = re.compile(r"aws:|credx-(?!scope-)", re.IGNORECASE)  # AWS's; and the broker's own


def read_roles(root: Table, *, groups: frozenset[str], workloads: bool) -> dict[str, Role]:
    """Every role of the file that is without fault; the faults of the others are noted.

    ``groups``: names that exist, ``workloads``: some provider is one of jobs.
    """
    modes: dict[str, tuple[str, str]] = {}

    def read(name: str, table: Table) -> Role:
        role = _role(name, table, groups)
        if WORKLOAD in role.factors and not workloads:
            table.fault("factors", "workload needs an identity provider with workloads = true")
        # IAM knows no two names by case alone
        mode, other = modes.setdefault(role.arn.lower(), (role.sts, name))
        if mode != role.sts:
            table.fault(
                "sts", f"this ARN is under the other mode in the role {other}: then neither would hold"
            )
        return role

    named = root.named("roles")
    if not named:
        root.fault("roles", "is missing: nobody could get anything")
    return root.each(named.items(), read)


def _role(name: str, table: Table, groups: frozenset[str]) -> Role:
    arn = table.text("arn", good=parse_role_arn, want="arn:PARTITION:iam::ACCOUNT:role/NAME")
    where = parse_role_arn(arn) or RoleArn("", "", "")
    target = table.choice("target", (NOT_NEEDED, OPTIONAL, REQUIRED), NOT_NEEDED)
    # what statements are held against; a wrong one is no ground to find fault with them
    frame = None if table.faulty else _Frame(where.partition, target)
    longest = table.seconds("max_duration", 0, *DURATION_RANGE) if table.has("max_duration") else None
    duration = table.seconds("duration", min(HOUR, longest or HOUR), *DURATION_RANGE)
    statements = _statements(table, frame)
    scopes = table.each(table.named("scopes").items(), lambda n, inner: _scope(n, inner, frame))
    role = Role(
        name=name,
        description=table.text("description", ""),
        arn=arn,
        partition=where.partition,
        account=where.account,
        region=table.text("region", good=REGION.fullmatch, want="a region such as eu-central-1"),
        groups=frozenset(table.words("groups", good=groups.__contains__, want="a group of this file")),
        factors=table.words("factors", good=KINDS.__contains__, want=f"one of {', '.join(KINDS)}"),
        user_verification=table.flag("user_verification", default=True),
        duration=duration,
        max_duration=longest or duration,
        sts=table.choice("sts", (CLIENT, BROKER), CLIENT),
        roles_claim=table.flag("roles_claim", default=False),
        factor_max_age=table.seconds("factor_max_age", 0, 0, MAX_FACTOR_AGE),
        factor_group=table.text("factor_group", name, good=NAME.fullmatch, want="a lower-case name"),
        target=target,
        targets=table.words("targets", ()),
        reason=table.choice("reason", (OPTIONAL, REQUIRED), OPTIONAL),
        operations=_operations(table),
        statements=statements,
        scopes=MappingProxyType(scopes),
        default_scopes=table.words("default_scopes", (), empty=True),
    )
    table.close()
    _check_role(role, table)
    return role


def _operations(table: Table) -> tuple[str, ...]:
    operations = table.words(
        "operations",
        ("creds",),
        good=_OPERATION.fullmatch,
        want="creds, shell, run, forward or forward:HOST:PORT",
    )
    return tuple("forward:*:*" if word == "forward" else word for word in operations)


def _check_role(role: Role, table: Table) -> None:
    """What holds between the keys of one role."""
    if role.max_duration < role.duration:
        table.fault("max_duration", "is shorter than duration")
    if role.target == REQUIRED and role.factor_max_age:
        table.fault("factor_max_age", 'must be "0" with target = "required": a proof per target')
    if (role.target == NOT_NEEDED) != (not role.targets):
        table.fault("targets", 'goes with target = "optional" or "required", and they with it')
    for pattern in role.targets:
        if not is_pattern(pattern) or not pattern.startswith(f"arn:{role.partition}:"):
            table.fault("targets", "must be ARNs of the role's partition, * in region and resource alone")
        elif pattern.split(":")[4] != role.account:
            table.fault("targets", f"must be in the role's account, {role.account}")
    for name in role.default_scopes:
        if name not in role.scopes:
            table.fault("default_scopes", f"{name!r} is no scope of this role")
    table.sound()
    _check_scopes(role, table)


def _check_scopes(role: Role, table: Table) -> None:
    for scope in role.scopes.values():
        if role.narrows and not (role.statements or scope.statements):
            table.fault("scopes", f"{scope.name} has no statements, others have: alone it would be wider")
        _try_compose(role, [scope], table)
    _try_compose(role, [], table)
    defaults = [role.scopes[name] for name in role.default_scopes]
    _try_compose(role, defaults, table)
    tags = {(key, value) for scope in defaults for key, value in scope.tags.items()}
    if len({key for key, _ in tags}) != len(tags):
        table.fault("default_scopes", "exclude each other: two values for one tag")
    keys = {key for scope in role.scopes.values() for key in scope.tags}
    if len(keys) > MAX_TAGS:
        table.fault("scopes", f"have more than {MAX_TAGS} tags together")
    if len({key.casefold() for key in keys}) != len(keys):
        table.fault("scopes", "have tags that differ in case alone, which AWS does not tell apart")


def _try_compose(role: Role, scopes: Iterable[Scope], table: Table) -> None:
    """What can be known now: a target of the longest pattern, as short as it can be."""
    statements = [*role.statements, *(statement for scope in scopes for statement in scope.statements)]
    targets = [pattern.replace("*", "0") for pattern in sorted(role.targets, key=len)[-1:]]
    try:
        compose(statements, targets, room=EXPIRY_ROOM if role.sts == BROKER else 0)
    except SessionPolicyError as exc:
        names = ", ".join(scope.name for scope in scopes)
        table.fault("scopes" if names else "statements", f"{names or 'alone'}: {exc}")


class _Frame(NamedTuple):
    partition: str
    target: str


def _scope(name: str, table: Table, frame: _Frame | None) -> Scope:
    scope = Scope(
        name=name,
        description=table.text("description", ""),
        statements=_statements(table, frame),
        tags=_tags(table),
    )
    table.close()
    if not scope.statements and not scope.tags:
        table.fault(None, "has neither statements nor tags: it would limit nothing")
    return scope


def _tags(table: Table) -> Mapping[str, str]:
    tags = table.strings("tags")
    for key, value in tags.items():
        if _RESERVED.match(key):
            table.fault("tags", f"{key!r}: aws: is AWS's, credx- is the broker's (credx-scope-... is free)")
        elif not _TAG_KEY.fullmatch(key) or not _TAG_VALUE.fullmatch(value):
            table.fault("tags", f"{key!r} is not what STS takes as a tag: letters, digits and _.:/=+@-")
    return MappingProxyType(tags)


def _statements(table: Table, frame: _Frame | None) -> tuple[Statement, ...]:
    return table.all(table.tables("statements"), lambda entry: _statement(entry, frame))


def _statement(table: Table, frame: _Frame | None) -> Statement:
    resources = table.words("resources")
    for resource in resources:
        found = _RESOURCE.fullmatch(resource)
        if found is None or _VARIABLE.search(resource) or TARGET in resource[1:]:
            table.fault("resources", f'must be ARNs, "*" or "{TARGET}", {resource!r} is not')
        elif frame and found["arn"] and found["partition"] not in (frame.partition, "*"):
            table.fault("resources", f"must be of the role's partition, {frame.partition}")
        elif frame and TARGET in resource and frame.target == NOT_NEEDED:
            table.fault("resources", f'{TARGET} needs target = "optional" or "required" in the role')
    effect = table.text("effect", good=("Allow", "Deny").__contains__, want="Allow or Deny")
    loose = frame is not None and frame.target != REQUIRED
    if effect == "Deny" and loose and any(TARGET in resource for resource in resources):
        table.fault("resources", f'a Deny of {TARGET} needs target = "required": without one it falls away')
    statement = Statement(
        effect=effect,
        actions=table.words("actions", good=_ACTION.fullmatch, want="an IAM action such as s3:GetObject"),
        resources=resources,
        conditions=_conditions(table.table("conditions")),
    )
    table.close()
    return statement


def _conditions(table: Table) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    conditions: dict[str, Mapping[str, tuple[str, ...]]] = {}
    for operator in table.names():
        if not _OPERATOR.fullmatch(operator):
            table.fault(operator, "is no condition operator such as StringEquals")
            table.table(operator)
            continue
        inner = table.table(operator)
        values = {key: inner.one_or_more(key) for key in inner.names()}
        if not values:
            table.fault(operator, "tests nothing")
        elif not all(map(_CONDITION_KEY.fullmatch, values)):
            table.fault(operator, "tests what is no condition key such as aws:SourceIp")
        elif len({key.lower() for key in values}) != len(values):
            table.fault(operator, "tests keys that differ in case alone, which AWS does not tell apart")
        elif any(TARGET in value for several in values.values() for value in several):
            table.fault(operator, f"{TARGET} stands in resources alone")
        conditions[operator] = MappingProxyType(values)
    return MappingProxyType(conditions)
