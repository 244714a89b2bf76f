"""Policies and the decision, with the properties that scoping rests on."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credx.sandbox.aws.context import Context
from credx.sandbox.aws.evaluate import Decision, decide
from credx.sandbox.aws.policy import Policy, PolicyError, Statement, parse_policy

ACTIONS = ["s3:GetObject", "s3:PutObject", "ec2:DescribeInstances"]
RESOURCES = ["arn:aws:s3:::logs/a", "arn:aws:s3:::data/b", "*"]
CONTEXT = Context({"aws:PrincipalTag/team": "pay", "k": "v"}, frozenset({"aws:PrincipalTag/", "absent"}))

conditions: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"StringEquals": {"k": "v"}},
        {"StringEquals": {"k": "w"}},
        {"StringEquals": {"unheard": "x"}},
        {"StringNotEquals": {"unheard": "x"}},
        {"StringEquals": {"k": "${aws:PrincipalTag/none}"}},
        {"StringNotEquals": {"k": "${aws:PrincipalTag/none}"}},
        {"Null": {"absent": "true"}},
        {"Nonsense": {"k": "v"}},
    ]
)


@st.composite
def statements(draw: st.DrawFn, effect: str | None = None) -> dict[str, Any]:
    actions = draw(st.lists(st.sampled_from([*ACTIONS, "s3:*", "*"]), min_size=1, max_size=2))
    patterns = [*RESOURCES, "arn:aws:s3:::logs/*", "arn:aws:s3:::${aws:PrincipalTag/none}/*"]
    resources = draw(st.lists(st.sampled_from(patterns), min_size=1, max_size=2))
    return {
        "Effect": effect or draw(st.sampled_from(["Allow", "Deny"])),
        draw(st.sampled_from(["Action", "NotAction"])): actions,
        draw(st.sampled_from(["Resource", "NotResource"])): resources,
        "Condition": draw(conditions),
    }


def policy(*raw: dict[str, Any]) -> Policy:
    return parse_policy(json.dumps({"Version": "2012-10-17", "Statement": list(raw)}), "identity")


policies = st.lists(statements(), min_size=1, max_size=4).map(lambda raw: policy(*raw))
asks = st.tuples(st.sampled_from(ACTIONS), st.sampled_from(RESOURCES))
EVERYTHING = policy({"Effect": "Allow", "Action": "*", "Resource": "*"})


def allowed(ask: tuple[str, str], identity: list[Policy], session: Policy | None = None) -> bool:
    return decide(*ask, CONTEXT, identity=identity, session=session).allowed


@settings(deadline=None)
@given(asks, policies, statements("Deny"), st.none() | policies)
def test_adding_a_deny_never_widens(
    ask: tuple[str, str], identity: Policy, deny: dict[str, Any], session: Policy | None
) -> None:
    if allowed(ask, [identity, policy(deny)], session):
        assert allowed(ask, [identity], session)


@settings(deadline=None)
@given(asks, policies, policies)
def test_a_session_policy_is_an_intersection(ask: tuple[str, str], identity: Policy, session: Policy) -> None:
    both = allowed(ask, [identity], session)
    assert both is (allowed(ask, [identity]) and allowed(ask, [session]))


@settings(deadline=None)
@given(asks, policies)
def test_a_session_policy_of_everything_changes_nothing(ask: tuple[str, str], identity: Policy) -> None:
    assert allowed(ask, [identity], EVERYTHING) is allowed(ask, [identity])


@settings(deadline=None)
@given(asks, policies, policies)
def test_order_and_split_of_policies_do_not_matter(ask: tuple[str, str], one: Policy, two: Policy) -> None:
    assert allowed(ask, [one, two]) is allowed(ask, [two, one])
    assert allowed(ask, [one, two]) is allowed(ask, [Policy(one.statements + two.statements)])


@settings(deadline=None)
@given(asks, statements())
def test_one_statement_with_an_unheard_key_neither_allows_nor_is_skipped(
    ask: tuple[str, str], raw: dict[str, Any]
) -> None:
    unsure = policy(raw | {"Condition": {"StringEquals": {"unheard": "x"}}})
    sure = policy({k: v for k, v in raw.items() if k != "Condition"})
    if raw["Effect"] == "Allow":
        assert not allowed(ask, [unsure])
    else:
        assert allowed(ask, [EVERYTHING, unsure]) is allowed(ask, [EVERYTHING, sure])


@settings(deadline=None)
@given(asks)
def test_nothing_allows_nothing(ask: tuple[str, str]) -> None:
    assert decide(*ask, CONTEXT, identity=[], session=None) == Decision(
        allowed=False, reason=f"because no identity-based policy allows the {ask[0]} action"
    )


def test_the_sentences_name_the_layer_that_refused() -> None:
    ask = ("s3:GetObject", RESOURCES[0])
    deny = policy({"Effect": "Deny", "Action": "*", "Resource": "*"})
    narrow = policy({"Effect": "Allow", "Action": "ec2:*", "Resource": "*"})

    def reason(identity: Policy, session: Policy) -> str:
        return decide(*ask, CONTEXT, identity=[identity], session=session).reason

    assert reason(EVERYTHING, narrow) == "because no session policy allows the s3:GetObject action"
    assert reason(narrow, EVERYTHING) == "because no identity-based policy allows the s3:GetObject action"
    assert reason(EVERYTHING, deny) == "with an explicit deny in a session policy"
    assert reason(deny, EVERYTHING) == "with an explicit deny in an identity-based policy"


@pytest.mark.parametrize(
    ("pattern", "resource", "expected"),
    [
        ("arn:aws:s3:::logs/*", "arn:aws:s3:::logs/a/b", True),
        ("arn:aws:s3:::logs/*", "arn:aws:s3:::logs", False),
        ("arn:aws:s3:::log", "arn:aws:s3:::logs", False),
        ("arn:aws:s3:::LOGS/*", "arn:aws:s3:::logs/a", False),
        ("arn:aws:s3:::logs/?", "arn:aws:s3:::logs/ab", False),
        ("arn:aws:ec2:*:1:instance/i-1", "arn:aws:ec2:eu-central-1:1:instance/i-1", True),
        ("arn:aws:ec2:*:instance/i-1:x:y", "arn:aws:ec2:eu-central-1:1:instance/i-1", False),
        ("arn:aws:s3:::${aws:PrincipalTag/Team}/*", "arn:aws:s3:::pay/a", True),
        ("arn:aws:s3:::${aws:PrincipalTag/Team}/*", "arn:aws:s3:::payroll/a", False),
        ("arn:aws:s3:::${aws:PrincipalTag/none}*", "arn:aws:s3:::pay/a", False),
        ("arn:aws:s3:::a.b/*", "arn:aws:s3:::axb/k", False),
    ],
)
def test_resources_match_whole_and_part_by_part(pattern: str, resource: str, expected: bool) -> None:
    one = policy({"Effect": "Allow", "Action": "s3:GetObject", "Resource": pattern})
    assert allowed(("s3:GetObject", resource), [one]) is expected


def test_not_resource_with_an_absent_variable_allows_nothing() -> None:
    raw = {"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::${aws:PrincipalTag/none}/*"}
    assert not allowed(("s3:GetObject", RESOURCES[0]), [policy(raw)])


@pytest.mark.parametrize("pattern", ["s3:getobject", "S3:Get*", "s3:*Object", "*", "s3:GetObjec?"])
def test_actions_match_without_case(pattern: str) -> None:
    assert allowed(("s3:GetObject", "*"), [policy({"Effect": "Allow", "Action": pattern, "Resource": "*"})])


@pytest.mark.parametrize(
    "statement",
    [
        "Allow",
        {},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Extra": 1},
        {"Effect": "Allow", "Action": [], "Resource": "*"},
        {"Effect": "Allow", "Action": "*", "NotAction": "*", "Resource": "*"},
        {"Effect": "Allow", "Action": "*", "Resource": 5},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": []},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {}}},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {"k": []}}},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {"k": 1.5}}},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"},
    ],
)
def test_what_is_no_statement(statement: Any) -> None:
    with pytest.raises(PolicyError):
        parse_policy(json.dumps({"Version": "2012-10-17", "Statement": [statement]}), "identity")


@settings(deadline=None)
@given(st.text(max_size=60) | st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(json.dumps))
def test_parsing_raises_nothing_else(text: str) -> None:
    with pytest.raises(PolicyError):
        parse_policy(text, "session")


def test_variables_need_the_newer_version() -> None:
    old = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::${aws:userid}"}}
    with pytest.raises(PolicyError):
        parse_policy(json.dumps(old), "identity")


@pytest.mark.parametrize(
    ("principal", "expected"),
    [({"Federated": "p"}, True), ({"Federated": ["q", "p"]}, True), ({"AWS": "p"}, False)],
)
def test_trust_statements_name_the_provider_exactly(principal: Any, expected: bool) -> None:
    raw = {"Effect": "Allow", "Action": "sts:TagSession", "Principal": principal}
    statement: Statement = parse_policy(
        json.dumps({"Version": "2012-10-17", "Statement": [raw]}), "trust"
    ).statements[0]
    assert statement.about("p") is expected
