"""Composing never widens: random roles, scopes and targets against an evaluator that shares no code."""

from __future__ import annotations

import dataclasses
import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, reject
from hypothesis import strategies as st
from support import statements as s

from credx.aws_limits import MAX_SESSION_POLICY
from credx.broker.person import Person
from credx.broker.policy import decide
from credx.broker.policy.rules import BROKER, BrokerSettings, Policy, Role, Scope, Statement
from credx.broker.policy.session_policy import EXPIRY_ROOM, SessionPolicyError, compose, with_expiry
from credx.model import Grant
from credx.protocol import Ask

if TYPE_CHECKING:
    from collections.abc import Sequence

ENDS = 1_800_000_000


def composed(statements: Sequence[Statement], targets: Sequence[str]) -> dict[str, Any]:
    """The document; an empty one where nothing was left, which no session is ever given."""
    try:
        text = compose(statements, targets)
    except SessionPolicyError:  # too long for a session: refused, so nothing to compare
        reject()
    return json.loads(text) if text else {"Statement": []}


def chosen(role: Role, names: Sequence[str]) -> list[Statement]:
    return [*role.statements, *(told for name in names for told in role.scopes[name].statements)]


@given(s.roles, st.data(), s.targets, st.lists(s.requests, min_size=1, max_size=20))
def test_it_allows_what_role_and_chosen_scopes_say_of_the_asked_targets_and_nothing_else(
    role: Role, data: st.DataObject, targets: list[str], requests: list[s.Request]
) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(role.scopes)), unique=True)) if role.scopes else []
    document = composed(chosen(role, names), targets)
    for request in requests:
        assert s.allows(document, request) == s.told(chosen(role, names), targets, request), request


@given(s.roles, s.targets, s.requests)
def test_a_target_reaches_itself_alone(role: Role, targets: list[str], request: s.Request) -> None:
    """Without the statements that have other resources, nothing is left but the asked targets."""
    only = [
        dataclasses.replace(told, resources=("${target}",))
        for told in role.statements
        if told.effect == "Allow"
    ]
    if s.allows(composed(only, targets), request):
        assert request.resource in targets


@given(s.roles, s.statements, s.targets, s.requests)
def test_one_more_deny_never_adds(
    role: Role, deny: Statement, targets: list[str], request: s.Request
) -> None:
    deny = dataclasses.replace(deny, effect="Deny")
    before, after = composed(role.statements, targets), composed([*role.statements, deny], targets)
    assert s.allows(after, request) <= s.allows(before, request)


@given(s.roles, s.targets, s.requests, st.integers(-100_000, 100_000))
def test_after_the_expiry_nothing_before_it_exactly_what_was(
    role: Role, targets: list[str], request: s.Request, offset: int
) -> None:
    text = compose(role.statements, targets)
    request = dataclasses.replace(request, now=ENDS + offset)
    was = s.allows(json.loads(text), request) if text else True  # no session policy: the role as it is
    assert s.allows(json.loads(with_expiry(text, ENDS)), request) == (was and offset < 0)


@given(s.roles, s.targets)
def test_the_expiry_takes_the_room_that_was_left_for_it(role: Role, targets: list[str]) -> None:
    text = compose(role.statements, targets, room=EXPIRY_ROOM)
    assume(text is not None)
    assert text is not None
    assert len(with_expiry(text, ENDS)) == len(text) + EXPIRY_ROOM <= MAX_SESSION_POLICY


ALICE = Person(
    user_key="0" * 64, user="alice-0123456789abcdef", issuer="https://idp.example.com", subject="1",
    groups=frozenset({"sre"}), workload=False, amr=(), auth_time=None,
)  # fmt: skip
SETTINGS = BrokerSettings(
    issuer="https://credx.example.com", url="https://credx.example.com", rp_id="credx.example.com",
    rp_name="credx", max_token_age=3600,
)  # fmt: skip


def policy(*roles: Role) -> Policy:
    named = MappingProxyType({role.name: role for role in roles})
    return Policy(version="0" * 16, broker=SETTINGS, issuers={}, groups={}, roles=named)


@given(s.roles, s.roles, s.scopes(("d", "e")), s.targets, st.data())
def test_a_scope_or_a_role_that_is_not_chosen_changes_nothing(
    role: Role, other: Role, more: dict[str, Scope], targets: list[str], data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(role.scopes)), unique=True)) if role.scopes else []
    role = dataclasses.replace(role, targets=s.PATTERNS)
    wider = dataclasses.replace(role, scopes={**more, **role.scopes})
    ask = Ask(role="prod", resources=tuple(targets), scopes=tuple(names))
    answers = [
        decide(it, ALICE, ask)
        for it in (policy(role), policy(wider), policy(dataclasses.replace(other, name="other"), role))
    ]
    assume(isinstance(answers[0], Grant))
    assert answers[0] == answers[1] == answers[2]


@given(st.text(max_size=40), s.roles)
def test_a_target_stays_text_or_is_refused(text: str, role: Role) -> None:
    target = f"{s.HERE}{text}"
    told = [Statement(effect="Allow", actions=("s3:GetObject",), resources=("${target}", "${target}/log"))]
    try:
        document = composed(told, [target])
    except SessionPolicyError:
        assert set(text) & set("*?$") or any(not " " <= char <= "\xff" for char in text)
        return
    (statement,) = document["Statement"]
    assert statement == {
        "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [target, f"{target}/log"],
    }  # fmt: skip
    assert not set("*?$") & set(target)


@pytest.mark.parametrize("last", ["*", "i-?", "${aws:username}", "$", 'i"],"Resource":["*', "i-1\u20ac"])
def test_a_target_that_is_more_than_a_name_gives_no_policy(last: str) -> None:
    told = [Statement(effect="Allow", actions=("*",), resources=("${target}",))]
    with pytest.raises(SessionPolicyError):
        compose(told, [s.HERE + last])


def test_a_quote_stays_within_its_string() -> None:
    told = [Statement(effect="Allow", actions=("*",), resources=("${target}",))]
    target = s.HERE + 'i"],"Resource":["'
    assert composed(told, [target])["Statement"][0]["Resource"] == [target]


def test_a_brokered_grant_leaves_room_for_its_end() -> None:
    told = [Statement(effect="Allow", actions=("s3:GetObject",), resources=("arn:aws:s3:::" + "x" * 1900,))]
    assert compose(told, []) is not None
    full = s.role(statements=tuple(told), sts=BROKER)
    answer = decide(policy(full), ALICE, Ask(role="prod"))
    assert not isinstance(answer, Grant)
    assert answer.code == "invalid_scope"
