"""The decision: may this person have this. Pure: values in, one value out; no clock, no I/O.

Default deny. ``decide`` makes one check after another in the order of its docstring and grants only when
all have passed; the first that fails is the answer. What a person may learn is in ``Denial.public``, the
cause is in ``Denial.reason`` for the audit record. ``walk`` is the same decision with the way that led to it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credx.aws_limits import DURATION_RANGE
from credx.broker.policy.arn import glob, matches, parse_arn
from credx.broker.policy.rules import BROKER, NOT_NEEDED, REQUIRED, WORKLOAD
from credx.broker.policy.session_policy import EXPIRY_ROOM, SessionPolicyError, compose
from credx.model import Denial, Grant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from credx.broker.person import Person
    from credx.broker.policy.rules import Policy, Role, Scope
    from credx.protocol import Ask

_NO_ROLE: Final = "role is not available to you"  # the same for a role that does not exist


class _No(Exception):  # noqa: N818 -- carries a Denial out of a check, never out of this module
    def __init__(self, code: str, public: str, reason: str = "") -> None:
        self.denial = Denial(code=code, public=public, reason=reason or public)


def decide(policy: Policy, person: Person, ask: Ask) -> Grant | Denial:
    """Decide on one ask.

    1. The role exists, and the person is in one of its groups. Both noes look the same from outside.
    2. The role accepts a factor of this kind of person: ``workload`` speaks for workloads alone, and a
       workload touches no security key.
    3. The operation is one of the role's.
    4. Every resource by itself is a whole ARN of the role's own partition and account and matches one of the
       role's ``targets``; there is one if the role requires it and none if it takes none.
    5. Every scope is one of the role's; where scopes are all there is, at least one is chosen.
    6. A reason is given where the role requires one.
    7. The duration is what STS takes and at most the role's maximum.
    8. The principal tags of the scopes agree with each other.
    9. The session policy can be put together, and there is one wherever the role knows any.
    """
    return walk(policy, person, ask).answer


# what each step of ``decide`` looks at, in its order
RULES: Final = (
    "role", "factor", "operation", "target", "scope", "reason", "duration", "tags", "session policy",
)  # fmt: skip


class Walk(NamedTuple):
    """A decision, and what was found on the way to it.

    Attributes:
        passed: a text for each of ``RULES`` that said yes; with a Denial the next one is the rule that said no.
    """

    answer: Grant | Denial
    passed: tuple[str, ...]


def walk(policy: Policy, person: Person, ask: Ask) -> Walk:
    """``decide``, and why."""
    passed: list[str] = []
    try:
        grant = _decide(policy, person, ask, passed.append)
    except _No as no:
        return Walk(no.denial, tuple(passed))
    return Walk(grant, tuple(passed))


def _decide(policy: Policy, person: Person, ask: Ask, passed: Callable[[str], None]) -> Grant:
    role = _available(policy, person, ask.role)  # 1
    passed(f"open to {_listed(role.groups & person.groups)}")
    factors = _factors(role, person)  # 2
    passed(" or ".join(factors))
    if not any(operation_matches(allowed, ask.operation) for allowed in role.operations):  # 3
        raise _No(
            "access_denied", "the operation is not allowed with this role", f"operation {ask.operation}"
        )
    passed(ask.operation)
    resources = _resources(role, ask.resources)  # 4
    passed(_listed(resources) or "none")
    scopes = _scopes(role, ask.scopes)  # 5
    passed(_listed(scope.name for scope in scopes) or "none")
    if role.reason == REQUIRED and not ask.reason.strip():  # 6
        raise _No("invalid_request", "this role asks for a reason")
    passed("given" if ask.reason.strip() else "not needed")
    duration = role.duration if ask.duration is None else ask.duration
    shortest, longest = DURATION_RANGE[0], min(role.max_duration, DURATION_RANGE[1])
    if not shortest <= duration <= longest:  # 7
        raise _No("invalid_request", f"the duration must be {shortest} to {longest} seconds", f"{duration} s")
    passed(f"{duration} seconds, at most {longest}")
    tags = _tags(scopes)  # 8
    passed(_listed(f"{key}={value}" for key, value in tags.items()) or "none")
    session_policy = _session_policy(role, scopes, resources)  # 9
    passed("none" if session_policy is None else f"{len(session_policy)} characters")
    return Grant(
        role=role.name,
        role_arn=role.arn,
        account=role.account,
        partition=role.partition,
        region=role.region,
        resources=resources,
        target=_last_part(resources[0]) if len(resources) == 1 else None,
        scopes=tuple(scope.name for scope in scopes),
        operation=ask.operation,
        reason=ask.reason,
        duration=duration,
        session_policy=session_policy,
        tags=tags,
        factors=factors,
        user_verification=role.user_verification,
        factor_max_age=role.factor_max_age,
        factor_group=role.factor_group,
        sts=role.sts,
        roles_claim=role.roles_claim,
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _available(policy: Policy, person: Person, name: str) -> Role:
    role = policy.roles.get(name)
    if role is None:
        raise _No("access_denied", _NO_ROLE, "no such role")
    if role.groups.isdisjoint(person.groups):
        raise _No("access_denied", _NO_ROLE, "in none of the role's groups")
    return role


def _factors(role: Role, person: Person) -> tuple[str, ...]:
    never = "webauthn" if person.workload else WORKLOAD
    factors = tuple(kind for kind in role.factors if kind != never)
    if not factors:
        kind = "a workload" if person.workload else "a person"
        raise _No("access_denied", _NO_ROLE, f"no factor of the role serves {kind}")
    return factors


def operation_matches(allowed: str, operation: str) -> bool:
    return all(map(glob, _operation_parts(allowed), _operation_parts(operation)))


def _operation_parts(operation: str) -> tuple[str, str, str]:
    """Kind, host, port, each compared by itself: the port is what follows the last colon, as clients read it."""
    kind, _, address = operation.partition(":")
    host, _, port = address.rpartition(":")
    return kind, host, port


def _resources(role: Role, asked: Sequence[str]) -> tuple[str, ...]:
    if role.target == REQUIRED and not asked:
        raise _No("invalid_target", "this role is for a target: name one")
    if role.target == NOT_NEEDED and asked:
        raise _No("invalid_target", "this role takes no target")
    for resource in asked:
        arn = parse_arn(resource)
        if arn is None:
            raise _No("invalid_target", "the target is not a whole ARN")
        if (arn.partition, arn.account) != (role.partition, role.account):
            raise _No(
                "invalid_target", "the target is not in the role's account", "partition or account differ"
            )
        if not any(matches(pattern, resource) for pattern in role.targets):
            raise _No("invalid_target", "the target is not one that this role reaches", "no pattern matches")
    return tuple(sorted(set(asked)))


def _last_part(resource: str) -> str | None:
    arn = parse_arn(resource)
    return arn.last if arn else None


def _scopes(role: Role, asked: Sequence[str]) -> tuple[Scope, ...]:
    names = sorted(set(asked or role.default_scopes))
    if any(name not in role.scopes for name in names):
        raise _No("invalid_scope", "this role has no such scope")
    if role.scopes and not names and not role.statements:
        raise _No("invalid_scope", f"pick a scope: {', '.join(sorted(role.scopes))}", "no scope asked")
    return tuple(role.scopes[name] for name in names)


def _tags(scopes: Sequence[Scope]) -> Mapping[str, str]:
    tags: dict[str, str] = {}
    for scope in scopes:
        for key, value in scope.tags.items():
            if tags.setdefault(key, value) != value:
                raise _No("invalid_scope", "these scopes exclude each other", f"two values of the tag {key}")
    return MappingProxyType(tags)


def _session_policy(role: Role, scopes: Sequence[Scope], resources: Sequence[str]) -> str | None:
    statements = [*role.statements, *(statement for scope in scopes for statement in scope.statements)]
    room = EXPIRY_ROOM if role.sts == BROKER else 0
    try:
        composed = compose(statements, resources, room=room)
    except SessionPolicyError as exc:
        raise _No("invalid_scope", "that is more than one session can hold: ask for less", str(exc)) from exc
    if composed is None and role.narrows:
        raise _No(
            "invalid_scope", "these scopes need a target", "no statement is left: would be unrestricted"
        )
    return composed


_PLAIN: Final = (
    "name", "account", "arn", "region", "description", "duration", "max_duration", "sts", "factor_max_age",
    "factor_group",
)  # fmt: skip


def roles_for(policy: Policy, person: Person) -> list[dict[str, Any]]:
    """What ``GET /roles`` lists for this person: the roles that ``decide`` would not call unavailable.

    ``enforcement`` says what holds a session to what was asked, even against the person's own client:

    * of a role: ``broker`` (the broker makes the STS call), ``signed`` (the signed token names the one role it
      is good for), ``trust-policy`` (the role's own trust policy compares ``aud`` and ``sub``);
    * of a scope: ``broker``; ``signed`` (tags in the signed token express it); ``signed+narrowing`` (the tags
      hold, the session policy on top does not); ``narrowing`` (a session policy which the client passes and
      could leave out: it limits what leaked credentials can do, no more).
    """
    listed = []
    for name in sorted({name for group in person.groups for name in policy.roles_of.get(group, ())}):
        try:
            role = _available(policy, person, name)
            listed.append(_listing(role, _factors(role, person)))
        except _No:
            continue
    return listed


def _listing(role: Role, factors: tuple[str, ...]) -> dict[str, Any]:
    plain = {name: getattr(role, name) for name in _PLAIN}
    return plain | {
        "factors": list(factors),
        "requires_target": role.target == REQUIRED,
        "requires_reason": role.reason == REQUIRED,
        "operations": list(role.operations),
        "enforcement": role_enforcement(role),
        "scopes": [
            {"name": s.name, "description": s.description, "enforcement": scope_enforcement(role, s)}
            for s in role.scopes.values()
        ],
    }


def role_enforcement(role: Role) -> str:
    if role.sts == BROKER:
        return "broker"
    return "signed" if role.roles_claim else "trust-policy"


def scope_enforcement(role: Role, scope: Scope) -> str:
    if role.sts == BROKER:
        return "broker"
    if not scope.tags:
        return "narrowing"
    return "signed+narrowing" if scope.statements else "signed"
