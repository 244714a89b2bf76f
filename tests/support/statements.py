"""Random policies, requests, and a second opinion on what IAM statements allow, written from its rules alone.

It shares no code with ``credx``: patterns are matched character by character, ``${target}`` is looked at in the
policy's own statements and never replaced in a text, conditions hold when the request says so.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from credx.broker.policy.rules import Role, Scope, Statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HERE = "arn:aws:ec2:eu-central-1:111122223333:instance/"
TARGETS = (
    HERE + "i-0aaa",
    HERE + "i-0aaab",
    HERE + "i-0bbb",
    "arn:aws:ssm:eu-central-1:111122223333:managed-instance/mi-1",
    "arn:aws:rds:eu-central-1:111122223333:db:dev-1",
    "arn:aws:rds:eu-central-1:111122223333:cluster:dev-1",
    "arn:aws:rds:eu-central-1:111122223333:cluster:prod-1",
)
PATTERNS = (
    HERE + "*",
    HERE + "i-0a*",
    "arn:aws:ssm:*:111122223333:managed-instance/*",
    "arn:aws:rds:eu-central-1:111122223333:db:dev-*",
    "arn:aws:rds:eu-central-1:111122223333:cluster:*",
)
ACTIONS = ("s3:GetObject", "s3:PutObject", "ec2:StartInstances", "ec2:StopInstances")
RESOURCES = (
    "arn:aws:s3:::logs/abc",
    "arn:aws:s3:::logs/axc/d",
    "arn:aws:s3:::log",
    *TARGETS,
    *(target + "/x" for target in TARGETS),
    *(target + ":x" for target in TARGETS),
    HERE + "i-0",
    HERE + "*",
    "arn:aws:ec2:eu-west-1:111122223333:instance/i-0aaa",
    "arn:aws:ec2:eu-central-1:444455556666:instance/i-0aaa",
)
SECURE = {"Bool": {"aws:SecureTransport": ("true",)}}


@dataclass(frozen=True)
class Request:
    """``secure``: the value of ``aws:SecureTransport``; ``now``: seconds since 1970."""

    action: str
    resource: str
    secure: bool = True
    now: int = 0


requests = st.builds(Request, st.sampled_from(ACTIONS), st.sampled_from(RESOURCES), st.booleans())
statements = st.builds(
    Statement,
    effect=st.sampled_from(["Allow", "Allow", "Allow", "Deny"]),
    actions=st.lists(
        st.sampled_from([*ACTIONS, "s3:*", "ec2:St*", "s3:?etObject", "*"]), min_size=1, max_size=2
    ).map(tuple),
    resources=st.lists(
        st.sampled_from(
            ["*", "arn:aws:s3:::logs/*", "arn:aws:s3:::logs/a?c", "${target}", "${target}/*", "${target}:x"]
        ),
        min_size=1,
        max_size=2,
        unique=True,
    ).map(tuple),
    conditions=st.sampled_from([{}, {}, SECURE]),
)
targets = st.lists(st.sampled_from(TARGETS), max_size=3, unique=True)


def scope(name: str, told: Sequence[Statement], tags: Mapping[str, str]) -> Scope:
    return Scope(name=name, description="", statements=tuple(told), tags=tags)


@st.composite
def scopes(draw: Any, names: Sequence[str] = ("a", "b", "c")) -> dict[str, Scope]:
    """Each with statements; tagged by its own name, or not at all."""
    made = {}
    for name in draw(st.lists(st.sampled_from(names), max_size=3, unique=True)):
        tags = {f"credx-scope-{name}": "on"} if draw(st.booleans()) else {}
        made[name] = scope(name, draw(st.lists(statements, min_size=1, max_size=2)), tags)
    return made


def role(name: str = "prod", **more: Any) -> Role:
    """A role as the policy file would make it."""
    values: dict[str, Any] = {
        "name": name, "description": "", "arn": f"arn:aws:iam::111122223333:role/{name}", "partition": "aws",
        "account": "111122223333", "region": "eu-central-1", "groups": frozenset({"sre"}),
        "factors": ("webauthn",), "user_verification": True, "duration": 3600, "max_duration": 3600,
        "sts": "client", "roles_claim": True, "factor_max_age": 0, "factor_group": name,
        "target": "optional", "targets": PATTERNS, "reason": "optional", "operations": ("creds",),
        "statements": (), "scopes": {}, "default_scopes": (),
    }  # fmt: skip
    return Role(**values | more)


roles = st.builds(
    role,
    statements=st.lists(statements, min_size=1, max_size=2).map(tuple),
    scopes=scopes(),
    targets=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3, unique=True).map(tuple),
    sts=st.sampled_from(["client", "client", "broker"]),
)


@functools.cache
def like(pattern: str, text: str) -> bool:
    """``*``: any run of characters, ``?``: any one."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return like(pattern[1:], text) or (bool(text) and like(pattern, text[1:]))
    return bool(text) and pattern[0] in ("?", text[0]) and like(pattern[1:], text[1:])


def told(several: Iterable[Statement], asked: Sequence[str], request: Request) -> bool:
    """Whether the policy file's statements allow it, ``${target}`` standing for one of ``asked``."""
    applying = [
        s.effect
        for s in several
        if any(like(a, request.action) for a in s.actions)
        and any(_about(r, asked, request.resource) for r in s.resources)
        and (not s.conditions or request.secure)
    ]
    return "Allow" in applying and "Deny" not in applying


def _about(resource: str, asked: Sequence[str], actual: str) -> bool:
    if not resource.startswith("${target}"):
        return like(resource, actual)
    rest = resource.removeprefix("${target}")
    return any(actual.startswith(arn) and like(rest, actual[len(arn) :]) for arn in asked)


def allows(document: Mapping[str, Any], request: Request) -> bool:
    """Whether a session policy allows it. A condition that is not known here fails the test."""
    applying = [
        s["Effect"]
        for s in document["Statement"]
        if any(like(a, request.action) for a in _list(s["Action"]))
        and any(like(r, request.resource) for r in _list(s["Resource"]))
        and all(
            _holds(operator, key, values, request)
            for operator, keys in s.get("Condition", {}).items()
            for key, values in keys.items()
        )
    ]
    return "Allow" in applying and "Deny" not in applying


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _holds(operator: str, key: str, values: str | list[str], request: Request) -> bool:
    if (operator, key) == ("Bool", "aws:SecureTransport"):
        return ("true" if request.secure else "false") in _list(values)
    if (operator, key) == ("DateGreaterThanEquals", "aws:CurrentTime"):
        from datetime import datetime

        (moment,) = _list(values)
        return request.now >= datetime.fromisoformat(moment).timestamp()
    raise AssertionError(f"{operator} {key}")
