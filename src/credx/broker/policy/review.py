"""A second look at a policy that is correct: what in it does nothing, or not what it seems to. Pure.

Everything here is a warning. What the broker cannot hold is refused by ``file`` already.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from credx.aws_limits import DURATION_RANGE, MAX_SESSION_POLICY
from credx.broker.policy import operation_matches
from credx.broker.policy.arn import long_example, matches
from credx.broker.policy.faults import Finding
from credx.broker.policy.role_permissions import FLAT_IDS, held_by_tag
from credx.broker.policy.rules import BROKER, NOT_NEEDED, REQUIRED, WORKLOAD
from credx.broker.policy.session_policy import EXPIRY_ROOM, TARGET, compose
from credx.protocol import MAX_RESOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from credx.broker.policy.faults import Path
    from credx.broker.policy.rules import Group, Policy, Role, Scope, Statement

# where everybody may run jobs, and what says whose they are: numbers that are given once. Whoever registers a
# name again that somebody gave up has it (GitHub: about security hardening with OpenID Connect)
PUBLIC_JOBS: Final = {
    "https://token.actions.githubusercontent.com": ("repository_id", "repository_owner_id", "enterprise_id"),
    "https://gitlab.com": ("project_id", "namespace_id"),
}

COMPARED: Final = 100  # entries of one list that are compared with each other, and roles of one ARN
_UNLIMITED: Final = -(10**9)  # room that no file can fill: only the length is asked for


def review(policy: Policy) -> list[Finding]:
    """Every warning, in the order of what it is about."""
    found = [*_groups(policy), *_providers(policy), *_public_jobs(policy)]
    kinds = {name: _kinds(policy, group) for name, group in policy.groups.items()}
    for role in policy.roles.values():
        at: Path = ("roles", role.name)
        for look in _LOOKS:
            found += (Finding("warning", (*at, *path), text) for path, text in look(role))
        found += (Finding("warning", (*at, *path), text) for path, text in _nobody(role, kinds))
    return found + [Finding("warning", *warning) for warning in _shared_arns(policy)]


def _groups(policy: Policy) -> Iterator[Finding]:
    for name, roles in policy.roles_of.items():
        if not roles:
            yield Finding("warning", ("groups", name), "no role names it: being in it opens nothing")


def _providers(policy: Policy) -> Iterator[Finding]:
    used = {group.issuer for group in policy.groups.values()}
    used |= {issuer for group in policy.groups.values() for issuer, _ in group.users}
    used |= {job.issuer for group in policy.groups.values() for job in group.workloads}
    for n, issuer in enumerate(policy.issuers):
        if issuer not in used:
            yield Finding("warning", ("identity_providers", n), "no group takes anybody of it")


def _public_jobs(policy: Policy) -> Iterator[Finding]:
    for name, group in policy.groups.items():
        for n, job in enumerate(group.workloads):
            owners = PUBLIC_JOBS.get(job.issuer, ())
            if owners and job.claims.keys().isdisjoint(owners):
                text = f"jobs of anybody may say that: name {' or '.join(owners)} as well"
                yield Finding("warning", ("groups", name, "workloads", n), text)


# who can take a role


def _kinds(policy: Policy, group: Group) -> frozenset[str]:
    """``person``, ``workload`` or both: who may be in the group."""
    kinds = {"person"} if group.claims else set()
    kinds |= {WORKLOAD if policy.issuers[issuer].workloads else "person" for issuer, _ in group.users}
    return frozenset(kinds | ({WORKLOAD} if group.workloads else set()))


_WHO: Final = {"person": "people", WORKLOAD: "jobs"}


def _nobody(role: Role, kinds: dict[str, frozenset[str]]) -> Iterator[tuple[Path, str]]:
    served = {"person"} if any(factor != WORKLOAD for factor in role.factors) else set()
    served |= {WORKLOAD} if any(factor != "webauthn" for factor in role.factors) else set()
    shut_out = [name for name in sorted(role.groups) if served.isdisjoint(kinds[name])]
    for name in shut_out:
        who = " and ".join(_WHO[kind] for kind in sorted(kinds[name]))
        yield ("groups",), f"{name} holds only {who}, and no factor here is for them: it opens nothing"
    coming = frozenset().union(*(kinds[name] for name in role.groups))
    if "person" not in coming and "webauthn" in role.factors:
        yield ("factors",), "webauthn serves nobody: none of the groups holds people"
    if WORKLOAD not in coming and WORKLOAD in role.factors:
        yield ("factors",), "workload serves nobody: none of the groups holds jobs"


# single roles


def _life(role: Role) -> Iterator[tuple[Path, str]]:
    touched = any(factor != WORKLOAD for factor in role.factors)
    if role.duration <= DURATION_RANGE[0] and not role.factor_max_age and touched:
        better = "a longer duration" if role.target == REQUIRED else "a longer duration or a factor_max_age"
        yield (
            ("duration",),
            f"SDKs renew what has less than 15 minutes left: each call runs credential_process again, which may ask for a touch; {better} helps",
        )
    if role.factor_group != role.name and not role.factor_max_age:
        yield ("factor_group",), "does nothing without factor_max_age: a proof serves once"


def _targets(role: Role) -> Iterator[tuple[Path, str]]:
    if role.target == NOT_NEEDED:
        return
    if role.target == REQUIRED and "totp" in role.factors:
        yield ("factors",), "a code is bound to no target; list webauthn alone, or require no target"
    for covered, wide in _covered(role.targets, matches):
        yield ("targets",), f"{covered} is within {wide}"
    kinds = sorted({_kind(pattern) for pattern in role.targets})
    if len(kinds) > 1:
        yield (
            ("targets",),
            f"several kinds of things ({', '.join(kinds)}): the tag credx-target does not say of which kind it is",
        )
    regions = {pattern.split(":")[3] for pattern in role.targets}
    if not regions & {role.region, "*", ""}:
        yield ("targets",), f"none is in the role's region, {role.region}"


def _namesakes(role: Role) -> Iterator[tuple[Path, str]]:
    """What AWS holds a session to says less than what was asked for, once the client leaves out the session policy."""
    named = [p for p in role.targets if not FLAT_IDS.fullmatch(p)] if held_by_tag(role) else []
    places = {pattern.removesuffix(re.split("[/:]", pattern)[-1]) for pattern in named}
    if any("*" in place for place in places) or len(places) > len({_kind(pattern) for pattern in named}):
        text = (
            "in several places: the tag credx-target says the last part alone, and reaches all that end in it"
        )
        yield ("targets",), text
    if role.sts == BROKER:
        return
    some = list(role.scopes.values())[:COMPARED]
    for scope in some:
        wider = [
            o.name for o in some if o is not scope and scope.tags and scope.tags.items() <= o.tags.items()
        ]
        if wider and scope.statements:
            text = (
                f"{', '.join(wider)} has them as well: in AWS a session with it may do what {scope.name} says"
            )
            yield ("scopes", scope.name, "tags"), text


def _operations(role: Role) -> Iterator[tuple[Path, str]]:
    for covered, wide in _covered(role.operations, operation_matches):
        yield ("operations",), f"{covered} is within {wide}"


def _covered(listed: Sequence[str], covers: Callable[[str, str], bool]) -> Iterator[tuple[str, str]]:
    """(narrow, wide): read as plain text ``*`` is matched by ``*`` alone, so whatever is narrow is wide too."""
    some = listed[:COMPARED]
    for narrow in some:
        wide = next((other for other in some if other != narrow and covers(other, narrow)), None)
        if wide is not None:
            yield narrow, wide


def _kind(pattern: str) -> str:
    service, resource = pattern.split(":", 5)[2], pattern.split(":", 5)[5]
    return f"{service} {re.split('[/:]', resource)[0]}"


def _accounts(role: Role) -> Iterator[tuple[Path, str]]:
    for path, resource in _resources(role):
        account = resource.split(":", 5)[4] if resource.startswith("arn:") else ""
        if account.isdigit() and account != role.account:
            yield path, f"{resource} is in account {account}, the role in {role.account}"


def _resources(role: Role) -> Iterator[tuple[Path, str]]:
    for n, statement in enumerate(role.statements):
        yield from ((("statements", n, "resources"), resource) for resource in statement.resources)
    for scope in role.scopes.values():
        for n, statement in enumerate(scope.statements):
            where: Path = ("scopes", scope.name, "statements", n, "resources")
            yield from ((where, resource) for resource in statement.resources)


def _conditions(role: Role) -> Iterator[tuple[Path, str]]:
    """IAM User Guide, «Single-valued vs. multivalued context keys»: ForAllValues holds where there is no value."""
    listed: list[tuple[Path, Statement]] = [(("statements", n), s) for n, s in enumerate(role.statements)]
    for scope in role.scopes.values():
        listed += ((("scopes", scope.name, "statements", n), s) for n, s in enumerate(scope.statements))
    for path, statement in listed:
        tested = {key.lower() for key in statement.conditions.get("Null", ())}
        for operator, keys in statement.conditions.items():
            loose = [key for key in keys if key.lower() not in tested]
            if operator.startswith("ForAllValues:") and statement.effect == "Allow" and loose:
                text = f"allows also where {loose[0]} is absent: Null = {{ {loose[0]!r} = 'false' }} beside it shuts that"
                yield (*path, "conditions", operator), text


# the size of session policies


class Room(NamedTuple):
    """How much of a session policy a role needs.

    Attributes:
        longest: characters, with every scope that goes together and one target with a long name.
        limit: characters that are possible.
        targets: how many such targets fit then; None where none is written into the session policy.
    """

    longest: int
    limit: int
    targets: int | None


def room(role: Role) -> Room:
    scopes = _heaviest(role)
    longest = [max((long_example(pattern) for pattern in role.targets), key=len, default="")]
    limit = MAX_SESSION_POLICY - (EXPIRY_ROOM if role.sts == BROKER else 0)
    used = _length(role, scopes, longest)
    if not any(TARGET in resource for _, resource in _resources(role)):
        return Room(used, limit, None)
    # each further target adds as much as the second did
    step = _length(role, scopes, longest * 2) - used
    fitting = 0 if used > limit else 1 + (limit - used) // max(step, 1)
    return Room(used, limit, min(fitting, MAX_RESOURCES))


def _sizes(role: Role) -> Iterator[tuple[Path, str]]:
    needed = room(role)
    if needed.longest > needed.limit:
        what = "all scopes together" if role.scopes else "the statements"
        target = " and a target with a long name" if role.targets else ""
        text = f"{what}{target} make a session policy of {needed.longest} characters"
        yield ("scopes" if role.scopes else "statements",), f"{text}, {needed.limit} are possible"


def _heaviest(role: Role) -> list[Scope]:
    """Many scopes that may be asked for together, the longest first: tags may exclude some."""
    chosen: list[Scope] = []
    tags: dict[str, str] = {}
    for scope in sorted(role.scopes.values(), key=lambda scope: _length(role, [scope], []), reverse=True):
        if all(tags.get(key, value) == value for key, value in scope.tags.items()):
            chosen.append(scope)
            tags.update(scope.tags)
    return chosen


def _length(role: Role, scopes: Sequence[Scope], targets: Sequence[str]) -> int:
    statements = [*role.statements, *(statement for scope in scopes for statement in scope.statements)]
    return len(compose(statements, targets, room=_UNLIMITED) or "")


_LOOKS: Final[tuple[Callable[[Role], Iterator[tuple[Path, str]]], ...]] = (
    _life, _targets, _namesakes, _operations, _conditions, _accounts, _sizes,
)  # fmt: skip


# several roles of the policy on one role of AWS


def _shared_arns(policy: Policy) -> Iterator[tuple[Path, str]]:
    """Two roles with one ARN: the trust policy of that ARN can tell them apart by ``sub`` alone.

    The roles claim names the ARN, so it is the same in both tokens. Where the trust policy lets both in, what
    the more careful of them asks for can be gone around; where it pins ``sub``, the other is never let in.
    """
    by_arn: dict[str, list[Role]] = {}
    for role in policy.roles.values():
        by_arn.setdefault(role.arn.lower(), []).append(role)
    for sharing in by_arn.values():
        for role in sharing[:COMPARED]:
            if role.sts == BROKER and role.narrows:
                continue  # its sessions hold what its own session policy says, and nobody can leave that out
            for other in sharing[:COMPARED]:
                less = _asks_less(role, other)
                if less:
                    text = f"also the ARN of {other.name}, which {less}; give each an ARN of its own"
                    yield ("roles", role.name, "arn"), text
                    break


def _asks_less(role: Role, other: Role) -> str | None:
    """What ``other`` insists on and ``role`` does not."""
    differences = {
        f"takes {' or '.join(other.factors)} alone": not set(role.factors) <= set(other.factors),
        "asks for PIN or finger": other.user_verification > role.user_verification
        and "webauthn" in role.factors,
        "asks for a proof more often": role.factor_max_age > other.factor_max_age,
        f"is open to {', '.join(sorted(other.groups))} alone": not role.groups <= other.groups,
        "asks for a target": other.target == REQUIRED and role.target != REQUIRED,
        "asks for a reason": other.reason == REQUIRED and role.reason != REQUIRED,
    }
    return next((text for text, differs in differences.items() if differs), None)
