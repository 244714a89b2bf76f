from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.aws_limits import MAX_SESSION_POLICY
from credx.broker.person import Person, accepts_idp_mfa, person_of
from credx.broker.policy import decide, roles_for
from credx.broker.policy.arn import glob, is_pattern, matches, parse_arn, parse_role_arn
from credx.broker.policy.file import load_policy
from credx.broker.policy.session_policy import EXPIRY_ROOM, with_expiry
from credx.errors import Refusal
from credx.model import Denial, Grant, VerifiedClaims
from credx.protocol import Ask

if TYPE_CHECKING:
    from credx.broker.policy.rules import Policy

IDP = "https://idp.example.com"
CI = "https://ci.example.com"
ONE = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0aaaaaaaaaaaaaaaa"
TWO = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0bbbbbbbbbbbbbbbb"
POLICY = load_policy(Path(__file__).parents[1] / "data" / "policy.toml")


def claims(issuer: str = IDP, subject: str = "00u9", **more: object) -> VerifiedClaims:
    return VerifiedClaims(
        issuer=issuer,
        subject=subject,
        audience="credx-cli",
        issued_at=1_000_000,
        expires_at=1_003_600,
        auth_time=more.pop("auth_time", None),  # type: ignore[arg-type]
        amr=more.pop("amr", ()),  # type: ignore[arg-type]
        token_hash="0" * 64,
        claims=MappingProxyType({"iss": issuer, "sub": subject, **more}),
    )


def sre(**more: object) -> Person:
    return person_of(POLICY, claims(groups=["sre"], preferred_username="alice", **more))


def job(**more: object) -> Person:
    given = {"repository": "shop/web", "repository_id": "4711", "environment": "production", **more}
    return person_of(POLICY, claims(CI, "repo:shop/web:environment:production", **given))


def granted(ask: Ask, person: Person | None = None, policy: Policy = POLICY) -> Grant:
    answer = decide(policy, person or sre(), ask)
    assert isinstance(answer, Grant), answer
    return answer


def denied(ask: Ask, person: Person | None = None, policy: Policy = POLICY) -> Denial:
    answer = decide(policy, person or sre(), ask)
    assert isinstance(answer, Denial)
    return answer


def changed(name: str, **more: object) -> Policy:
    role = dataclasses.replace(POLICY.roles[name], **more)  # type: ignore[arg-type]
    return dataclasses.replace(POLICY, roles={**POLICY.roles, name: role})


SHELL = Ask(role="prod-ops", resources=(ONE,), operation="shell", reason="disk full")


def test_a_grant_carries_everything_that_is_minted() -> None:
    grant = granted(SHELL)
    assert grant == Grant(
        role="prod-ops",
        role_arn="arn:aws:iam::111122223333:role/prod-ops",
        account="111122223333",
        partition="aws",
        region="eu-central-1",
        resources=(ONE,),
        target="i-0aaaaaaaaaaaaaaaa",
        scopes=(),
        operation="shell",
        reason="disk full",
        duration=3600,
        session_policy=grant.session_policy,
        tags={},
        factors=("webauthn",),
        user_verification=True,
        factor_max_age=0,
        factor_group="prod-ops",
        sts="client",
        roles_claim=True,
    )
    assert json.loads(grant.session_policy or "") == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["ssm:StartSession"],
                "Resource": [ONE, "arn:aws:ssm:*::document/AWS-StartSSHSession"],
                "Condition": {"BoolIfExists": {"ssm:SessionDocumentAccessCheck": ["true"]}},
            }
        ],
    }


def test_several_targets_are_all_in_the_session_policy_and_none_is_the_tag() -> None:
    grant = granted(dataclasses.replace(SHELL, resources=(TWO, ONE)))
    assert grant.resources == (ONE, TWO)
    assert grant.target is None
    assert json.loads(grant.session_policy or "")["Statement"][0]["Resource"][:2] == [ONE, TWO]


@pytest.mark.parametrize("operation", ["forward:localhost:5432", "run"])
def test_operations_that_the_role_names(operation: str) -> None:
    assert granted(dataclasses.replace(SHELL, operation=operation)).operation == operation


def test_the_word_forward_means_every_address() -> None:
    assert granted(Ask(role="buckets", operation="forward:db.internal:5432")).operation


