"""Who somebody is, and in which groups, by ID tokens as identity providers really shape them."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.broker.person import MAX_USER, USER_HASH, person_of, shown_name, user_key_of
from credx.broker.policy.file import parse_policy
from credx.errors import ConfigError, Refusal
from credx.model import VerifiedClaims

OKTA = "https://example.okta.com/oauth2/default"
ENTRA = "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"
KEYCLOAK = "https://sso.example.com/realms/corp"
GOOGLE = "https://accounts.google.com"

POLICY = """
version = 1
[broker]
issuer = "https://credx.example.com"
[[identity_providers]]
issuer = "{issuer}"
client_id = "credx"
{provider}
[groups.sre]
{group}
[roles.dev]
arn = "arn:aws:iam::111122223333:role/dev"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
duration = "1h"
"""

# The claims that these providers document, with the ones left out that say nothing here
OKTA_TOKEN = {
    "ver": 1, "jti": "ID.4eAWJOCMB3SX8XewDfVR", "auth_time": 1799999990, "idp": "00o1n8sbwArJ7OQRw406",
    "preferred_username": "alice@example.com", "email": "alice@example.com", "email_verified": True,
    "at_hash": "preview_at_hash", "groups": ["Everyone", "platform-sre"], "amr": ["pwd", "mfa", "otp"],
}  # fmt: skip
SRE_ID = "0760b6cf-170e-4a14-91b3-4b78e0739963"
ENTRA_TOKEN = {
    "ver": "2.0", "tid": "9188040d-6c67-4c5b-b112-36a304b66dad", "oid": "00000000-0000-0000-66f3-3332eca7ea81",
    "name": "Alice", "preferred_username": "alice@example.com", "rh": "0.ARoAv4j5cvGGr0GRqy180BHbR", "uti": "q",
    "groups": [SRE_ID, "3b2b0c93-acd8-4208-8eba-7a48db1cd4c0"], "roles": ["Credx.Sre"],
}  # fmt: skip
KEYCLOAK_TOKEN = {
    "typ": "ID", "azp": "credx", "sid": "9f2a", "acr": "1", "email_verified": True, "name": "Alice",
    "preferred_username": "alice", "groups": ["/team/sre", "/all"],
    "realm_access": {"roles": ["default-roles-corp", "sre", "uma_authorization"]},
    "resource_access": {"credx": {"roles": ["ops"]}, "account": {"roles": ["sre", "view-profile"]}},
}  # fmt: skip
GOOGLE_TOKEN = {
    "azp": "credx", "hd": "example.com", "email": "alice@example.com", "email_verified": True, "name": "Alice",
    "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
}  # fmt: skip


def groups(issuer: str, provider: str, group: str, claims: dict[str, Any], subject: str = "00u1") -> set[str]:
    policy = parse_policy(POLICY.format(issuer=issuer, provider=provider, group=group))
    return set(person_of(policy, verified(issuer, subject, claims)).groups)


def verified(issuer: str, subject: str, claims: dict[str, Any]) -> VerifiedClaims:
    return VerifiedClaims(
        issuer=issuer, subject=subject, audience="credx", issued_at=1, expires_at=2, auth_time=None, amr=(),
        token_hash="", claims=claims,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("issuer", "provider", "group", "claims"),
    [
        (OKTA, "", 'claims = ["platform-sre"]', OKTA_TOKEN),
        (ENTRA, "", f'claims = ["{SRE_ID}"]', ENTRA_TOKEN),
        (ENTRA, 'groups_claim = "roles"', 'claims = ["Credx.Sre"]', ENTRA_TOKEN),
        (KEYCLOAK, "", 'claims = ["/team/sre"]', KEYCLOAK_TOKEN),
        (KEYCLOAK, 'groups_claim = ["realm_access", "roles"]', 'claims = ["sre"]', KEYCLOAK_TOKEN),
        (KEYCLOAK, 'groups_claim = ["resource_access", "credx", "roles"]', 'claims = ["ops"]', KEYCLOAK_TOKEN),
        (GOOGLE, 'groups_claim = "hd"', 'claims = ["example.com"]', GOOGLE_TOKEN),
        (GOOGLE, "", f'users = ["{GOOGLE}|00u1"]', GOOGLE_TOKEN),
        (OKTA, 'groups_claim = "https://example.com/claims/groups"', 'claims = ["a.b"]',
         {"https://example.com/claims/groups": ["a.b"]}),
        (OKTA, 'groups_claim = ["groups"]', 'claims = ["platform-sre"]', OKTA_TOKEN),
    ],
)  # fmt: skip
def test_who_is_in_a_group(issuer: str, provider: str, group: str, claims: dict[str, Any]) -> None:
    assert groups(issuer, provider, group, claims) == {"sre"}


@pytest.mark.parametrize(
    ("issuer", "provider", "group", "claims"),
    [
        (OKTA, "", 'claims = ["Platform-SRE"]', OKTA_TOKEN),
        (ENTRA, "", f'claims = ["{SRE_ID.upper()}"]', ENTRA_TOKEN),
        (ENTRA, "", 'claims = ["Credx.Sre"]', ENTRA_TOKEN),
        (KEYCLOAK, "", 'claims = ["team/sre"]', KEYCLOAK_TOKEN),
        (KEYCLOAK, "", 'claims = ["/team"]', KEYCLOAK_TOKEN),  # being below a group is not being in it
        (KEYCLOAK, "", 'claims = ["/team/sre"]', KEYCLOAK_TOKEN | {"groups": ["/team/sre/oncall"]}),
        # the name with a dot is one claim, not a way into another
        (KEYCLOAK, 'groups_claim = "realm_access.roles"', 'claims = ["sre"]', KEYCLOAK_TOKEN),
        (KEYCLOAK, 'groups_claim = ["realm_access", "roles"]', 'claims = ["sre"]',
         {"realm_access.roles": ["sre"], "roles": ["sre"]}),
        (KEYCLOAK, 'groups_claim = ["resource_access", "credx", "roles"]', 'claims = ["sre"]', KEYCLOAK_TOKEN),
        (GOOGLE, "", 'claims = ["example.com"]', GOOGLE_TOKEN),
        (GOOGLE, 'groups_claim = "hd"', 'claims = ["example.com"]', {"email": "eve@example.com"}),
        (GOOGLE, "", f'users = ["{GOOGLE}|00U1"]', GOOGLE_TOKEN),
    ],
)  # fmt: skip
def test_who_is_in_no_group(issuer: str, provider: str, group: str, claims: dict[str, Any]) -> None:
    assert groups(issuer, provider, group, claims) == set()


ENDPOINT = "https://graph.microsoft.com/v1.0/users/00000000/getMemberObjects"


@pytest.mark.parametrize(
    ("provider", "claims"),
    [
        # Entra, more than 200 groups: a distributed claim
        ("", {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": ENDPOINT}}}),
        ("", ENTRA_TOKEN | {"_claim_names": {"groups": "src1"}}),
        ("", {"hasgroups": True}),  # Entra, where the token comes in a URL
        ("", {"_claim_names": "groups"}),
        ("", {"_claim_names": ["groups"]}),
        ('groups_claim = ["groups", "all"]', {"_claim_names": {"groups": "src1"}}),
        ('groups_claim = "roles"', {"_claim_names": {"roles": "src1"}}),
    ],
)
def test_groups_that_were_left_out_are_refused_and_never_none(provider: str, claims: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="access_denied") as caught:
        groups(ENTRA, provider, 'claims = ["x"]', claims)
    assert caught.value.detail == "group overage"
    assert "too long" in caught.value.public


@pytest.mark.parametrize("claims", [{"hasgroups": True}, {"_claim_names": {"groups": "src1"}}])
def test_app_roles_of_entra_are_whole_however_many_groups_there_are(claims: dict[str, Any]) -> None:
    got = groups(ENTRA, 'groups_claim = "roles"', 'claims = ["Credx.Sre"]', claims | {"roles": ["Credx.Sre"]})
    assert got == {"sre"}


@pytest.mark.parametrize(
    ("provider", "claims"),
    [
        ("", {"groups": {"sre": True}}),
        ("", {"groups": ["sre", 1]}),
        ("", {"groups": [["sre"]]}),
        ("", {"groups": None}),
        ("", {"groups": True}),
        ("", {"groups": [str(n) for n in range(1001)]}),
        ('groups_claim = ["realm_access", "roles"]', {"realm_access": ["sre"]}),
        ('groups_claim = ["realm_access", "roles"]', {"realm_access": "roles"}),
        ('groups_claim = ["realm_access", "roles"]', {"realm_access": None}),
        ('groups_claim = ["realm_access", "roles"]', {"realm_access": {"roles": {"sre": 1}}}),
        ('groups_claim = "email_verified"', GOOGLE_TOKEN),
    ],
)
def test_groups_of_another_shape_are_refused(provider: str, claims: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="access_denied") as caught:
        groups(KEYCLOAK, provider, 'claims = ["sre"]', claims)
    assert "neither a string nor a list" in caught.value.detail


@pytest.mark.parametrize("value", ["[]", '["a", 1]', "1", '""', '["a", ""]', '["a", "a"]', "true"])
def test_a_path_that_leads_nowhere_is_refused_in_the_policy(value: str) -> None:
    with pytest.raises(ConfigError, match="groups_claim"):
        groups(KEYCLOAK, f"groups_claim = {value}", 'claims = ["sre"]', {})


def test_a_group_of_one_provider_says_nothing_about_another() -> None:
    text = POLICY.format(issuer=OKTA, provider="", group=f'claims = ["platform-sre"]\nissuer = "{OKTA}"')
    text = text.replace(
        "[groups.sre]", f'[[identity_providers]]\nissuer = "{KEYCLOAK}"\nclient_id = "credx"\n[groups.sre]'
    )
    policy = parse_policy(text)
    claims = {"groups": ["platform-sre"]}
    assert person_of(policy, verified(OKTA, "a", claims)).groups == {"sre"}
    assert person_of(policy, verified(KEYCLOAK, "a", claims)).groups == frozenset()


# -- who

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.isprintable)


@given(TEXT, TEXT, TEXT, TEXT)
def test_no_two_people_share_a_key(issuer: str, subject: str, issuer2: str, subject2: str) -> None:
    same = (issuer, subject) == (issuer2, subject2)
    assert (user_key_of(issuer, subject) == user_key_of(issuer2, subject2)) is same


@given(TEXT, st.sampled_from([str.upper, str.lower, str.casefold, lambda s: s + " ", lambda s: " " + s,
                              lambda s: s + "/", lambda s: s.encode("punycode").decode()]))  # fmt: skip
def test_nothing_is_folded_or_trimmed(subject: str, change: Any) -> None:
    """Vault CVE-2025-6004, CVE-2025-6013."""
    changed = change(subject)
    if changed != subject and changed.isprintable():
        assert user_key_of(OKTA, changed) != user_key_of(OKTA, subject)
        assert user_key_of(changed, "s") != user_key_of(subject, "s")


@given(st.text(max_size=20), st.sampled_from(["\0", "\n", "\x7f", "\u202e", "\u2066", "\u200b", "\u00a0", "\ufeff",
                                              "\u2028", "\ud800", "\udfff", "\x85"]), st.text(max_size=20))  # fmt: skip
def test_what_cannot_be_seen_is_nobody(before: str, hidden: str, after: str) -> None:
    for pair in ((OKTA, before + hidden + after), (before + hidden + after, "s")):
        with pytest.raises(ValueError, match="not printable"):
            user_key_of(*pair)


@pytest.mark.parametrize("pair", [("", "s"), (OKTA, "")])
def test_nor_is_nothing(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="empty"):
        user_key_of(*pair)


@given(st.text() | st.none() | st.lists(st.text()), TEXT)
def test_a_shown_name_fits_aws_whole_and_ends_with_the_hash(claim: Any, subject: str) -> None:
    user_key = user_key_of(OKTA, subject)
    name = shown_name(claim, user_key)
    assert re.fullmatch(r"[A-Za-z0-9_+=,.@-]{1,38}-[0-9a-f]{16}", name)
    assert name.endswith(f"-{user_key[:USER_HASH]}")
    assert len(f"{name}-01234567") <= 64  # RoleSessionName with the end of an issuance id
    assert MAX_USER == 55


def test_a_readable_claim_that_ends_like_somebody_else_is_not_him() -> None:
    victim = user_key_of(OKTA, "victim")
    own = user_key_of(OKTA, "eve")
    assert not shown_name(shown_name("victim", victim), own).endswith(victim[:USER_HASH])


def test_the_key_is_what_the_documents_say() -> None:
    assert user_key_of(OKTA, "00u1") == hashlib.sha256(f"{OKTA}\0".encode() + b"00u1").hexdigest()
