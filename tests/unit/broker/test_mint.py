import re
import string
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import RSAKey

from credx.aws_limits import TOKEN_RANGE
from credx.broker.mint import (
    AMR,
    ROLES,
    SOURCE_IDENTITY,
    TAGS,
    TOKEN_LIFE,
    session_name,
    web_identity_token,
)
from credx.broker.person import Person, person_of
from credx.broker.policy.rules import BrokerSettings, IssuerRule, Policy
from credx.broker.signer import LocalSigner
from credx.jose import TrustedIssuer
from credx.model import Grant, Secret, VerifiedClaims

NOW = 1_800_000_000.75
ISSUER = "https://credx.example.com"
ISSUANCE = "0123456789abcdef0123456789abcdef"
JTI = "jti-0123456789abcdef"
SIGNER = LocalSigner(rsa.generate_private_key(65537, 2048))
VERIFIER = RSAKey.import_key({**SIGNER.public_jwk()})

ADA = Person(
    user_key="ab" * 32,
    user="ada@example.com-abababab",
    issuer="https://idp.example.com",
    subject="ada",
    groups=frozenset({"sre"}),
    workload=False,
    amr=("pwd",),
    auth_time=None,
)
GRANT = Grant(
    role="prod-ops",
    role_arn="arn:aws:iam::111122223333:role/prod-ops",
    account="111122223333",
    partition="aws",
    region="eu-central-1",
    resources=(),
    target=None,
    scopes=("read-logs",),
    operation="creds",
    reason="",
    duration=3600,
    session_policy=None,
    tags={"credx-scope-logs": "read"},
    factors=("webauthn", "totp", "workload"),
    user_verification=True,
    factor_max_age=0,
    factor_group="prod-ops",
    sts="client",
    roles_claim=True,
)


def mint(grant: Grant = GRANT, person: Person = ADA, **changes: Any) -> Secret:
    arguments = {
        "issuance": ISSUANCE, "jti": JTI, "factor_kind": "webauthn", "issuer": ISSUER, "signer": SIGNER,
        "now": NOW,
    }  # fmt: skip
    return web_identity_token(grant, person, **{**arguments, **changes})


def claims_of(token: Secret) -> dict[str, Any]:
    """Verified by another library than the one that signed."""
    decoded = jwt.decode(token.reveal(), VERIFIER, algorithms=["RS256"])
    assert decoded.header == {"alg": "RS256", "typ": "JWT", "kid": SIGNER.kid}
    return decoded.claims


def test_every_claim_and_no_other() -> None:
    """A change here is a change of what AWS trusts."""
    assert claims_of(mint(replace(GRANT, target="i-0abc"))) == {
        "iss": ISSUER,
        "sub": "role:prod-ops:user:ada@example.com-abababab",
        "aud": "credx:aws:111122223333",
        "iat": 1_800_000_000,
        "exp": 1_800_000_120,
        "jti": JTI,
        "amr": ["pop", "user", "mfa"],
        "https://aws.amazon.com/roles": ["arn:aws:iam::111122223333:role/prod-ops"],
        "https://aws.amazon.com/source_identity": "ada@example.com-abababab",
        "https://aws.amazon.com/tags": {
            "principal_tags": {
                "credx-scope-logs": ["read"],
                "credx-role": ["prod-ops"],
                "credx-factor": ["webauthn"],
                "credx-issuance": [ISSUANCE],
                "credx-target": ["i-0abc"],
            },
            "transitive_tag_keys": ["credx-issuance"],
        },
    }


def test_no_target_no_tag() -> None:
    assert "credx-target" not in claims_of(mint())[TAGS]["principal_tags"]


@pytest.mark.parametrize(
    ("kind", "amr"), [("webauthn", ["pop", "user", "mfa"]), ("totp", ["otp", "mfa"]), ("workload", None)]
)
def test_amr_says_what_was_proved(kind: str, amr: list[str] | None) -> None:
    claims = claims_of(mint(factor_kind=kind))
    assert claims.get("amr") == amr
    assert claims[TAGS]["principal_tags"]["credx-factor"] == [kind]


