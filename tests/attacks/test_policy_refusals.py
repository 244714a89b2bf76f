"""What the policy must say no to, each named after what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from credx.broker.person import Person, person_of
from credx.broker.policy import decide, roles_for
from credx.broker.policy.arn import parse_arn
from credx.broker.policy.file import load_policy, parse_policy
from credx.errors import ConfigError, Refusal
from credx.model import Denial, VerifiedClaims
from credx.protocol import Ask

if TYPE_CHECKING:
    from credx.broker.policy.rules import Policy

IDP = "https://idp.example.com"
CI = "https://ci.example.com"
FILE = Path(__file__).parents[1] / "unit" / "broker" / "data" / "policy.toml"
POLICY = load_policy(FILE)
ONE = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0aaaaaaaaaaaaaaaa"
SHELL = Ask(role="prod-ops", resources=(ONE,), operation="shell", reason="disk full")
JOB = {"repository": "shop/web", "repository_id": "4711", "environment": "production"}


def person(issuer: str = IDP, subject: str = "00u9", **claims: object) -> Person:
    verified = VerifiedClaims(
        issuer=issuer,
        subject=subject,
        audience="credx-cli",
        issued_at=1_000_000,
        expires_at=1_003_600,
        auth_time=None,
        amr=(),
        token_hash="0" * 64,
        claims=MappingProxyType({"iss": issuer, "sub": subject, **claims}),
    )
    return person_of(POLICY, verified)


def denied(ask: Ask, who: Person | None = None, policy: Policy = POLICY) -> Denial:
    answer = decide(policy, who or person(groups=["sre"]), ask)
    assert isinstance(answer, Denial), answer
    return answer


def asked(**more: Any) -> Ask:
    return dataclasses.replace(SHELL, **more)


def test_a_role_that_is_not_there_and_one_that_is_not_yours_look_the_same() -> None:
    nobody = person(groups=["sales"])
    absent, closed = denied(asked(role="nope"), nobody), denied(SHELL, nobody)
    assert (absent.code, absent.public) == (closed.code, closed.public)
    assert (absent.code, absent.public) == ("access_denied", "role is not available to you")
    assert absent.reason != closed.reason
    wrong_kind = denied(asked(role="prod-ops"), person(CI, "job", **JOB))
    assert (wrong_kind.code, wrong_kind.public) == (absent.code, absent.public)


def test_a_person_in_no_group_gets_nothing() -> None:
    nobody = person()
    assert roles_for(POLICY, nobody) == []
    assert all(denied(Ask(role=name), nobody).code == "access_denied" for name in POLICY.roles)


@pytest.mark.parametrize(
    "group", ["SRE", " sre", "sre ", "sr", "sre2", "/sre", "s\u200bre", "*", "", "deploy"]
)
def test_a_group_that_is_not_exactly_the_name(group: str) -> None:
    denied(SHELL, person(groups=[group]))


@pytest.mark.parametrize("subject", ["00U1", "00u1 ", " 00u1", "00u", "00u11"])
def test_a_subject_that_is_not_exactly_the_one(subject: str) -> None:
    assert person(subject=subject).groups == frozenset()


def test_a_subject_of_another_provider() -> None:
    assert person(CI, "00u1").groups == frozenset()


@pytest.mark.parametrize("subject", ["", "a\0b", "a\nb", "a\u202eb", "\ud800"])
def test_a_subject_that_cannot_be_shown(subject: str) -> None:
    with pytest.raises(Refusal) as caught:
        person(subject=subject)
    assert caught.value.code == "invalid_token"


@pytest.mark.parametrize(
    "claims",
    [
        {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://graph.example.com"}}},
        {"_claim_names": {"groups": "src1"}, "groups": ["sre"]},
        {"_claim_names": ["groups"]},
        {"hasgroups": True},
        {"hasgroups": "true"},
    ],
)  # fmt: skip
def test_group_overage_is_never_read_as_no_groups(claims: dict[str, object]) -> None:
    with pytest.raises(Refusal) as caught:
        person(**claims)
    assert caught.value.code == "access_denied"
    assert "left the list of groups out" in caught.value.public


@pytest.mark.parametrize(
    "groups", [{"sre": True}, 1, True, None, [["sre"]], ["sre", 1], [None], ["sre"] * 1001]
)
def test_groups_of_another_type(groups: object) -> None:
    with pytest.raises(Refusal) as caught:
        person(groups=groups)
    assert caught.value.code == "access_denied"


def test_a_ci_token_with_a_groups_claim_is_in_no_group_of_people() -> None:
    assert person(CI, "job", groups=["sre"]).groups == frozenset()


@pytest.mark.parametrize(
    "claims",
    [
        {"repository_id": "4711"},
        {"repository_id": "4711", "environment": "staging"},
        {"repository_id": 4711, "environment": "production"},
        {"repository_id": ["4711"], "environment": "production"},
        {"repository_id": "47110", "environment": "production"},
        {},
    ],
)
def test_a_workload_that_differs_in_one_claim(claims: dict[str, object]) -> None:
    assert person(CI, "job", **claims).groups == frozenset()


def test_a_person_with_the_claims_of_a_workload() -> None:
    assert person(**JOB).groups == frozenset()


def test_a_person_never_passes_as_a_workload() -> None:
    role = dataclasses.replace(POLICY.roles["deploy"], factors=("workload",))
    policy = dataclasses.replace(POLICY, roles={"deploy": role})
    denied(Ask(role="deploy"), policy=policy)
    assert roles_for(policy, person(groups=["sre"])) == []


def test_a_workload_never_touches_a_key() -> None:
    role = dataclasses.replace(POLICY.roles["deploy"], factors=("webauthn",))
    denied(Ask(role="deploy"), person(CI, "job", **JOB), dataclasses.replace(POLICY, roles={"deploy": role}))


@pytest.mark.parametrize(
    "operation",
    [
        "creds",
        "forward:evil.example.com:22",
        "forward:localhost.evil:22",
        "forward:localhost:evil:22",
        "shellx",
    ],
)
def test_an_operation_that_the_role_does_not_name(operation: str) -> None:
    assert denied(asked(operation=operation)).code == "access_denied"


@pytest.mark.parametrize(
    "resource",
    [
        "",
        "*",
        "i-0aaaaaaaaaaaaaaaa",
        "arn:aws:ec2:eu-central-1:111122223333:instance/*",
        "arn:aws:ec2:eu-central-1:111122223333:instance/i-?",
        "arn:aws:ec2:eu-central-1:111122223333:*",
        "arn:aws:ec2:eu-central-1:111122223333:instance/",
        "arn:aws:ec2:eu-central-1:111122223333:instance/i-0:",
        "arn:aws:ec2:eu-central-1:111122223333:instance/${aws:PrincipalTag/x}",
        'arn:aws:ec2:eu-central-1:111122223333:instance/i-0","*',
        "arn:aws:ec2:eu-central-1:111122223333:instance/i-0\n",
        "arn:aws:ec2:eu-central-1:111122223333:instance/i-0 ",
        "arn:aws:ec2:eu-central-1:111122223333:instance/i-\uff10",
        "arn:aws:ec2:eu-central-1:111122223333:instance/" + "i" * 257,
        "arn:aws:ec2:eu-central-1:999922223333:instance/i-0aaaaaaaaaaaaaaaa",
        "arn:aws:ec2:eu-central-1::instance/i-0aaaaaaaaaaaaaaaa",
        "arn:aws-cn:ec2:eu-central-1:111122223333:instance/i-0aaaaaaaaaaaaaaaa",
        "arn:aws:ec2:us-east-1:111122223333:instance/i-0aaaaaaaaaaaaaaaa",
        "arn:aws:ecs:eu-central-1:111122223333:instance/i-0aaaaaaaaaaaaaaaa",
        "arn:aws:ec2:eu-central-1:111122223333:volume/instance/i-0aaaaaaaaaaaaaaaa",
        "ARN:aws:ec2:eu-central-1:111122223333:instance/i-0aaaaaaaaaaaaaaaa",
    ],
)
def test_a_target_that_is_not_one_of_the_roles(resource: str) -> None:
    assert denied(asked(resources=(resource,))).code == "invalid_target"
    assert denied(asked(resources=(ONE, resource))).code == "invalid_target"  # Boulder 2020: each by itself
    assert denied(asked(resources=(resource, ONE))).code == "invalid_target"


def test_nothing_that_iam_reads_as_more_than_itself_is_an_arn() -> None:
    for mark in "*?${}\"'\\,<>|;&()[]%#!~^` \t\r\n\0":
        assert parse_arn(f"arn:aws:ec2:eu-central-1:111122223333:instance/i-0{mark}1") is None


def test_a_target_where_none_is_taken_and_none_where_one_is_needed() -> None:
    assert denied(Ask(role="deploy", resources=(ONE,))).code == "invalid_target"
    assert denied(asked(resources=())).code == "invalid_target"


def test_a_scope_of_another_role() -> None:
    assert denied(Ask(role="logs", scopes=("red",))).code == "invalid_scope"
    assert denied(Ask(role="logs", scopes=("read-logs", "red"))).code == "invalid_scope"
    assert denied(asked(scopes=("read-logs",))).code == "invalid_scope"


def test_no_scope_is_never_every_scope() -> None:
    no = denied(Ask(role="logs"))
    assert no.code == "invalid_scope"
    assert no.public == "pick a scope: list-logs, read-logs"


def test_scopes_whose_tags_contradict_each_other() -> None:
    assert denied(Ask(role="buckets", scopes=("red", "blue"))).code == "invalid_scope"


def test_statements_that_all_fall_away_are_never_no_session_policy() -> None:
    role = dataclasses.replace(
        POLICY.roles["prod-ops"],
        target="optional",
        statements=(dataclasses.replace(POLICY.roles["prod-ops"].statements[0], resources=("${target}",)),),
    )
    no = denied(asked(resources=()), policy=dataclasses.replace(POLICY, roles={"prod-ops": role}))
    assert no.code == "invalid_scope"
    assert "would be unrestricted" in no.reason


@pytest.mark.parametrize("reason", ["", " ", "\u2003"])
def test_a_reason_of_nothing(reason: str) -> None:
    assert denied(asked(reason=reason)).code == "invalid_request"


@pytest.mark.parametrize("duration", [0, -1, 1, 899, 3601, 43201, 10**9])
def test_a_duration_out_of_bounds(duration: int) -> None:
    assert denied(asked(duration=duration)).code == "invalid_request"


def test_more_targets_than_a_session_policy_can_name() -> None:
    many = tuple(f"{ONE[:-17]}{n:017x}" for n in range(50))
    no = denied(asked(resources=many))
    assert no.code == "invalid_scope"
    assert "2048" not in no.public
    assert "2048" in no.reason


def test_a_policy_with_nobody_or_nothing_in_it_does_not_load() -> None:
    good = FILE.read_text("utf-8")
    for text in ("version = 1\n", good[: good.index("[groups.sre]")], good[: good.index("[roles.prod-ops]")]):
        with pytest.raises(ConfigError):
            parse_policy(text)


def test_the_brokers_own_tags_cannot_be_set_by_a_policy() -> None:
    good = FILE.read_text("utf-8")
    for key in (
        "credx-role",
        "credx-factor",
        "credx-issuance",
        "credx-target",
        "CREDX-ROLE",
        "credx-anything",
        "aws:x",
    ):
        with pytest.raises(ConfigError, match="broker's"):
            parse_policy(good.replace("volume =", f'"{key}" ='))
