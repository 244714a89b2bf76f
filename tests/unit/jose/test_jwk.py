from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from credx.errors import ConfigError
from credx.jose import TrustedIssuer, rsa_public_jwk
from credx.jose.jwk import usable_keys

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()  # noqa: S505
P256 = ec.generate_private_key(ec.SECP256R1()).public_key()


def b64(number: int, size: int = 32) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(size, "big")).rstrip(b"=").decode()


def jwk(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {**rsa_public_jwk(RSA), "kid": "a", **changes}
    return {name: value for name, value in base.items() if value is not ...}


def ec_jwk(**changes: Any) -> dict[str, Any]:
    point = P256.public_numbers()
    return {"kty": "EC", "crv": "P-256", "kid": "e", "x": b64(point.x), "y": b64(point.y), **changes}


def keys(*members: Any) -> set[tuple[str, str]]:
    return set(usable_keys(json.dumps({"keys": list(members)}).encode()))


def test_keys_are_filed_by_kid_and_algorithm() -> None:
    assert keys(jwk(), ec_jwk(), ec_jwk(kid="a")) == {("a", "RS256"), ("e", "ES256"), ("a", "ES256")}


@pytest.mark.parametrize(
    "changes",
    [{"use": ...}, {"alg": ...}, {"key_ops": ["verify"]}, {"x5c": ["MIIB"], "x5t": "x", "issuer": "y"}],
)
def test_what_real_providers_publish(changes: dict[str, Any]) -> None:
    assert keys(jwk(**changes)) == {("a", "RS256")}


@pytest.mark.parametrize(
    "member",
    [
        jwk(use="enc"),
        jwk(use=None),
        jwk(key_ops=["sign"]),
        jwk(key_ops="verify"),
        jwk(alg="PS256"),
        jwk(alg="HS256"),
        jwk(alg="RS512"),
        jwk(kid=...),
        jwk(kid=7),
        jwk(kty="oct", k="AAAA"),
        jwk(kty="OKP"),
        jwk(kty=...),
        jwk(kty=["RSA"]),
        jwk(n=...),
        jwk(n=7),
        jwk(n="A" * 343),
        jwk(n=rsa_public_jwk(WEAK)["n"]),
        jwk(n=b64(2**8200 + 1, 1026)),
        jwk(n=jwk()["n"] + "="),
        jwk(e="AA"),
        jwk(e="Ag"),
        jwk(e="AQ"),
        jwk(e=b64(2**64 + 1)),
        ec_jwk(crv="P-384"),
        ec_jwk(alg="RS256"),
        ec_jwk(x=b64(1)),
        ec_jwk(x=b64(0), y=b64(0)),
        ec_jwk(y=...),
        None,
        "key",
        [],
    ],
)
def test_a_key_that_cannot_be_used_is_skipped(member: Any) -> None:
    if isinstance(member, dict):
        member = {name: value for name, value in member.items() if value is not ...}
    assert keys(member, jwk(kid="good")) == {("good", "RS256")}


def test_two_keys_under_one_name_are_both_dropped() -> None:
    assert keys(jwk(), jwk(n=rsa_public_jwk(OTHER)["n"]), jwk(kid="good")) == {("good", "RS256")}
    assert keys(jwk(), jwk()) == {("a", "RS256")}


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":[],"keys":[]}', b'{"keys":[{}]}', b"\xff"],
)
def test_a_set_without_a_usable_key_is_an_error(document: bytes) -> None:
    with pytest.raises(ValueError):
        usable_keys(document)


def test_a_set_of_more_than_100_keys() -> None:
    assert len(keys(*(jwk(kid=str(n)) for n in range(100)))) == 100
    with pytest.raises(ValueError, match="100"):
        keys(*(jwk(kid=str(n)) for n in range(101)))


ODD = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=2)


@given(
    st.dictionaries(st.sampled_from(["kty", "kid", "use", "alg", "n", "e", "key_ops", "crv", "x", "y"]), ODD)
)
@settings(deadline=None)
def test_odd_members_never_break_the_set(changes: dict[str, Any]) -> None:
    assert ("good", "RS256") in keys(jwk(**changes), ec_jwk(**changes), jwk(kid="good"))


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://idp.example.com"},
        {"issuer": "idp.example.com"},
        {"issuer": "https://idp.example.com/?a=b"},
        {"issuer": "https://u@idp.example.com"},
        {"audience": ""},
        {"algorithms": ()},
        {"algorithms": ("RS256", "HS256")},
        {"algorithms": ("none",)},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://keys.example.com"},
    ],
)
def test_an_issuer_that_cannot_be_trusted_safely_is_refused_when_configured(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TrustedIssuer(**{"issuer": "https://idp.example.com", "audience": "a", **changes})