def test_the_roles_claim_is_pinned_whatever_the_trust_policy_asks() -> None:
    assert claims_of(mint(replace(GRANT, roles_claim=False)))[ROLES] == [GRANT.role_arn]


def signed_in(claims: dict[str, Any], *, amr: tuple[str, ...]) -> Person:
    rule = IssuerRule(
        trusted=TrustedIssuer(issuer=ADA.issuer, audience="credx-cli"), readable_claim="email",
        groups_claim=None, mfa_amr=frozenset(), scopes=("openid",), workloads=False,
    )  # fmt: skip
    broker = BrokerSettings(issuer=ISSUER, url=ISSUER, rp_id="x.example", rp_name="credx", max_token_age=3600)
    policy = Policy(version="1", broker=broker, issuers={ADA.issuer: rule}, groups={}, roles={})
    verified = VerifiedClaims(
        issuer=ADA.issuer, subject=ADA.subject, audience="credx-cli", issued_at=1, expires_at=2,
        auth_time=None, amr=amr, token_hash="h", claims={"email": "ada@example.com", **claims},
    )  # fmt: skip
    return person_of(policy, verified)


def test_nothing_is_copied_from_the_inbound_token() -> None:
    evil = {
        ROLES: "arn:aws:iam::111122223333:role/admin", TAGS: {"principal_tags": {"admin": ["1"]}}, "azp": "x",
        SOURCE_IDENTITY: "root", "https://aws.amazon.com/tags/principal_tags/Team": "x", "nbf": 1, "jti": "x",
    }  # fmt: skip
    assert claims_of(mint(person=signed_in(evil, amr=("hwk",)))) == claims_of(
        mint(person=signed_in({}, amr=()))
    )


TAG_CHARS = st.characters().filter(lambda c: unicodedata.category(c)[0] in "LZN" or c in "_.:/=+-@")
KEYS = st.text(TAG_CHARS, min_size=1, max_size=128).filter(
    lambda key: not key.lower().startswith(("aws:", "credx-"))
)
VALUES = st.text(TAG_CHARS, min_size=1, max_size=256)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)
USERS = st.from_regex(r"[A-Za-z0-9_+=,.@-]{1,55}-[0-9a-f]{8}", fullmatch=True)
PERSONS = st.builds(lambda user: replace(ADA, user=user), USERS)


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    partition = draw(st.sampled_from(["aws", "aws-cn", "aws-us-gov", "aws-eusc"]))
    account = draw(st.from_regex(r"[0-9]{12}", fullmatch=True))
    path = draw(st.from_regex(r"role/([A-Za-z0-9_+=.@-]{1,20}/){0,3}[A-Za-z0-9_+=.@-]{1,64}", fullmatch=True))
    tags = draw(st.dictionaries(KEYS, VALUES, max_size=10))
    folded = {key.lower(): (key, value) for key, value in tags.items()}
    return replace(
        GRANT,
        role=draw(NAMES),
        role_arn=f"arn:{partition}:iam::{account}:{path}",
        account=account,
        partition=partition,
        target=draw(st.none() | st.from_regex(r"[A-Za-z0-9_.=+@-]{1,256}", fullmatch=True)),
        tags=dict(folded.values()),
    )


