"""The generated trust policy at the strict STS: the broker's own token for the role gets in, nothing else does.

Every token here has the broker's own signature: what is refused is what a fault of the broker, a token for
something else or a client of one's own would ask for.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import rsa
from support import statements as s
from support.aws import put_role, register_provider

from credx.broker.mint import ROLES, SOURCE_IDENTITY, TAGS, audience, web_identity_token
from credx.broker.person import Person
from credx.broker.policy import decide
from credx.broker.policy.role_template import role_template
from credx.broker.policy.rules import BrokerSettings, Policy, Statement
from credx.broker.signer import LocalSigner
from credx.jose import sign_jwt
from credx.model import Grant
from credx.protocol import Ask
from credx.sandbox.aws.front import AwsFront

if TYPE_CHECKING:
    from collections.abc import Iterator

ISSUER = "http://localhost:4998"
SIGNER = LocalSigner(rsa.generate_private_key(65537, 2048))
LOGS = Statement(effect="Allow", actions=("s3:GetObject",), resources=("arn:aws:s3:::logs/*",))
SCOPE = s.scope("read", [LOGS], {"credx-scope-read": "logs"})
PLAIN: dict[str, Any] = {"target": "none", "targets": ()}
ROLE_LIST = (
    s.role("logs", scopes={"read": SCOPE}, default_scopes=("read",), **PLAIN),
    s.role("logs2", scopes={"read": SCOPE}, default_scopes=("read",), **PLAIN),
    s.role("shell", target="required", targets=(s.HERE + "*",), operations=("shell",), roles_claim=False),
)
POLICY = Policy(
    version="0" * 16,
    broker=BrokerSettings(
        issuer=ISSUER, url=ISSUER, rp_id="localhost", rp_name="credx", max_token_age=3600
    ),
    issuers={},
    groups={},
    roles={role.name: role for role in ROLE_LIST},
)  # fmt: skip
ALICE = Person(
    user_key="0" * 64, user="alice-0123456789abcdef", issuer="https://idp.example.com", subject="1",
    groups=frozenset({"sre"}), workload=False, amr=(), auth_time=None,
)  # fmt: skip
TARGET = s.HERE + "i-0123456789abcdef0"


@pytest.fixture(scope="module")
def aws() -> Iterator[AwsFront]:
    documents = {
        f"{ISSUER}/.well-known/openid-configuration": {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"},
        f"{ISSUER}/jwks": {"keys": [SIGNER.public_jwk()]},
    }
    with AwsFront(account="111122223333", fetch=lambda url: json.dumps(documents[url]).encode()) as front:
        register_provider(front, ISSUER, [audience(ROLE_LIST[0]), "credx:aws:444455556666"])
        for role in ROLE_LIST:
            made = role_template(POLICY, role)
            put_role(
                front, role.arn, trust=made.trust_policy, policies={"permissions": made.permission_policy},
                max_session=made.max_session_duration,
            )  # fmt: skip
        yield front


def minted(role: str, *, factor: str = "webauthn", person: Person = ALICE) -> dict[str, Any]:
    """The claims of the broker's own token."""
    resources = (TARGET,) if role == "shell" else ()
    ask = Ask(role=role, resources=resources, operation="shell" if resources else "creds")
    grant = decide(POLICY, person, ask)
    assert isinstance(grant, Grant), grant
    token = web_identity_token(
        dataclasses.replace(grant, factors=("webauthn", "totp", "workload")), person, issuance="0" * 32,
        jti="j" * 20, factor_kind=factor, issuer=ISSUER, signer=SIGNER, now=time.time(),
    )  # fmt: skip
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.reveal().split(".")[1] + "=="))
    return claims


def assume(aws: AwsFront, claims: dict[str, Any], role: str, name: str = "alice-0123456789abcdef-1") -> Any:
    client = boto3.client(
        "sts", region_name="eu-central-1", endpoint_url=aws.url,
        config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
    )  # fmt: skip
    return client.assume_role_with_web_identity(
        RoleArn=POLICY.roles[role].arn,
        RoleSessionName=name,
        WebIdentityToken=sign_jwt(claims, signer=SIGNER).reveal(),
    )["Credentials"]


def refused(aws: AwsFront, claims: dict[str, Any], role: str = "logs", code: str = "AccessDenied") -> None:
    with pytest.raises(ClientError) as caught:
        assume(aws, claims, role)
    assert caught.value.response["Error"]["Code"] == code