def test_durations() -> None:
    assert granted(Ask(role="logs", scopes=("read-logs",))).duration == 1800
    assert granted(Ask(role="logs", scopes=("read-logs",), duration=28800)).duration == 28800
    assert granted(Ask(role="logs", scopes=("read-logs",), duration=900)).duration == 900
    assert granted(Ask(role="buckets")).duration == 3600  # the default, capped by max_duration


def test_scopes_add_their_statements_and_their_tags() -> None:
    grant = granted(Ask(role="logs", scopes=("read-logs", "list-logs")))
    assert grant.scopes == ("list-logs", "read-logs")
    assert [s["Action"] for s in json.loads(grant.session_policy or "")["Statement"]] == [
        ["s3:ListBucket"],
        ["s3:GetObject"],
    ]
    assert grant.tags == {"credx-scope-logs": "read"}


def test_default_scopes_are_taken_when_none_is_asked() -> None:
    assert granted(Ask(role="buckets")).tags == {"bucket": "red"}
    assert granted(Ask(role="buckets", scopes=("blue", "loud"))).tags == {"bucket": "blue", "volume": "11"}


def test_without_scopes_in_the_role_there_is_no_session_policy() -> None:
    assert granted(Ask(role="deploy")).session_policy is None


def test_a_person_and_a_workload_use_the_factors_of_their_kind() -> None:
    assert granted(Ask(role="deploy"), sre()).factors == ("webauthn",)
    assert granted(Ask(role="deploy"), job()).factors == ("workload",)


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("alice@example.com", "alice@example.com"),
        ("Zoë Müller", "Zo-M-ller"),
        ("aws:alice", "aws-alice"),
        ("*", "user"),
        ("", "user"),
        (None, "user"),
        (["alice"], "user"),
        ("a" * 300, "a" * 38),
        ("\u202ealice\n", "alice"),
    ],
)
def test_the_readable_name(name: object, user: str) -> None:
    person = person_of(POLICY, claims(preferred_username=name))
    assert person.user == f"{user}-{person.user_key[:16]}"
    assert len(person.user) <= 55


@given(
    st.text() | st.none() | st.integers(),
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1),
)
def test_the_readable_name_always_fits_aws(name: object, subject: str) -> None:
    import re

    person = person_of(POLICY, claims(subject=subject, preferred_username=name))
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{2,64}", person.user)
    assert re.fullmatch(r"[0-9a-f]{64}", person.user_key)


def test_two_people_never_share_a_key() -> None:
    keys = {person_of(POLICY, claims(i, s)).user_key for i in (IDP, CI) for s in ("a", "A", "a ", "b")}
    assert len(keys) == 8


def test_groups_come_from_claims_from_identity_and_from_workload_claims() -> None:
    assert sre().groups == {"sre"}
    assert person_of(POLICY, claims(groups="platform-oncall")).groups == {"sre"}
    assert person_of(POLICY, claims(subject="00u1")).groups == {"sre"}
    assert job().groups == {"deploy"}
    assert person_of(POLICY, claims()).groups == frozenset()


def test_mfa_of_the_provider_counts_only_when_allowed_attested_and_fresh() -> None:
    now = 1_000_000
    assert accepts_idp_mfa(POLICY, sre(amr=("pwd", "mfa"), auth_time=now - 300), now)
    assert not accepts_idp_mfa(POLICY, sre(amr=("pwd", "mfa"), auth_time=now - 301), now)
    assert not accepts_idp_mfa(POLICY, sre(amr=("pwd", "mfa"), auth_time=now + 61), now)
    assert not accepts_idp_mfa(POLICY, sre(amr=("pwd",), auth_time=now), now)
    assert not accepts_idp_mfa(POLICY, sre(amr=("mfa",)), now)
    assert not accepts_idp_mfa(POLICY, job(amr=("mfa",), auth_time=now), now)


def test_the_listing_says_what_enforces_each_role_and_scope() -> None:
    listed = {role["name"]: role for role in roles_for(POLICY, sre())}
    assert {name: role["enforcement"] for name, role in listed.items()} == {
        "prod-ops": "signed",
        "logs": "trust-policy",
        "buckets": "trust-policy",
        "deploy": "broker",
    }
    assert {s["name"]: s["enforcement"] for r in listed.values() for s in r["scopes"]} == {
        "read-logs": "signed+narrowing",
        "list-logs": "narrowing",
        "red": "signed",
        "blue": "signed",
        "loud": "signed",
    }
    json.dumps(list(listed.values()))
    assert listed["prod-ops"]["requires_target"] is True
    assert listed["prod-ops"]["requires_reason"] is True


