"""``explain`` tells what ``decide`` does: the same walk, and never another verdict."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.broker.person import suppose
from credx.broker.policy import RULES, decide, walk
from credx.broker.policy.explain import ACCESS, ENROLLED, IDENTITY, Explanation, Standing, explain
from credx.broker.policy.file import load_policy
from credx.model import Denial, Grant
from credx.protocol import Ask

IDP = "https://idp.example.com"
CI = "https://ci.example.com"
JOB = {"repository_id": "4711", "environment": "production"}
ONE = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0aaaaaaaaaaaaaaaa"
POLICY = load_policy(Path(__file__).parents[1] / "data" / "policy.toml")
SHELL = Ask(role="prod-ops", resources=(ONE,), operation="shell", reason="disk full")
KEY = Standing(disabled=False, factors=(("webauthn", "blue"), ("totp", "phone")), codes_locked=False)


def told(ask: Ask, issuer: str = IDP, standing: Standing | None = None, **claims: Any) -> Explanation:
    given = claims or {"groups": ["sre"]}
    return explain(POLICY, ask, issuer=issuer, subject="00u9", claims=given, standing=standing)


def failed(found: Explanation) -> str:
    (step,) = [step for step in found.steps if step.passed is False]
    assert found.why_not == f"{step.rule}: {step.text}"
    return found.why_not


def test_a_yes_says_what_the_session_would_hold() -> None:
    found = told(SHELL)
    assert found.granted
    assert found.why_not == ""
    assert [step.rule for step in found.steps] == [IDENTITY, *RULES]
    assert all(step.passed for step in found.steps)
    session = found.session
    assert session is not None
    assert session["session_policy"]["Statement"][0]["Resource"][0] == ONE
    assert session | {"session_policy": None} == {
        "role_arn": "arn:aws:iam::111122223333:role/prod-ops",
        "region": "eu-central-1",
        "duration": 3600,
        "tags": {"credx-role": "prod-ops", "credx-target": "i-0aaaaaaaaaaaaaaaa"},
        "session_policy": None,
        "factors": ["webauthn"],
        "proof_serves": 0,
        "enforcement": "signed",
        "scopes": [],
    }
    logs = told(Ask(role="logs", scopes=("read-logs",))).session
    assert logs is not None
    assert (logs["proof_serves"], logs["scopes"]) == (
        28800,
        [{"name": "read-logs", "enforcement": "signed+narrowing"}],
    )
    json.dumps(logs)


@pytest.mark.parametrize(
    ("more", "rule", "said"),
    [
        ({"role": "nope"}, "role", "role is not available to you (no such role)"),
        ({"role": "prod-ops", "groups": ["x"]}, "role", "in none of the role's groups); it takes sre"),
        ({"operation": "creds"}, "operation", "it takes forward:localhost:*, run, shell"),
        ({"resources": ()}, "target", "this role is for a target: name one; it takes arn:"),
        ({"resources": (ONE, ONE.replace("1111", "2222", 1))}, "target", "not in the role's account"),
        ({"role": "logs", "resources": (), "operation": "creds"}, "scope", "pick a scope"),
        ({"role": "logs", "resources": (), "operation": "creds", "scopes": ("x",)}, "scope", "it takes list-logs, read-logs"),
        ({"reason": " "}, "reason", "this role asks for a reason"),
        ({"duration": 3601}, "duration", "the duration must be 900 to 3600 seconds (3601 s)"),
        ({"role": "buckets", "resources": (), "operation": "creds", "scopes": ("blue", "red")}, "tags", "two values of the tag bucket"),
        ({"resources": tuple(f"{ONE[:-17]}{n:017x}" for n in range(50))}, "session policy", "2048 are possible"),
    ],
)  # fmt: skip
def test_a_no_says_which_rule_and_what_it_would_take(more: dict[str, Any], rule: str, said: str) -> None:
    groups = more.pop("groups", ["sre"])
    values = {"role": "prod-ops", "resources": (ONE,), "operation": "shell", "reason": "x", **more}
    found = told(Ask(**values), groups=groups)
    assert failed(found).startswith(f"{rule}: ")
    assert said in failed(found)
    at = [step.rule for step in found.steps].index(rule)
    assert all(step.passed for step in found.steps[:at])
    assert all(step.passed is None for step in found.steps[at + 1 :])
    assert [step.rule for step in found.steps] == [IDENTITY, *RULES]
    assert found.session is None


def test_a_factor_of_the_wrong_kind() -> None:
    role = dataclasses.replace(POLICY.roles["deploy"], factors=("workload",))
    policy = dataclasses.replace(POLICY, roles={"deploy": role})
    found = explain(policy, Ask(role="deploy"), issuer=IDP, subject="s", claims={"groups": ["sre"]})
    assert failed(found).startswith("factor: ")
    assert "no factor of the role serves a person); it takes workload" in failed(found)


def test_an_identity_that_the_broker_would_not_take() -> None:
    found = explain(POLICY, SHELL, issuer="https://nobody.example.com", subject="s", claims={}, standing=KEY)
    assert failed(found) == "identity: the identity provider is not trusted here"
    assert [step.passed for step in found.steps][1:] == [None] * (len(RULES) + 2)
    assert (found.user, found.groups) == (None, ())
    overage = told(SHELL, hasgroups=True)
    assert "left the list of groups out" in failed(overage)


def test_what_the_store_knows_comes_where_the_broker_looks_at_it() -> None:
    found = told(SHELL, standing=KEY)
    assert [step.rule for step in found.steps] == [IDENTITY, ACCESS, *RULES, ENROLLED]
    assert found.granted
    assert found.steps[-1].text == "blue (webauthn)"
    shut_out = told(SHELL, standing=KEY._replace(disabled=True))
    assert failed(shut_out) == "access: disabled"
    assert [step.passed for step in shut_out.steps][2:] == [None] * (len(RULES) + 1)
    bare = told(SHELL, standing=KEY._replace(factors=(("totp", "phone"),)))
    assert failed(bare) == "enrolled: no webauthn is enrolled"
    assert not bare.granted


def test_locked_codes_matter_where_codes_are_all_there_is() -> None:
    ask = Ask(role="logs", scopes=("read-logs",))
    locked = KEY._replace(codes_locked=True)
    assert told(ask, standing=locked).granted
    assert "locked" in failed(told(ask, standing=locked._replace(factors=(("totp", "phone"),))))


def test_a_job_shows_its_token_alone() -> None:
    found = told(Ask(role="deploy"), CI, Standing(disabled=False, factors=(), codes_locked=False), **JOB)
    assert found.granted
    assert found.steps[0].text == "a job, in deploy"


ASKS = st.builds(
    Ask,
    role=st.sampled_from(["prod-ops", "logs", "buckets", "deploy", "nope", ""]),
    resources=st.lists(
        st.sampled_from([ONE, ONE.replace("eu-", "us-"), ONE + "*", "", ONE.replace("3333", "4444")]),
        unique=True, max_size=3,
    ).map(tuple),
    scopes=st.lists(st.sampled_from(["red", "blue", "loud", "read-logs", "list-logs", "x"]), unique=True).map(tuple),
    operation=st.sampled_from(["creds", "shell", "run", "forward:localhost:22", "forward:evil:22", ""]),
    duration=st.none() | st.integers(0, 50000),
    reason=st.sampled_from(["", " ", "because"]),
)  # fmt: skip
PEOPLE = st.sampled_from(
    [(IDP, {"groups": ["sre"]}), (IDP, {"groups": ["x"]}), (IDP, {}), (CI, JOB), (CI, {})]
)


@given(ASKS, PEOPLE)
def test_the_verdict_is_that_of_decide(ask: Ask, who: tuple[str, dict[str, Any]]) -> None:
    issuer, claims = who
    person = suppose(POLICY, issuer, "00u9", claims)
    answer = decide(POLICY, person, ask)
    found = explain(POLICY, ask, issuer=issuer, subject="00u9", claims=claims)
    assert found.granted == isinstance(answer, Grant)
    steps = [step for step in found.steps if step.rule != IDENTITY]
    assert [step.rule for step in steps] == list(RULES)
    if isinstance(answer, Denial):
        assert [step.passed for step in steps].count(False) == 1
        assert answer.public in found.why_not
        assert answer.reason in found.why_not
    else:
        assert found.session is not None
        assert found.session["duration"] == answer.duration
        text = found.session["session_policy"]
        assert text == (None if answer.session_policy is None else json.loads(answer.session_policy))


@given(ASKS, PEOPLE)
def test_a_grant_has_passed_every_rule_and_a_denial_all_before_its_own(
    ask: Ask, who: tuple[str, dict[str, Any]]
) -> None:
    answer, passed = walk(POLICY, suppose(POLICY, who[0], "s", who[1]), ask)
    assert (len(passed) == len(RULES)) == isinstance(answer, Grant)
    assert all(passed)
