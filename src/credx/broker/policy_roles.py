"""``[roles.X]`` of the policy file: what each role gives, and every way to write one that makes no sense."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from credx.aws_limits import DURATION_RANGE, REGION
from credx.broker.arn import is_pattern, parse_role_arn
from credx.broker.rules import (
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
from credx.broker.session_policy import EXPIRY_ROOM, TARGET, SessionPolicyError, compose
from credx.protocol import KINDS, NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from credx.broker.policy_reader import Table

HOUR: Final = 3600
MAX_FACTOR_AGE: Final = 24 * HOUR  # one proof serves for a working day, not for a week
BROKER_TAGS: Final = 4  # credx-role, -factor, -issuance, -target (design, step 6)
MAX_TAGS: Final = 50 - BROKER_TAGS  # STS session tags

_ACTION = re.compile(r"\*|[a-z0-9-]{1,63}:[A-Za-z0-9*?]{1,128}")
_RESOURCE = re.compile(
    r"\*|(?P<arn>arn:(?P<partition>[a-z*-]+):[^:]+:[^:]*:[^:]*:.+)|\$\{target\}(?:[/:][!-~]*)?"
)
_VARIABLE = re.compile(r"\$\{(?!target\}|[a-z0-9-]+:[^${}]+\}|[*?$]\})")  # an unknown ${...}
_OPERATOR = re.compile(r"(?:ForAnyValue:|ForAllValues:)?[A-Z][A-Za-z]{3,40}")
_OPERATION = re.compile(r"creds|shell|run|forward|forward:[A-Za-z0-9.\[\]:_*-]+:(?:[0-9]{1,5}|\*)")
# STS session tags; the comma and the asterisk are not among them
_TAG_KEY = re.compile(r"[\w .:/=+@-]{1,128}")
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")
_RESERVED = re.compile(r"aws:|credx-(?!scope-)", re.IGNORECASE)  # AWS's; and the broker's own


def read_roles(root: Table, *, groups: frozenset[str], workloads: bool) -> dict[str, Role]:
    """Every role of the file; ``groups``: names that exist, ``workloads``: some provider is one of jobs.

    Raises:
        ConfigError: ``FILE:LINE: roles.x.key: reason``.
    """
    roles: dict[str, Role] = {}
    modes: dict[str, str] = {}
    for name, table in root.named("roles").items():
        role = _role(name, table, groups)
        if WORKLOAD in role.factors and not workloads:
            raise table.error("factors", "workload needs an identity provider with workloads = true")
        if modes.setdefault(role.arn.lower(), role.sts) != role.sts:  # IAM knows no two names by case alone
            raise table.error("sts", "this ARN is under the other mode elsewhere: then neither would hold")
        roles[name] = role
    if not roles:
        raise root.error("roles", "is missing: nobody could get anything")
    return roles


def _role(name: str, table: Table, groups: frozenset[str]) -> Role:
    arn = table.text("arn", want="the ARN of an IAM role")
    where = parse_role_arn(arn)
    if where is None:
        raise table.error("arn", "must be arn:PARTITION:iam::ACCOUNT:role/NAME")
    longest = table.seconds("max_duration", 0, *DURATION_RANGE) if table.has("max_duration") else None
    duration = table.seconds("duration", min(HOUR, longest or HOUR), *DURATION_RANGE)
    target = table.choice("target", (NOT_NEEDED, OPTIONAL, REQUIRED), NOT_NEEDED)
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
        statements=_statements(table, where.partition, target),
        scopes=MappingProxyType(
            {n: _scope(n, t, where.partition, target) for n, t in table.named("scopes").items()}
        ),
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
        raise table.error("max_duration", "is shorter than duration")
    if role.target == REQUIRED and role.factor_max_age:
        raise table.error("factor_max_age", 'must be "0" with target = "required": a proof per target')
    if (role.target == NOT_NEEDED) != (not role.targets):
        raise table.error("targets", 'goes with target = "optional" or "required", and they with it')
    for pattern in role.targets:
        if not is_pattern(pattern) or not pattern.startswith(f"arn:{role.partition}:"):
            raise table.error(
                "targets", "must be ARNs of the role's partition, * in region and resource alone"
            )
        if pattern.split(":")[4] != role.account:
            raise table.error("targets", f"must be in the role's account, {role.account}")
    for name in role.default_scopes:
        if name not in role.scopes:
            raise table.error("default_scopes", f"{name!r} is no scope of this role")
    _check_scopes(role, table)


def _check_scopes(role: Role, table: Table) -> None:
    for scope in role.scopes.values():
        if role.narrows and not (role.statements or scope.statements):
            raise table.error(
                "scopes", f"{scope.name} has no statements, others have: alone it would be wider"
            )
        _try_compose(role, [scope], table)
    _try_compose(role, [], table)
    defaults = [role.scopes[name] for name in role.default_scopes]
    _try_compose(role, defaults, table)
    tags = {(key, value) for scope in defaults for key, value in scope.tags.items()}
    if len({key for key, _ in tags}) != len(tags):
        raise table.error("default_scopes", "exclude each other: two values for one tag")
    keys = {key for scope in role.scopes.values() for key in scope.tags}
    if len(keys) > MAX_TAGS:
        raise table.error("scopes", f"have more than {MAX_TAGS} tags together")
    if len({key.casefold() for key in keys}) != len(keys):
        raise table.error("scopes", "have tags that differ in case alone, which AWS does not tell apart")


def _try_compose(role: Role, scopes: Iterable[Scope], table: Table) -> None:
    """What can be known now: ``${target}`` is as long as the longest pattern, which a real one exceeds."""
    statements = [*role.statements, *(statement for scope in scopes for statement in scope.statements)]
    targets = [pattern.replace("*", "0") for pattern in sorted(role.targets, key=len)[-1:]]
    try:
        compose(statements, targets, room=EXPIRY_ROOM if role.sts == BROKER else 0)
    except SessionPolicyError as exc:
        names = ", ".join(scope.name for scope in scopes)
        raise table.error("scopes" if names else "statements", f"{names or 'alone'}: {exc}") from exc


def _scope(name: str, table: Table, partition: str, target: str) -> Scope:
    scope = Scope(
        name=name,
        description=table.text("description", ""),
        statements=_statements(table, partition, target),
        tags=_tags(table),
    )
    if not scope.statements and not scope.tags:
        raise table.error(None, "has neither statements nor tags: it would limit nothing")
    table.close()
    return scope


def _tags(table: Table) -> Mapping[str, str]:
    tags = table.strings("tags")
    for key, value in tags.items():
        if _RESERVED.match(key):
            raise table.error(
                "tags", f"{key!r}: aws: is AWS's, credx- is the broker's (credx-scope-... is free)"
            )
        if not _TAG_KEY.fullmatch(key) or not _TAG_VALUE.fullmatch(value):
            raise table.error("tags", f"{key!r} is not what STS takes as a tag: letters, digits and _.:/=+@-")
    return MappingProxyType(tags)


def _statements(table: Table, partition: str, target: str) -> tuple[Statement, ...]:
    return tuple(_statement(entry, partition, target) for entry in table.tables("statements"))


def _statement(table: Table, partition: str, target: str) -> Statement:
    resources = table.words("resources")
    for resource in resources:
        found = _RESOURCE.fullmatch(resource)
        if found is None or _VARIABLE.search(resource) or TARGET in resource[1:]:
            raise table.error("resources", f'must be ARNs, "*" or "{TARGET}", {resource!r} is not')
        if found["arn"] and found["partition"] not in (partition, "*"):
            raise table.error("resources", f"must be of the role's partition, {partition}")
        if TARGET in resource and target == NOT_NEEDED:
            raise table.error("resources", f'{TARGET} needs target = "optional" or "required" in the role')
    effect = table.text("effect", good=("Allow", "Deny").__contains__, want="Allow or Deny")
    if effect == "Deny" and target != REQUIRED and any(TARGET in resource for resource in resources):
        raise table.error(
            "resources", f'a Deny of {TARGET} needs target = "required": without one it falls away'
        )
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
            raise table.error(operator, "is no condition operator such as StringEquals")
        inner = table.table(operator)
        values = {key: inner.one_or_more(key) for key in inner.names()}
        if not values:
            raise table.error(operator, "tests nothing")
        if any(TARGET in value for several in values.values() for value in several):
            raise table.error(operator, f"{TARGET} stands in resources alone")
        conditions[operator] = MappingProxyType(values)
    return MappingProxyType(conditions)