def test_the_listing_is_what_a_person_may_have() -> None:
    assert [role["name"] for role in roles_for(POLICY, job())] == ["deploy"]
    assert roles_for(POLICY, job())[0]["factors"] == ["workload"]
    assert roles_for(POLICY, person_of(POLICY, claims())) == []


def test_the_expiry_of_a_broker_session_is_a_deny() -> None:
    document = json.loads(with_expiry(None, 1_800_000_000))
    assert document["Statement"] == [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"DateGreaterThanEquals": {"aws:CurrentTime": "2027-01-15T08:00:00Z"}},
        },
    ]
    grant = granted(Ask(role="logs", scopes=("read-logs",)), policy=changed("logs", sts="broker"))
    closed = with_expiry(grant.session_policy, 1_800_000_000)
    assert len(closed) == len(grant.session_policy or "") + EXPIRY_ROOM
    assert json.loads(closed)["Statement"][:-1] == json.loads(grant.session_policy or "")["Statement"]


def test_a_broker_session_policy_leaves_room_for_its_expiry() -> None:
    many = tuple(f"{ONE[:-17]}{n:017x}" for n in range(26))
    fits = [
        n
        for n in range(1, 27)
        if isinstance(decide(POLICY, sre(), dataclasses.replace(SHELL, resources=many[:n])), Grant)
    ]
    broker = changed("prod-ops", sts="broker")
    less = [
        n
        for n in range(1, 27)
        if isinstance(decide(broker, sre(), dataclasses.replace(SHELL, resources=many[:n])), Grant)
    ]
    assert max(less) < max(fits)
    grant = granted(dataclasses.replace(SHELL, resources=many[: max(less)]), policy=broker)
    assert len(with_expiry(grant.session_policy, 2_000_000_000)) <= MAX_SESSION_POLICY


# one list never gets what its members would not get


INSTANCES = st.sampled_from(
    [
        ONE,
        TWO,
        ONE.replace("eu-central-1", "us-east-1"),
        ONE.replace("111122223333", "999922223333"),
        ONE.replace("arn:aws:", "arn:aws-cn:"),
        "arn:aws:ecs:eu-central-1:111122223333:task/main/0123456789abcdef",
        "arn:aws:ecs:eu-central-1:111122223333:task/other/0123456789abcdef",
        "arn:aws:ec2:eu-central-1:111122223333:instance/*",
        "arn:aws:ec2:eu-central-1:111122223333:instance/i-0?",
        "arn:aws:ec2:eu-central-1:111122223333:instance/${aws:username}",
        "arn:aws:s3:::bucket",
        "",
        "instance/i-0aaaaaaaaaaaaaaaa",
    ]
)
SCOPES = st.lists(st.sampled_from(["red", "blue", "loud", "read-logs", "list-logs", "nope"]), unique=True)
ASKS = st.builds(
    Ask,
    role=st.sampled_from(["prod-ops", "logs", "buckets", "deploy", "nope"]),
    resources=st.lists(INSTANCES, unique=True, max_size=4).map(tuple),
    scopes=SCOPES.map(tuple),
    operation=st.sampled_from(["creds", "shell", "run", "forward:localhost:22", "forward:evil:22"]),
    duration=st.none() | st.integers(0, 50000),
    reason=st.sampled_from(["", " ", "because"]),
)


@given(ASKS, INSTANCES)
def test_one_more_resource_never_turns_a_no_into_a_yes(ask: Ask, more: str) -> None:
    wider = dataclasses.replace(ask, resources=(*ask.resources, more))
    if ask.resources and isinstance(decide(POLICY, sre(), ask), Denial):
        assert isinstance(decide(POLICY, sre(), wider), Denial)


@given(ASKS, st.sampled_from(["red", "blue", "loud", "read-logs", "list-logs", "nope"]))
def test_one_more_scope_never_turns_a_no_into_a_yes(ask: Ask, more: str) -> None:
    wider = dataclasses.replace(ask, scopes=(*ask.scopes, more))
    if ask.scopes and isinstance(decide(POLICY, sre(), ask), Denial):
        assert isinstance(decide(POLICY, sre(), wider), Denial)