def tagged(claims: dict[str, Any], **tags: str | None) -> dict[str, Any]:
    """``_`` in a name stands for ``-``; None takes a tag away."""
    principal = dict(claims[TAGS]["principal_tags"])
    for name, value in tags.items():
        key = name.replace("_", "-")
        principal.pop(key, None)
        principal |= {key: [value]} if value is not None else {}
    return {**claims, TAGS: {"principal_tags": principal, "transitive_tag_keys": ["credx-issuance"]}}


@pytest.mark.parametrize("role", ["logs", "logs2", "shell"])
def test_the_brokers_own_token_gets_in(aws: AwsFront, role: str) -> None:
    assert assume(aws, minted(role), role)


def test_a_token_for_another_account_is_refused(aws: AwsFront) -> None:
    refused(aws, minted("logs") | {"aud": "credx:aws:444455556666"})


def test_a_token_for_another_role_is_refused(aws: AwsFront) -> None:
    refused(aws, minted("logs2"), code="InvalidIdentityToken")  # by the roles claim
    other = minted("logs2") | {ROLES: [POLICY.roles["logs"].arn]}
    refused(aws, other)  # and without it by sub
    refused(aws, tagged(other, credx_role="logs"))
    refused(aws, other | {"sub": minted("logs")["sub"]})  # and by the tag
    shell = minted("logs") | {ROLES: [POLICY.roles["shell"].arn]}
    refused(aws, tagged(shell, credx_target="i-1", credx_scope_read=None), "shell")


@pytest.mark.parametrize(
    "subject", ["role:logs", "role:logs:user", "role:logs2:user:a", "x:role:logs:user:a"]
)
def test_a_subject_that_only_looks_like_the_roles_is_refused(aws: AwsFront, subject: str) -> None:
    refused(aws, minted("logs") | {"sub": subject})


def test_a_factor_that_the_role_does_not_take_is_refused(aws: AwsFront) -> None:
    refused(aws, minted("logs", factor="totp"))
    refused(aws, minted("logs", factor="workload"))


def test_a_token_that_names_no_factor_is_refused(aws: AwsFront) -> None:
    refused(aws, tagged(minted("logs"), credx_factor=None))


def test_a_token_without_a_source_identity_is_refused(aws: AwsFront) -> None:
    claims = minted("logs")
    del claims[SOURCE_IDENTITY]
    refused(aws, claims)


def test_a_token_without_the_roles_claim_is_refused_where_the_policy_asks_for_it(aws: AwsFront) -> None:
    claims, shell = minted("logs"), minted("shell")
    del claims[ROLES], shell[ROLES]
    refused(aws, claims)
    assert assume(aws, shell, "shell")  # roles_claim = false: then the trust policy alone holds it


@pytest.mark.parametrize("key", ["admin", "credx_target", "credx_scope_write", "Credx_scope_read2"])
def test_a_tag_that_the_broker_does_not_sign_for_this_role_is_refused(aws: AwsFront, key: str) -> None:
    refused(aws, tagged(minted("logs"), **{key: "logs"}))


def test_a_token_without_any_tag_is_refused(aws: AwsFront) -> None:
    claims = minted("logs")
    del claims[TAGS]
    refused(aws, claims)


def test_a_token_without_a_target_is_refused_where_one_is_required(aws: AwsFront) -> None:
    refused(aws, tagged(minted("shell"), credx_target=None), "shell")


def test_nobody_resumes_or_ends_the_session_of_another_person(aws: AwsFront) -> None:
    """Whatever name the client gives its own session: the source identity is signed, the name is not."""
    keys = assume(aws, minted("shell"), "shell", name="bob-0123456789abcdef-89abcdef")
    ssm = boto3.client(
        "ssm", region_name="eu-central-1", endpoint_url=aws.url, aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"], aws_session_token=keys["SessionToken"],
        config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip

    def answer(call: Any, session: str) -> str:
        with pytest.raises(ClientError) as caught:
            call(SessionId=session)
        code: str = caught.value.response["Error"]["Code"]
        return code

    for call in (ssm.resume_session, ssm.terminate_session):
        assert answer(call, "bob-0123456789abcdef-89abcdef-0a1b2c3d4e5f6a7b8") == "AccessDeniedException"
        assert answer(call, f"{ALICE.user}-89abcdef-0a1b2c3d4e5f6a7b8") == "DoesNotExistException"
