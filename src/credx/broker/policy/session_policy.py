"""IAM session policies, composed out of a policy's statements."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from credx.aws_limits import MAX_SESSION_POLICY
from credx.strict import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credx.broker.policy.rules import Statement

TARGET: Final = "${target}"
VERSION: Final = "2012-10-17"

_LITERAL = re.compile(r"[^*?$]*")  # IAM reads more into the others: wildcards, variables
_ALLOWED = re.compile(r"[\u0020-\u00ff]*")  # STS API; compact JSON holds no tab or line end


class SessionPolicyError(ValueError):
    """What was put together is no session policy that STS would take. The text may be shown."""


def compose(statements: Sequence[Statement], targets: Sequence[str], *, room: int = 0) -> str | None:
    """One session policy out of statements, or None when nothing of them is left.

    A statement all of whose resources are ``${target}`` falls away when there is no target.

    Args:
        statements: of the role and of the chosen scopes.
        targets: full ARNs that ``${target}`` stands for; each for itself alone.
        room: characters to leave free for what the broker appends, see ``with_expiry``.

    Raises:
        SessionPolicyError: too long, a character that STS does not take, or a target that is a pattern.
    """
    if not all(map(_LITERAL.fullmatch, targets)):
        raise SessionPolicyError("a target holds a wildcard or a variable")
    written = [s for s in (_write(statement, targets) for statement in statements) if s is not None]
    if not written:
        return None
    return _dump(written, MAX_SESSION_POLICY - room)


def with_expiry(session_policy: str | None, expires_at: int) -> str:
    """The session policy of ``sts = "broker"``: everything is denied from ``expires_at`` on.

    Bounds a console session too, which outlives the credentials it was opened with (design, step 7).

    Args:
        session_policy: as composed; None becomes an Allow of everything, which leaves the role as it is.
        expires_at: seconds since 1970.
    """
    written = [_EVERYTHING] if session_policy is None else json.loads(session_policy)["Statement"]
    return _dump([*written, _expiry(expires_at)], MAX_SESSION_POLICY)


def _expiry(expires_at: int) -> dict[str, Any]:
    condition = {"DateGreaterThanEquals": {"aws:CurrentTime": timestamp(expires_at)}}
    return {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}


_EVERYTHING: Final = {"Effect": "Allow", "Action": "*", "Resource": "*"}
EXPIRY_ROOM: Final = len(json.dumps(_expiry(0), separators=(",", ":"))) + 1  # and a comma


def _write(statement: Statement, targets: Sequence[str]) -> dict[str, Any] | None:
    resources: list[str] = []
    for resource in statement.resources:
        if TARGET in resource:
            resources += [resource.replace(TARGET, arn) for arn in targets]
        else:
            resources.append(resource)
    if not resources:
        return None
    written: dict[str, Any] = {
        "Effect": statement.effect,
        "Action": list(statement.actions),
        "Resource": resources,
    }
    if statement.conditions:
        written["Condition"] = {
            operator: {key: list(values) for key, values in keys.items()}
            for operator, keys in statement.conditions.items()
        }
    return written


def _dump(statements: Sequence[dict[str, Any]], limit: int) -> str:
    document = {"Version": VERSION, "Statement": list(statements)}
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    if len(text) > limit:
        raise SessionPolicyError(f"the session policy has {len(text)} characters, {limit} are possible")
    if not _ALLOWED.fullmatch(text):
        raise SessionPolicyError("the session policy holds a character that AWS does not take")
    return text
