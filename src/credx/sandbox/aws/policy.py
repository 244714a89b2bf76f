"""IAM policy documents: parsing and the question whether a statement applies.

Parsing is strict: an element, a type or an ARN that IAM would not take is a ``PolicyError``. ``NotAction``
and ``NotResource`` are understood; ``NotPrincipal`` is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from credx.sandbox.aws.conditions import Condition, known_operator, match_arn, split_arn
from credx.sandbox.aws.context import UNKNOWN, Context, Truth, all_of, any_of, negate
from credx.strict import json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["identity", "session", "trust"]

VERSIONS: Final = ("2012-10-17", "2008-10-17")
_ELEMENTS: Final = {
    "Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Principal", "Condition",
}  # fmt: skip
_ACTION = re.compile(r"\*|[a-z0-9-]+:[A-Za-z0-9*?]+", re.ASCII | re.IGNORECASE)


class PolicyError(ValueError):
    """A document that is no policy. The text names the place, not the caller's values."""


@dataclass(frozen=True)
class Statement:
    """``federated`` and ``anyone`` are the principal of a trust statement, None and False elsewhere."""

    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...] | None
    conditions: tuple[Condition, ...]
    not_actions: bool = False
    not_resources: bool = False
    federated: tuple[str, ...] | None = None
    anyone: bool = False

    def applies(self, action: str, resource: str | None, context: Context) -> Truth:
        """Whether the statement is about this action on this resource under these conditions."""
        parts: list[Truth] = [self._action(action)]
        if self.resources is not None:
            wanted = any_of([self._resource(r, resource or "*", context) for r in self.resources])
            parts.append(negate(wanted) if self.not_resources else wanted)
        return all_of([*parts, *(condition.holds(context) for condition in self.conditions)])

    def about(self, provider_arn: str) -> Truth:
        """Whether a trust statement names this federated principal.

        ``*`` was seen not to match OIDC callers in recorded calls: unknown, so no Allow and every Deny.
        """
        if provider_arn in (self.federated or ()):
            return True
        return UNKNOWN if self.anyone else False

    def _action(self, action: str) -> bool:
        hit = any(_glob(pattern).fullmatch(action) is not None for pattern in self.actions)
        return hit is not self.not_actions

    def _resource(self, pattern: str, resource: str, context: Context) -> Truth:
        if pattern == "*" or resource == "*":
            return pattern == "*"
        return match_arn(pattern, resource, context, negated=self.not_resources)


@dataclass(frozen=True)
class Policy:
    statements: tuple[Statement, ...]


def _glob(pattern: str) -> re.Pattern[str]:
    body = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(body, re.IGNORECASE)  # actions are compared without case


def parse_policy(text: str, kind: Kind) -> Policy:
    """Parse a JSON policy document.

    Raises:
        PolicyError: not JSON, or not a policy of this kind. A session policy with an operator that the
            evaluator does not know is refused here; elsewhere such a statement is kept and never helps.
    """
    try:
        document = json_object(text.encode())
    except ValueError as exc:
        raise PolicyError("syntax errors in policy") from exc
    if not set(document) <= {"Version", "Id", "Statement"}:
        raise PolicyError("a policy has Version, Id and Statement, nothing else")
    version = document.get("Version", VERSIONS[1])
    if version not in VERSIONS:
        raise PolicyError("the policy must contain a valid version string")
    raw = document.get("Statement")
    statements = [raw] if isinstance(raw, dict) else raw
    if not isinstance(statements, list) or not statements:
        raise PolicyError("Statement is missing or empty")
    if version != VERSIONS[0] and "${" in text:
        raise PolicyError("policy variables need Version 2012-10-17")
    return Policy(tuple(_statement(s, kind) for s in statements))


def _statement(raw: Any, kind: Kind) -> Statement:
    if not isinstance(raw, dict) or not set(raw) <= _ELEMENTS:
        raise PolicyError("a statement has an element that is not known")
    if raw.get("Effect") not in ("Allow", "Deny"):
        raise PolicyError("Effect must be Allow or Deny")
    actions, not_actions = _either(raw, "Action")
    if actions is None:
        raise PolicyError("policy statement must contain actions")
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise PolicyError("actions/conditions must be prefaced by a vendor")
    resources, not_resources = _either(raw, "Resource")
    if (resources is None) is not (kind == "trust") or ("Principal" in raw) is not (kind == "trust"):
        raise PolicyError("policy statement must contain resources; a trust statement a principal instead")
    for resource in resources or ():
        if resource != "*" and split_arn(resource) is None:
            raise PolicyError('a resource must be in ARN format or "*"')
    federated, anyone = _principal(raw["Principal"]) if kind == "trust" else (None, False)
    return Statement(
        effect=raw["Effect"],
        actions=actions,
        resources=resources,
        conditions=_conditions(raw.get("Condition", {}), strict=kind == "session"),
        not_actions=not_actions,
        not_resources=not_resources,
        federated=federated,
        anyone=anyone,
    )


def _either(raw: Mapping[str, Any], name: str) -> tuple[tuple[str, ...] | None, bool]:
    if name in raw and "Not" + name in raw:
        raise PolicyError(f"{name} and Not{name} exclude each other")
    if "Not" + name in raw:
        return _strings(raw["Not" + name]), True
    return (_strings(raw[name]) if name in raw else None), False


def _strings(raw: Any) -> tuple[str, ...]:
    values = [raw] if isinstance(raw, str) else raw
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
        raise PolicyError("expected a string or a list of strings")
    return tuple(values)


def _principal(raw: Any) -> tuple[tuple[str, ...], bool]:
    if raw == "*":
        return (), True
    if (
        not isinstance(raw, dict)
        or not raw
        or not set(raw) <= {"AWS", "Federated", "Service", "CanonicalUser"}
    ):
        raise PolicyError("invalid principal in policy")
    named = {kind: _strings(value) for kind, value in raw.items()}
    return named.get("Federated", ()), "*" in named.get("AWS", ()) or "*" in named.get("Federated", ())


def _conditions(raw: Any, *, strict: bool) -> tuple[Condition, ...]:
    if not isinstance(raw, dict):
        raise PolicyError("Condition must be an object")
    found: list[Condition] = []
    for operator, keys in raw.items():
        if not isinstance(keys, dict) or not keys:
            raise PolicyError("a condition operator needs keys")
        if strict and not known_operator(operator):
            raise PolicyError("a condition operator is not known")
        found += [Condition(operator, key, _values(values)) for key, values in keys.items()]
    return tuple(found)


def _values(raw: Any) -> tuple[str, ...]:
    values = raw if isinstance(raw, list) else [raw]
    if not values or not all(isinstance(v, str | bool | int) for v in values):
        raise PolicyError("a condition needs values")
    return tuple(str(v).lower() if isinstance(v, bool) else str(v) for v in values)