@settings(deadline=None)
@given(
    grants(),
    PERSONS,
    st.sampled_from(sorted(AMR)),
    st.from_regex(r"[A-Za-z0-9_-]{12,64}", fullmatch=True),
    st.floats(0, 2**40),
)
def test_whatever_a_policy_grants_is_a_token_that_sts_takes(
    grant: Grant, person: Person, kind: str, issuance: str, now: float
) -> None:
    token = mint(grant, person, factor_kind=kind, issuance=issuance, now=now)
    assert 4 <= len(token.reveal()) <= TOKEN_RANGE[1]
    claims = claims_of(token)
    assert type(claims["iat"]) is type(claims["exp"]) is int
    assert claims["exp"] - claims["iat"] == TOKEN_LIFE <= 120
    assert 6 <= len(claims["sub"]) <= 255
    assert claims["aud"] == f"credx:{grant.partition}:{grant.account}"
    assert claims[ROLES] == [grant.role_arn]
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{2,64}", claims[SOURCE_IDENTITY])
    assert set(claims) <= {"iss", "sub", "aud", "iat", "exp", "jti", "amr", ROLES, SOURCE_IDENTITY, TAGS}
    tags = claims[TAGS]["principal_tags"]
    assert len(tags) <= 50
    assert len({key.lower() for key in tags}) == len(tags)
    for key, value in tags.items():
        assert isinstance(value, list)
        assert len(value) == 1
        for text, limit in ((key, 128), (value[0], 256)):
            assert 1 <= len(text) <= limit
            assert all(c in "_.:/=+-@" or unicodedata.category(c)[0] in "LZN" for c in text)
    assert tags.get("credx-target") == (None if grant.target is None else [grant.target])
    assert set(claims[TAGS]["transitive_tag_keys"]) <= set(tags)


@settings(deadline=None)
@given(PERSONS, st.from_regex(r"[A-Za-z0-9_-]{12,64}", fullmatch=True))
def test_a_session_name_is_one_that_sts_takes(person: Person, issuance: str) -> None:
    name = session_name(person, issuance)
    assert 2 <= len(name) <= 64
    assert set(name) <= set(string.ascii_letters + string.digits + "_+=,.@-")
    assert name.endswith(f"-{issuance[-8:]}")
    assert person.user.startswith(name[:-13])


def test_a_session_name_reads_well() -> None:
    assert session_name(ADA, ISSUANCE) == "ada@example.com-abababab-89abcdef"


@pytest.mark.parametrize(
    "changes",
    [
        {"tags": {"credx-role": "admin"}},
        {"tags": {"Credx-Target": "i-0"}},
        {"tags": {"credx-issuance": "x"}},
        {"tags": {"aws:x": "y"}},
        {"tags": {"AWS:x": "y"}},
        {"tags": {"a": "x", "A": "y"}},
        {"tags": {"": "x"}},
        {"tags": {"a": ""}},
        {"tags": {"a": "x,y"}},
        {"tags": {"a": "*"}},
        {"tags": {"a": "x\n"}},
        {"tags": {"a": "x" * 257}},
        {"tags": {"a" * 129: "x"}},
        {"tags": {f"t{n}": "x" for n in range(48)}},
        {"target": ""},
        {"target": "*"},
        {"target": "x" * 257},
        {"role": "r" * 255},
        {"role": "a*"},
        {"role_arn": "arn:aws:iam::999999999999:role/prod-ops"},
        {"role_arn": "arn:aws-cn:iam::111122223333:role/prod-ops"},
        {"role_arn": "arn:aws:iam::111122223333:role/a;arn:aws:iam::111122223333:role/b"},
        {"role_arn": "arn:aws:iam::111122223333:role/*"},
        {"factors": ("totp",)},
    ],
)
def test_what_sts_would_misread_is_not_minted(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        mint(replace(GRANT, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"issuance": "short"},
        {"issuance": "has space in it"},
        {"issuance": "x" * 65},
        {"jti": ""},
        {"jti": "short"},
        {"jti": "with space 123456789"},
        {"factor_kind": "none"},
        {"factor_kind": ""},
        {"person": replace(ADA, user="")},
        {"person": replace(ADA, user="a" * 65)},
        {"person": replace(ADA, user="ada ada")},
        {"person": replace(ADA, user="ädä-12345678")},
        {"person": replace(ADA, user="aws:ada-12345678")},
        {"person": replace(ADA, user="ada-12345678\n")},
        {"now": float("nan")},
    ],
)
def test_nor_is_a_token_with_a_spoilt_input(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        mint(**changes)


@pytest.mark.parametrize("user", ["", "ada ada", "x" * 65])
def test_nor_is_a_session_named_after_a_spoilt_one(user: str) -> None:
    with pytest.raises(ValueError):
        session_name(replace(ADA, user=user), ISSUANCE)


def test_the_token_does_not_print_itself() -> None:
    assert repr(mint()) == "Secret(***)"
