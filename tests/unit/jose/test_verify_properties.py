"""Whatever is done to a token, it is refused with a ``TokenError`` and nothing else."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from credx.jose import TokenError, TrustedIssuer, VerificationKey, rsa_public_jwk, sign_jwt, verify_id_token
from credx.model import Secret, VerifiedClaims

NOW = 1_800_000_000
ISSUER = TrustedIssuer(issuer="https://idp.example.com", audience="credx-cli", algorithms=("RS256",))
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CLAIMS: dict[str, Any] = {
    "iss": ISSUER.issuer,
    "sub": "u-1",
    "aud": "credx-cli",
    "iat": NOW,
    "exp": NOW + 300,
    "groups": ["a"],
}


class LocalSigner:
    kid = rsa_public_jwk(PRIVATE.public_key())["kid"]

    def public_jwk(self) -> dict[str, str]:
        return rsa_public_jwk(PRIVATE.public_key())

    def sign(self, message: bytes) -> bytes:
        return PRIVATE.sign(message, padding.PKCS1v15(), hashes.SHA256())


class OneKey:
    def key(self, issuer: TrustedIssuer, kid: str, algorithm: str, *, now: float) -> VerificationKey:
        return VerificationKey(algorithm="RS256", public=PRIVATE.public_key())


TOKEN = sign_jwt(CLAIMS, signer=LocalSigner()).reveal()
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def verify(token: str) -> VerifiedClaims | None:
    """None when refused; every other exception than ``TokenError`` fails the test."""
    start = time.perf_counter()
    try:
        return verify_id_token(
            Secret(token), issuers={ISSUER.issuer: ISSUER}, keys=OneKey(), now=NOW, max_age=3600
        )
    except TokenError:
        return None
    finally:
        assert time.perf_counter() - start < 1


def segment(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes) -> str:
    signing_input = f"{segment(header)}.{segment(payload)}"
    return f"{signing_input}.{segment(LocalSigner().sign(signing_input.encode()))}"


def test_what_sign_jwt_makes_is_accepted() -> None:
    verified = verify(TOKEN)
    assert verified is not None
    assert (verified.subject, verified.issuer, verified.amr) == ("u-1", ISSUER.issuer, ())
    assert dict(verified.claims) == CLAIMS


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(ALPHABET + ".=+/ \n\0é"))
@settings(deadline=None)
def test_one_changed_character(at: int, character: str) -> None:
    assume(TOKEN[at] != character)
    assert verify(TOKEN[:at] + character + TOKEN[at + 1 :]) is None


@given(st.integers(0, len(TOKEN) - 1), st.integers(0, len(TOKEN)))
@settings(deadline=None)
def test_a_piece_of_it(start: int, end: int) -> None:
    assume((start, end) != (0, len(TOKEN)))
    assert verify(TOKEN[start:end]) is None


@given(st.integers(0, len(TOKEN)), st.text(alphabet=ALPHABET + ".=", min_size=1, max_size=8))
@settings(deadline=None)
def test_something_put_in(at: int, more: str) -> None:
    assert verify(TOKEN[:at] + more + TOKEN[at:]) is None


@given(st.text(max_size=200))
@settings(deadline=None)
def test_any_text(text: str) -> None:
    assert verify(text) is None


@given(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=60))
@settings(deadline=None)
def test_any_three_segments(header: bytes, payload: bytes, signature: bytes) -> None:
    assert verify(f"{segment(header)}.{segment(payload)}.{segment(signature)}") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
HEADER = json.dumps({"alg": "RS256", "kid": "k"}).encode()


@given(st.dictionaries(st.sampled_from([*CLAIMS, "nbf", "azp", "amr", "auth_time", "x"]), JSON))
@settings(deadline=None)
def test_a_validly_signed_payload_of_odd_types(changed: dict[str, Any]) -> None:
    verified = verify(signed(HEADER, json.dumps({**CLAIMS, **changed}).encode()))
    if verified is not None:
        final = {**CLAIMS, **changed}
        assert final["iss"] == ISSUER.issuer
        assert final["aud"] in ("credx-cli", ["credx-cli"])
        assert type(final["exp"]) is int
        assert final["exp"] > NOW - 60
        assert verified.subject == final["sub"]


@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "x5c", "b64", "zip", "x"]), JSON))
@settings(deadline=None)
def test_a_validly_signed_header_of_odd_types(changed: dict[str, Any]) -> None:
    header = {"alg": "RS256", "kid": "k", **changed}
    if verify(signed(json.dumps(header).encode(), json.dumps(CLAIMS).encode())) is not None:
        assert header["alg"] == "RS256"
        assert header.get("typ", "JWT") == "JWT"
        assert not {"crit", "jwk", "x5c", "b64", "zip"} & header.keys()


@given(st.sampled_from(sorted(CLAIMS)), JSON)
@settings(deadline=None)
def test_a_twin_of_any_member(name: str, value: object) -> None:
    payload = json.dumps(CLAIMS)[:-1] + f",{json.dumps(name)}:{json.dumps(value)}}}"
    assert verify(signed(HEADER, payload.encode())) is None


@given(st.binary(max_size=100))
@settings(deadline=None)
def test_a_validly_signed_payload_of_any_bytes(payload: bytes) -> None:
    assert verify(signed(HEADER, payload)) is None