@given(ASKS)
def test_a_list_gets_only_what_each_of_it_would_get(ask: Ask) -> None:
    answer = decide(POLICY, sre(), ask)
    if isinstance(answer, Denial):
        return
    whole = _statements(answer)
    parts: list[str] = []
    for resource in ask.resources or (None,):
        for scope in ask.scopes or (None,):
            alone = dataclasses.replace(
                ask,
                resources=() if resource is None else (resource,),
                scopes=() if scope is None else (scope,),
            )
            single = granted(alone)
            assert set(single.tags.items()) <= set(answer.tags.items())
            parts += _statements(single)
    assert set(whole) == set(parts)


def _statements(grant: Grant) -> list[str]:
    """One text per allowed (action, resource), so that two grants can be compared."""
    if grant.session_policy is None:
        return []
    return [
        json.dumps([s["Effect"], action, resource, s.get("Condition")])
        for s in json.loads(grant.session_policy)["Statement"]
        for action in s["Action"]
        for resource in s["Resource"]
    ]


@given(ASKS)
def test_every_grant_is_within_the_role(ask: Ask) -> None:
    answer = decide(POLICY, sre(), ask)
    if isinstance(answer, Denial):
        assert answer.public
        assert answer.reason
        return
    role = POLICY.roles[ask.role]
    assert 900 <= answer.duration <= role.max_duration
    assert set(answer.scopes) <= set(role.scopes)
    assert all(f":{role.account}:" in r and "*" not in r for r in answer.resources)
    assert (answer.session_policy is not None) >= role.narrows
    assert len(answer.session_policy or "") <= MAX_SESSION_POLICY


# ARNs


@pytest.mark.parametrize(
    "text",
    [ONE, "arn:aws:s3:::bucket/key", "arn:aws-us-gov:ecs:us-gov-west-1:111122223333:task/c/0a", "arn:aws:ssm:eu-central-1:111122223333:managed-instance/mi-0a"],
)  # fmt: skip
def test_whole_arns(text: str) -> None:
    assert parse_arn(text)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("arn:aws:ec2:*:1:instance/*", "arn:aws:ec2:eu:1:instance/i", True),
        ("arn:aws:ec2:*:1:instance/*", "arn:aws:ec2:eu:1:instance/", True),
        ("arn:aws:ec2:*:1:instance/*", "arn:aws:ec2:eu:x:1:instance/i", False),
        ("arn:aws:ec2:eu:1:instance/i-1", "arn:aws:ec2:eu:1:instance/i-12", False),
        ("arn:aws:ec2:eu:1:instance/i-1", "xarn:aws:ec2:eu:1:instance/i-1", False),
        ("arn:aws:ec2:eu:1:instance/a*b*c", "arn:aws:ec2:eu:1:instance/aXbXbXc", True),
        ("arn:aws:ec2:eu:1:instance/a*b*c", "arn:aws:ec2:eu:1:instance/aXcXb", False),
        ("arn:aws:ec2:eu:1:instance/a*aa", "arn:aws:ec2:eu:1:instance/aa", False),
        ("arn:aws:ec2:eu:1:instance/i.1", "arn:aws:ec2:eu:1:instance/ix1", False),
        (
            "arn:aws:ec2:eu:1:instance/*",
            "arn:aws:ec2:eu:1:instance/i\n",
            True,
        ),  # parse_arn has refused it before
        ("creds", "credsx", False),
    ],
)
def test_the_matcher_is_anchored_and_keeps_to_its_field(pattern: str, text: str, found: bool) -> None:
    assert matches(pattern, text) is found


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_the_matcher_agrees_with_fnmatch(pattern: str, text: str) -> None:
    from fnmatch import fnmatchcase

    assert glob(pattern, text) == fnmatchcase(text, pattern)


def test_the_matcher_takes_no_time_on_nasty_patterns() -> None:
    assert not glob("*a" * 60 + "b", "a" * 2000)


def test_patterns_and_role_arns() -> None:
    assert is_pattern("arn:aws:ec2:*:111122223333:instance/*")
    assert not is_pattern("arn:aws:ec2:eu:*:instance/*")
    assert not is_pattern("arn:*:ec2:eu:111122223333:instance/*")
    assert parse_role_arn("arn:aws:iam::111122223333:role/teams/buckets") == (
        "aws",
        "111122223333",
        "buckets",
    )
    assert parse_role_arn("arn:aws:iam::111122223333:role/*") is None
    assert parse_role_arn("arn:aws:iam::111122223333:user/x") is None


def test_a_person_of_an_unknown_issuer_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        person_of(POLICY, claims("https://idp.example.com/"))
    assert caught.value.code == "invalid_token"
