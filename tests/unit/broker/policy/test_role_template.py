"""What is printed for AWS: its shape, its bounds, and that it allows no more than the policy file says."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from support import statements as s

from credx.broker.mint import web_identity_token
from credx.broker.person import Person
from credx.broker.policy import decide as grant_or_not
from credx.broker.policy.role_permissions import permission_notes, permission_policy
from credx.broker.policy.role_template import max_session_duration, role_template, tag_keys, trust_policy
from credx.broker.policy.rules import BrokerSettings, Policy, Role, Statement
from credx.broker.signer import LocalSigner
from credx.errors import ConfigError
from credx.model import Grant
from credx.protocol import Ask
from credx.sandbox.aws.authorize import KNOWN
from credx.sandbox.aws.context import Context
from credx.sandbox.aws.evaluate import decide
from credx.sandbox.aws.policy import parse_policy

if TYPE_CHECKING:
    from collections.abc import Mapping

ISSUER = "https://credx.example.com/broker"
LOGS = Statement(effect="Allow", actions=("s3:GetObject",), resources=("arn:aws:s3:::logs/*",))
ON_TARGET = Statement(effect="Allow", actions=("ec2:StopInstances",), resources=("${target}",))


def policy(*roles: Role) -> Policy:
    settings = BrokerSettings(
        issuer=ISSUER, url=ISSUER, rp_id="credx.example.com", rp_name="credx", max_token_age=3600
    )
    named = {role.name: role for role in roles}
    return Policy(version="0" * 16, broker=settings, issuers={}, groups={}, roles=named)


def allowed(role: Role, tags: Mapping[str, str], request: s.Request) -> bool:
    values = {f"aws:PrincipalTag/{key}": value for key, value in tags.items()}
    values["aws:SecureTransport"] = "true" if request.secure else "false"
    document = parse_policy(json.dumps(permission_policy(role)), "identity")
    return decide(
        request.action, request.resource, Context(values, KNOWN), identity=[document], session=None
    ).allowed


def reached(role: Role, tag: str | None, resource: str) -> list[str]:
    """What ``${target}`` can stand for: targets whose last part the tag is, or any where the broker holds them."""
    brokered = role.sts == "broker"
    candidates = [resource[:end] for end in range(len(resource) + 1)] if brokered else s.TARGETS
    return [
        target
        for target in candidates
        if (brokered or (tag is not None and re.split("[/:]", target)[-1] == tag))
        and any(s.like(pattern, target) for pattern in role.targets)
    ]


@given(s.roles, st.data(), st.sampled_from([None, *s.TARGETS]), st.lists(s.requests, min_size=1, max_size=20))
def test_it_allows_what_the_policy_file_says_under_the_signed_tags_and_nothing_else(
    role: Role, data: st.DataObject, target: str | None, requests: list[s.Request]
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(sorted(role.scopes)), unique=True)) if role.scopes else []
    tag = None if target is None else re.split("[/:]", target)[-1]
    tags = {"credx-role": role.name} | ({"credx-target": tag} if tag else {})
    for name in chosen:
        tags |= role.scopes[name].tags
    held = [scope for scope in role.scopes.values() if scope.name in chosen or not scope.tags]
    told = [*role.statements, *(one for scope in held for one in scope.statements)]
    for request in requests:
        meant = s.told(told, reached(role, tag, request.resource), request)
        assert allowed(role, tags, request) == meant, request


@given(s.roles, s.requests, st.sampled_from([{}, {"credx-role": "other"}, {"credx-role": "PROD"}]))
def test_a_session_that_was_not_signed_for_the_role_may_do_nothing(
    role: Role, request: s.Request, tags: dict[str, str]
) -> None:
    assert not allowed(role, {"credx-target": "i-0aaa", "credx-scope-a": "on", **tags}, request)


def statements(role: Role) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = permission_policy(role)["Statement"]
    return found[1:]  # without the guard


def test_a_pattern_that_says_more_of_the_target_says_it_of_the_tag() -> None:
    rds = "arn:aws:rds:eu-central-1:111122223333:"
    role = s.role(targets=(rds + "db:dev-*", rds + "cluster:*"), statements=(ON_TARGET,))
    assert statements(role) == [
        {
            "Effect": "Allow",
            "Action": ["ec2:StopInstances"],
            "Resource": [rds + "db:${aws:PrincipalTag/credx-target}"],
            "Condition": {"StringLike": {"aws:PrincipalTag/credx-target": "dev-*"}},
        },
        {
            "Effect": "Allow",
            "Action": ["ec2:StopInstances"],
            "Resource": [rds + "cluster:${aws:PrincipalTag/credx-target}"],
        },
    ]


def test_a_scope_is_held_by_all_of_its_tags() -> None:
    scope = s.scope("a", [LOGS], {"one": "1", "two": "2"})
    (statement,) = statements(s.role(scopes={"a": scope}))
    held = {"aws:PrincipalTag/one": "1", "aws:PrincipalTag/two": "2"}
    assert statement["Condition"] == {"StringEquals": held}


@pytest.mark.parametrize("key", ["aws:PrincipalTag/one", "AWS:principaltag/ONE"])
def test_a_condition_is_never_replaced_by_another(key: str) -> None:
    told = dataclasses.replace(LOGS, conditions={"StringEquals": {key: ("2",)}})
    with pytest.raises(ConfigError, match="which the template does by itself"):
        permission_policy(s.role(scopes={"a": s.scope("a", [told], {"one": "1"})}))


@pytest.mark.parametrize(
    ("operations", "documents"),
    [
        (("creds",), []),
        (("shell",), ["111122223333:document/SSM-SessionManagerRunShell"]),
        (
            ("run",),
            [":document/AWS-StartNonInteractiveCommand", ":document/AWS-StartInteractiveCommand"],
        ),
        (("forward:localhost:*",), [":document/AWS-StartPortForwardingSession"]),
        (("forward:db.internal:5432",), [":document/AWS-StartPortForwardingSessionToRemoteHost"]),
        (
            ("forward:*:*",),
            [
                ":document/AWS-StartPortForwardingSession",
                ":document/AWS-StartPortForwardingSessionToRemoteHost",
            ],
        ),
    ],
)
def test_an_operation_opens_its_own_documents_alone(
    operations: tuple[str, ...], documents: list[str]
) -> None:
    role = s.role(operations=operations, targets=(s.HERE + "*",))
    found = [
        resource
        for statement in statements(role)
        if statement["Action"] == "ssm:StartSession"
        for resource in statement["Resource"]
        if ":document/" in resource
    ]
    assert found == [f"arn:aws:ssm:eu-central-1:{document}" for document in documents]
    checked = {"BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}}
    starts = [it for it in statements(role) if it["Action"] == "ssm:StartSession"]
    assert all(it["Condition"] == checked for it in starts)
    assert "SendCommand" not in json.dumps(permission_policy(role))


def test_session_manager_opens_what_it_knows_and_no_other_target() -> None:
    role = s.role(operations=("shell",), targets=s.PATTERNS)
    starts = [it for it in statements(role) if it["Action"] == "ssm:StartSession"]
    opened = [resource for it in starts for resource in it["Resource"] if ":document/" not in resource]
    tag = "${aws:PrincipalTag/credx-target}"
    assert opened == [
        s.HERE + tag, f"arn:aws:ssm:*:111122223333:managed-instance/{tag}", s.HERE + tag,
    ]  # fmt: skip
    assert starts[1]["Condition"]["StringLike"] == {"aws:PrincipalTag/credx-target": "i-0a*"}
    assert statements(s.role(operations=("shell",), target="none", targets=())) == []


def test_what_it_cannot_say_is_said() -> None:
    def notes(**more: Any) -> str:
        return "\n".join(permission_notes(s.role(**more)))

    plain = {"target": "none", "targets": ()}
    assert notes(statements=(LOGS,), **plain) == ""
    assert "allows nothing, add yours" in notes(**plain)
    assert "scope a has no tags" in notes(scopes={"a": s.scope("a", [LOGS], {})}, **plain)
    assert "scope a has no statements" in notes(scopes={"a": s.scope("a", [], {"t": "v"})}, **plain)
    several = {"statements": (ON_TARGET,), "targets": (s.HERE + "*",)}
    assert "several targets has no tag credx-target: it reaches none" in notes(**several)
    assert "the trust policy refuses it" in notes(**several, target="required")
    assert notes(**several, target="required", sts="broker") == ""
    assert "nothing of what is before it" in notes(statements=(ON_TARGET,))
    assert "nothing of what is before it" not in notes(statements=(ON_TARGET,), targets=(s.HERE + "*",))
    task = "arn:aws:ecs:eu-central-1:111122223333:task/*"
    assert f"{task}: the last * stands for one part" in notes(statements=(ON_TARGET,), targets=(task,))
    assert "shell is not allowed" in notes(operations=("shell",), targets=(task.replace("task", "service"),))
    assert "hosts and ports" in notes(operations=("forward:localhost:5432",))
    assert "hosts and ports" not in notes(operations=("forward:*:*",))
    assert "the session policy will not" in notes(operations=("shell",), statements=(LOGS,))


def test_the_trust_policy_pins_audience_role_factor_and_source_identity() -> None:
    role = s.role(target="required", factors=("webauthn", "totp"))
    login, tags, who = trust_policy(role, ISSUER)["Statement"]
    url = "credx.example.com/broker"
    for statement in (login, tags, who):
        assert statement["Principal"] == {"Federated": f"arn:aws:iam::111122223333:oidc-provider/{url}"}
        assert statement["Effect"] == "Allow"
    assert [it["Action"] for it in (login, tags, who)] == [
        "sts:AssumeRoleWithWebIdentity", "sts:TagSession", "sts:SetSourceIdentity",
    ]  # fmt: skip
    assert login["Condition"] == {
        "StringEquals": {
            f"{url}:aud": "credx:aws:111122223333",
            "aws:RequestTag/credx-role": "prod",
            "aws:RequestTag/credx-factor": ["webauthn", "totp"],
        },
        "StringLike": {f"{url}:sub": "role:prod:user:*"},
        "Null": {"sts:SourceIdentity": "false", "aws:RequestTag/credx-target": "false"},
        "Bool": {"sts:RoleAuthorizedByIdp": "true"},
    }
    assert tags["Condition"]["Null"] == {"aws:TagKeys": "false"}
    brokered = dataclasses.replace(role, sts="broker", statements=(ON_TARGET,))  # its session policy holds
    assert trust_policy(brokered, ISSUER)["Statement"][0]["Condition"]["Null"] == {
        "sts:SourceIdentity": "false"
    }
    alone = dataclasses.replace(role, sts="broker")  # its session policy says nothing of targets
    assert trust_policy(alone, ISSUER) == trust_policy(role, ISSUER)
    loose = trust_policy(dataclasses.replace(role, roles_claim=False, target="optional"), ISSUER)["Statement"]
    assert "Bool" not in loose[0]["Condition"]
    assert loose[0]["Condition"]["Null"] == {"sts:SourceIdentity": "false"}


def test_the_tag_keys_are_those_that_the_broker_signs() -> None:
    common = ["credx-role", "credx-factor", "credx-issuance"]
    scopes = {n: s.scope(n, [LOGS], {f"credx-scope-{n}": "on", "team": "x"}) for n in ("a", "b")}
    assert tag_keys(s.role(target="none", targets=())) == common
    assert tag_keys(s.role(scopes=scopes)) == [
        *common, "credx-target", "credx-scope-a", "credx-scope-b", "team",
    ]  # fmt: skip


def test_every_key_that_is_minted_is_allowed_and_the_other_way_round() -> None:
    scopes = {n: s.scope(n, [LOGS], {f"credx-scope-{n}": "on"}) for n in ("a", "b")}
    role = s.role(scopes=scopes)
    alice = Person(
        user_key="0" * 64, user="alice-0123456789abcdef", issuer="https://idp.example.com", subject="1",
        groups=frozenset({"sre"}), workload=False, amr=(), auth_time=None,
    )  # fmt: skip
    grant = grant_or_not(policy(role), alice, Ask(role="prod", resources=(s.TARGETS[0],), scopes=("a", "b")))
    assert isinstance(grant, Grant)
    token = web_identity_token(
        grant, alice, issuance="0" * 32, jti="j" * 20, factor_kind="webauthn", issuer=ISSUER,
        signer=LocalSigner(rsa.generate_private_key(65537, 2048)), now=1_800_000_000,
    )  # fmt: skip
    claims = json.loads(base64.urlsafe_b64decode(token.reveal().split(".")[1] + "=="))
    assert set(claims["https://aws.amazon.com/tags"]["principal_tags"]) == set(tag_keys(role))


def test_the_session_is_as_short_as_iam_lets_it_be() -> None:
    assert max_session_duration(s.role(duration=900, max_duration=900)) == 3600
    assert max_session_duration(s.role(max_duration=28_800)) == 28_800


def test_the_whole() -> None:
    role = s.role(statements=(LOGS,), target="none", targets=())
    made = role_template(policy(role), role)
    assert made.provider == {"url": ISSUER, "client_ids": ["credx:aws:111122223333"]}
    assert (made.role, made.max_session_duration, made.notes) == ("prod", 3600, ())
    assert made.trust_policy == trust_policy(role, ISSUER)
    assert made.permission_policy == permission_policy(role)


def test_another_role_of_the_same_arn_is_named() -> None:
    role = s.role(statements=(LOGS,), target="none", targets=())
    twin = dataclasses.replace(role, name="twin", arn=role.arn.upper().replace("ARN:AWS:IAM", "arn:aws:iam"))
    assert "twin" in "".join(role_template(policy(role, twin), role).notes)


def big(tags: int) -> Role:
    scopes = {f"s{n}": s.scope(f"s{n}", [], {f"{'t' * 110}{n}": "on"}) for n in range(tags)}
    return s.role(scopes=scopes, target="none", targets=())


def test_a_trust_policy_longer_than_the_quota_is_said_and_one_that_iam_never_takes_refused() -> None:
    small, large, huge = big(3), big(15), big(46)
    assert "quota" not in "".join(role_template(policy(small), small).notes)
    assert "raised to 4096" in "".join(role_template(policy(large), large).notes)
    with pytest.raises(ConfigError, match="IAM takes 4096"):
        role_template(policy(huge), huge)


def test_a_permission_policy_longer_than_iam_takes_is_refused() -> None:
    role = s.role(statements=(dataclasses.replace(LOGS, resources=("arn:aws:s3:::" + "x" * 6000,)),))
    with pytest.raises(ConfigError, match="IAM takes 6144") as caught:
        role_template(policy(role), role)
    assert caught.value.hint
