"""A role's permission policy in IAM, out of what the policy file says about the role. Pure.

It holds what signed tags can hold (design, "What limits a session"): a scope by the scope's own tags, a target by
``credx-target``. It allows no more than the file's statements do; what a tag cannot say is in ``permission_notes``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from credx.broker.policy.arn import glob
from credx.broker.policy.rules import BROKER, NOT_NEEDED, REQUIRED
from credx.broker.policy.session_policy import TARGET, VERSION
from credx.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from credx.broker.policy.rules import Role, Statement

    Conditions = dict[str, dict[str, Any]]

MAX_MANAGED_POLICY: Final = 6144  # characters without white space, IAM quotas
ROLE_TAG: Final = "aws:PrincipalTag/credx-role"
TARGET_TAG: Final = "aws:PrincipalTag/credx-target"
CHECK_HINT: Final = "credx broker check FILE says what each role and scope is held by"

# What Session Manager opens a session on (Service Authorization Reference, ssm:StartSession)
_SSM_TARGET = re.compile(r"arn:[^:]+:(?:ec2:[^:]*:[0-9]{12}:instance|ssm:[^:]*:[0-9]{12}:managed-instance|"
                         r"ecs:[^:]*:[0-9]{12}:task)/.+")  # fmt: skip
# whose ids have no / and :, and are given once
FLAT_IDS: Final = re.compile(r"arn:[^:]+:(?:ec2|ssm):[^:]*:[0-9]{12}:(?:managed-)?instance/.+")
_LOCALHOST: Final = ("localhost", "127.0.0.1", "[::1]")
_AWS_DOCUMENT: Final = "arn:{partition}:ssm:{region}::document/AWS-{name}"  # AWS's own have no account


def permission_policy(role: Role) -> dict[str, Any]:
    """The policy to attach to the IAM role, as a JSON object.

    Raises:
        ConfigError: it is longer than IAM takes, or a scope's statement tests the scope's own tag by itself.
    """
    statements = [_guard(role), *_written(role, role.statements, {})]
    for scope in role.scopes.values():
        own = {f"aws:PrincipalTag/{key}": value for key, value in scope.tags.items()}
        statements += _written(role, scope.statements, {"StringEquals": own} if own else {})
    return {"Version": VERSION, "Statement": [*statements, *_session_manager(role)]}


def _guard(role: Role) -> dict[str, Any]:
    """Denies sessions that carry no ``credx-role`` too: a negated operator holds for an absent key (IAM reference)."""
    condition = {"StringNotEquals": {ROLE_TAG: role.name}}
    return {
        "Sid": "SignedForThisRole",
        "Effect": "Deny",
        "Action": "*",
        "Resource": "*",
        "Condition": condition,
    }


def _written(role: Role, statements: Sequence[Statement], held: Conditions) -> Iterator[dict[str, Any]]:
    """Each statement, ``held`` by further conditions; one more of it for every kind of tag value that it needs."""
    for statement in statements:
        plain = [resource for resource in statement.resources if TARGET not in resource]
        ours = [resource for resource in statement.resources if TARGET in resource]
        parts: list[tuple[list[str], Conditions]] = [(plain, {})] if plain else []
        for like, places in _places(role, role.targets).items() if ours else ():
            resources = [resource.replace(TARGET, place) for resource in ours for place in places]
            parts.append((resources, _like(like)))
        for resources, further in parts:
            written: dict[str, Any] = {
                "Effect": statement.effect,
                "Action": list(statement.actions),
                "Resource": resources,
            }
            if condition := _all_of(role, statement.conditions, held, further):
                written["Condition"] = condition
            yield written


def held_by_tag(role: Role) -> bool:
    """Whether nothing but the signed tag holds a session to its target.

    Where the broker makes the STS call, the session policy holds it, and to several targets as well; but only a
    role that has statements has one that says anything.
    """
    return not (role.sts == BROKER and role.narrows)


def _places(role: Role, patterns: Sequence[str]) -> dict[str, list[str]]:
    """The role's targets as resources that end in the tag's value, by what the value has to look like.

    The value is the last part of the asked ARN (design, step 6), so a pattern that says more of it than ``*``
    says it of the tag: or ``db:dev-*`` would let in the tag of a ``cluster:prod-1`` that is a target as well.
    """
    if not held_by_tag(role):
        return {"*": list(patterns)} if patterns else {}
    places: dict[str, list[str]] = {}
    for pattern in patterns:
        place = f"{_kind(pattern)}${{{TARGET_TAG}}}"
        here = places.setdefault(pattern.removeprefix(_kind(pattern)), [])
        if place not in here:
            here.append(place)
    return places


def _like(last: str) -> Conditions:
    return {} if last == "*" else {"StringLike": {TARGET_TAG: last}}


def _all_of(role: Role, *several: Mapping[str, Mapping[str, Any]]) -> Conditions:
    """Conditions that must hold together: two of one operator and key would replace each other in JSON."""
    together: Conditions = {}
    seen: set[tuple[str, str]] = set()
    for conditions in several:
        for operator, keys in conditions.items():
            for key, values in keys.items():
                name = (operator.lower(), key.lower())  # AWS folds the case of both
                if name in seen:
                    raise ConfigError(
                        f"role {role.name}: a statement tests {key} with {operator}, which the template does by itself",
                        hint=CHECK_HINT,
                    )
                seen.add(name)
                together.setdefault(operator, {})[key] = list(values) if isinstance(values, tuple) else values
    return together


def _session_manager(role: Role) -> Iterator[dict[str, Any]]:
    """What ``credx shell``, ``run`` and ``forward`` need: one target, the documents, and one's own sessions.

    Both the documents and ``ssm:SessionDocumentAccessCheck``, without which the default shell needs no permission
    for its document (Systems Manager guide, "Enforce a session document permission check"). Never
    ``ssm:SendCommand``: it runs anything as root.
    """
    targets, documents = _session_targets(role), _documents(role)
    if not documents:
        return
    checked: Conditions = {"BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}}
    for like, places in _places(role, targets).items():
        yield _allow("ssm:StartSession", places, checked | _like(like))
    yield _allow("ssm:StartSession", documents, checked)
    # A session's id begins with the name of the role session, and that with the source identity, which is signed;
    # ${aws:userid} ends in the name that a client chose, and in another one after the credentials were renewed.
    own = [f"arn:{role.partition}:ssm:{region}:{role.account}:session/${{aws:SourceIdentity}}-*"
           for region in _regions(targets)]  # fmt: skip
    yield _allow(["ssm:ResumeSession", "ssm:TerminateSession"], own)
    # knows no resource types (Service Authorization Reference); good for nothing without the session's own token
    yield _allow("ssmmessages:OpenDataChannel", "*")


def _session_targets(role: Role) -> list[str]:
    return [pattern for pattern in role.targets if _SSM_TARGET.fullmatch(pattern)]


def _documents(role: Role) -> list[str]:
    found: list[str] = []
    for region in _regions(_session_targets(role)):
        own = f"arn:{role.partition}:ssm:{region}:{role.account}:document/SSM-SessionManagerRunShell"
        found += [own] if "shell" in role.operations else []
        found += [
            _AWS_DOCUMENT.format(partition=role.partition, region=region, name=name)
            for name in _aws_documents(role)
        ]
    return found


def _aws_documents(role: Role) -> list[str]:
    names = ["StartNonInteractiveCommand", "StartInteractiveCommand"] if "run" in role.operations else []
    hosts = [op.split(":", 1)[1].rpartition(":")[0] for op in role.operations if op.startswith("forward:")]
    if any(glob(host, local) for host in hosts for local in _LOCALHOST):
        names.append("StartPortForwardingSession")
    if any(host not in _LOCALHOST for host in hosts):
        names.append("StartPortForwardingSessionToRemoteHost")
    return names


def _regions(targets: Sequence[str]) -> list[str]:
    return sorted({pattern.split(":")[3] for pattern in targets})


def _allow(
    action: str | list[str], resource: str | list[str], condition: Conditions | None = None
) -> dict[str, Any]:
    written: dict[str, Any] = {"Effect": "Allow", "Action": action, "Resource": resource}
    return {**written, "Condition": condition} if condition else written


def permission_notes(role: Role) -> list[str]:
    """What the permission policy cannot say, one sentence each."""
    notes: list[str] = []
    said = [*role.statements, *(s for scope in role.scopes.values() for s in scope.statements)]
    if not said and not _documents(role):
        notes.append(
            "the policy file has no statements for it: this permission policy allows nothing, add yours"
        )
    for scope in role.scopes.values():
        if not scope.statements:
            notes.append(f"scope {scope.name} has no statements: add what its tags are to allow")
        if not scope.tags:
            notes.append(f"scope {scope.name} has no tags: its statements hold for every session of the role")
    notes += _target_notes(role) if role.target != NOT_NEEDED and held_by_tag(role) else ()
    sessions = [operation.partition(":")[0] for operation in role.operations if operation != "creds"]
    if sessions and not _documents(role):
        notes.append(
            f"no target of it is one that Session Manager knows: {', '.join(sessions)} is not allowed"
        )
    if any(operation.startswith("forward:") and operation != "forward:*:*" for operation in role.operations):
        notes.append("IAM does not see hosts and ports: forward is held to its document alone")
    if sessions and said and not any(glob(a, "ssm:StartSession") for s in said for a in s.actions):
        notes.append(
            "no statement of the policy file allows ssm:StartSession, so the session policy will not"
        )
    return notes


def _target_notes(role: Role) -> Iterator[str]:
    what = "the trust policy refuses it" if role.target == REQUIRED else "it reaches none of them"
    yield f"an issuance for several targets has no tag credx-target: {what}"
    kinds = {_kind(pattern) for pattern in role.targets}
    if len(kinds) > 1 or any("*" in kind for kind in kinds):
        yield "the tag credx-target says the last part of the target's ARN and nothing of what is before it"
    for pattern in role.targets:
        if "*" in pattern.removeprefix(_kind(pattern)) and not FLAT_IDS.fullmatch(pattern):
            yield f"{pattern}: the last * stands for one part here, not for several with / or : between them"


def _kind(pattern: str) -> str:
    """Everything up to the last part, which becomes the tag."""
    return pattern.removesuffix(re.split("[/:]", pattern)[-1])
