"""Tokens that a broker must not take. Each test is named after what is refused; each forged token but the
unsigned ones carries a signature that is good, so that only the named guard stands in its way.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from credx.jose import RemoteKeys, TokenError, TrustedIssuer, VerificationKey, rsa_public_jwk, verify_id_token
from credx.model import Secret, VerifiedClaims

NOW = 1_800_000_000
ISSUER = "https://idp.example.com"
AUDIENCE = "credx-cli"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass
class Keys:
    """Both public keys under any kid, and the requests for them."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    def key(self, issuer: TrustedIssuer, kid: str, algorithm: str, *, now: float) -> VerificationKey:
        self.asked.append((issuer.issuer, kid))
        if kid == "ec":
            return VerificationKey(algorithm="ES256", public=P256.public_key())
        return VerificationKey(algorithm="RS256", public=RSA.public_key())


def claims(**overrides: Any) -> dict[str, Any]:
    base = {"iss": ISSUER, "sub": "u-1", "aud": AUDIENCE, "iat": NOW - 10, "exp": NOW + 300}
    return {name: value for name, value in {**base, **overrides}.items() if value is not ...}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def rs256(message: bytes) -> bytes:
    return RSA.sign(message, padding.PKCS1v15(), hashes.SHA256())


def es256(message: bytes) -> bytes:
    r, s = utils.decode_dss_signature(P256.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def forge(
    payload: dict[str, Any] | bytes | None = None,
    header: dict[str, Any] | bytes | None = None,
    sign: Any = rs256,
) -> str:
    body = payload if isinstance(payload, bytes) else json.dumps(payload or claims()).encode()
    head = (
        header
        if isinstance(header, bytes)
        else json.dumps({"alg": "RS256", "kid": "k", **(header or {})}).encode()
    )
    signing_input = f"{b64(head)}.{b64(body)}"
    return f"{signing_input}.{b64(sign(signing_input.encode()))}"


def verify(
    token: str, *, nonce: str | None = None, now: float = NOW, max_age: int | None = 3600, **kw: Any
) -> VerifiedClaims:
    issuer = TrustedIssuer(issuer=ISSUER, audience=AUDIENCE, **kw)
    return verify_id_token(
        Secret(token), issuers={ISSUER: issuer}, keys=Keys(), now=now, max_age=max_age, nonce=nonce
    )


def refused(token: str, reason: str, **kwargs: Any) -> None:
    with pytest.raises(TokenError) as caught:
        verify(token, **kwargs)
    assert caught.value.reason == reason
    shown = f"{caught.value!r} {caught.value} {caught.value.hint}"
    assert not any(len(part) > 8 and part in shown for part in token.split("."))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_untouched_token_is_accepted() -> None:
    assert verify(forge()).subject == "u-1"
    assert verify(forge(header={"alg": "ES256", "kid": "ec", "typ": "JWT"}, sign=es256)).subject == "u-1"


def test_the_header_of_github_actions_is_accepted() -> None:
    assert verify(forge(header={"typ": "JWT", "alg": "RS256", "x5t": "example-thumbprint", "kid": "k"}))


# --- size and form


def test_a_token_over_16_kib() -> None:
    refused(forge(claims(pad="x" * 13_000)), "too-large")
    assert verify(forge(claims(pad="x" * 11_000)))


@pytest.mark.parametrize("token", ["", ".", "..", "a.b", "a.b.c.d", "." * 16_000, "a..c", ".b.c"])
def test_anything_but_three_parts(token: str) -> None:
    refused(token, "malformed")


@pytest.mark.parametrize("tail", ["=", "==", "\n", " ", "+", "/", "é", "\ud800", "\0"])
def test_a_spelling_beside_canonical_base64url(tail: str) -> None:
    refused(forge() + tail, "malformed")


def test_padding_in_the_middle() -> None:
    head, body, signature = forge().split(".")
    refused(f"{head}=.{body}.{signature}", "malformed")
    refused(f"{head}.{body}=.{signature}", "malformed")


def test_trailing_bits_that_make_a_twin() -> None:
    token = forge()  # 256 bytes of signature end in two base64 characters, four bits of which are unused
    twin = token[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[token[-1]]
    assert base64.urlsafe_b64decode(twin.split(".")[2] + "==") == base64.urlsafe_b64decode(
        token.split(".")[2] + "=="
    )
    refused(twin, "malformed")


def test_json_serialization() -> None:
    head, body, signature = forge().split(".")
    refused(json.dumps({"protected": head, "payload": body, "signature": signature}), "malformed")


# --- JSON


@pytest.mark.parametrize(
    "tail",
    [
        b',"sub":"root"}',  # last wins in most parsers
        b',"x":{"a":1,"a":2}}',
        b',"x":NaN}',
        b',"x":-Infinity}',
        b',"x":1e999}',
        b',"x":' + b"9" * 5000 + b"}",
        b',"x":' + b"[" * 1000 + b"]" * 1000 + b"}",
        b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b',"x":"\\ud800"}',
        b',"\\udfff":1}',
        b',"x":"\xff"}',
        b"} {}",
    ],
    ids=[
        "twin",
        "inner-twin",
        "nan",
        "infinity",
        "overflow",
        "huge-int",
        "deep",
        "deeper",
        "surrogate",
        "surrogate-name",
        "not-utf8",
        "two",
    ],
)
def test_json_that_parsers_disagree_about(tail: bytes) -> None:
    refused(forge(json.dumps(claims()).encode()[:-1] + tail), "malformed")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_another_encoding(encoding: str) -> None:
    refused(forge(json.dumps(claims()).encode(encoding)), "malformed")
    refused(forge(header=json.dumps({"alg": "RS256", "kid": "k"}).encode(encoding)), "malformed")


@pytest.mark.parametrize("document", [b"[]", b'"x"', b"1", b"null", b"{}", b'{"a":1}', b"\0"])
def test_a_payload_that_is_no_claims_object(document: bytes) -> None:
    refused(forge(document), "claims" if document.startswith(b"{") else "malformed")


def test_duplicate_header_members() -> None:
    refused(forge(header=b'{"alg":"none","alg":"RS256","kid":"k"}'), "malformed")


# --- header


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crit", ["exp"]),
        ("crit", []),
        ("b64", True),
        ("b64", False),
        ("zip", "DEF"),
        ("enc", "A256GCM"),
        ("cty", "JWT"),
        ("jku", "https://evil.example/jwks"),
        ("jwk", rsa_public_jwk(RSA.public_key())),  # CVE-2018-0114
        ("x5u", "https://evil.example/cert"),
        ("x5c", ["MIIB"]),
    ],
)
def test_a_header_that_brings_a_key_or_changes_what_is_signed(name: str, value: object) -> None:
    refused(forge(header={name: value}), "header")


@pytest.mark.parametrize("typ", ["at+jwt", "logout+jwt", "jwt", "application/jwt", "", None, 1, ["JWT"]])
def test_another_type_of_token(typ: object) -> None:
    refused(forge(header={"typ": typ}), "header")


@pytest.mark.parametrize("kid", [None, "", 1, ["k"], "k" * 129, "k\0", "k\n", "ké", "\x7f"])
def test_a_kid_that_is_no_plain_name(kid: object) -> None:
    refused(forge(header={"kid": kid}), "header")


def test_no_kid() -> None:
    refused(forge(header=b'{"alg":"RS256"}'), "header")


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "https://evil.example/k", "k" * 128])
def test_a_kid_is_only_ever_looked_up(kid: str) -> None:
    fetched: list[str] = []

    def fetch(url: str, *, deadline: float) -> bytes:
        fetched.append(url)
        if url.endswith("openid-configuration"):
            return json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"}).encode()
        return json.dumps({"keys": [rsa_public_jwk(RSA.public_key())]}).encode()

    issuers = {ISSUER: TrustedIssuer(issuer=ISSUER, audience=AUDIENCE)}
    with pytest.raises(TokenError) as caught:
        verify_id_token(
            Secret(forge(header={"kid": kid})), issuers=issuers, keys=RemoteKeys(fetch), now=NOW, max_age=None
        )
    assert caught.value.reason == "unknown-key"
    assert fetched == [f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/jwks"]


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("signature", [b"", b"x"])
def test_an_unsigned_token(algorithm: str, signature: bytes) -> None:
    token = forge(header={"alg": algorithm}, sign=lambda _: signature)
    refused(token, "algorithm" if signature else "malformed")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("form", ["pem", "der", "jwk"])
def test_a_public_key_used_as_hmac_secret(algorithm: str, form: str) -> None:
    """CVE-2022-29217, CVE-2026-48526."""
    public = RSA.public_key()
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    secret = {
        "pem": public.public_bytes(serialization.Encoding.PEM, info),
        "der": public.public_bytes(serialization.Encoding.DER, info),
        "jwk": json.dumps(rsa_public_jwk(public)).encode(),
    }[form]
    digest = f"sha{algorithm[2:]}"
    refused(forge(header={"alg": algorithm}, sign=lambda m: hmac.digest(secret, m, digest)), "algorithm")


@pytest.mark.parametrize(
    "algorithm", ["RS384", "RS512", "PS256", "ES384", "ES512", "ES256K", "EdDSA", "rs256", "RS256 "]
)
def test_an_algorithm_that_is_not_on_the_list(algorithm: str) -> None:
    refused(forge(header={"alg": algorithm}), "algorithm")


def test_an_algorithm_that_this_issuer_does_not_use() -> None:
    token = forge(header={"alg": "ES256", "kid": "ec"}, sign=es256)
    refused(token, "algorithm", algorithms=("RS256",))


def test_an_allowed_algorithm_with_a_key_for_the_other() -> None:
    """GHSA-jq35-7prp-9v3f: on the list is not enough, the key must be for it."""
    refused(forge(header={"alg": "RS256", "kid": "ec"}), "algorithm")
    refused(forge(header={"alg": "ES256", "kid": "k"}, sign=es256), "algorithm")


@pytest.mark.parametrize("algorithm", [None, 1, ["RS256"], {"a": 1}])
def test_an_algorithm_that_is_no_text(algorithm: object) -> None:
    refused(forge(header={"alg": algorithm}), "header")


# --- signature


def test_a_signature_by_somebody_else() -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    refused(forge(sign=lambda m: other.sign(m, padding.PKCS1v15(), hashes.SHA256())), "bad-signature")


@pytest.mark.parametrize("signature", [b"x", b"\0" * 256, b"\xff" * 256, b"\0" * 255, b"\0" * 64])
def test_a_signature_of_another_shape(signature: bytes) -> None:
    refused(forge(sign=lambda _: signature), "bad-signature")
    refused(forge(header={"alg": "ES256", "kid": "ec"}, sign=lambda _: signature), "bad-signature")


def test_a_pss_signature_under_the_name_rs256() -> None:
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    refused(forge(sign=lambda m: RSA.sign(m, pss, hashes.SHA256())), "bad-signature")


def test_a_der_signature_under_the_name_es256() -> None:
    token = forge(
        header={"alg": "ES256", "kid": "ec"}, sign=lambda m: P256.sign(m, ec.ECDSA(hashes.SHA256()))
    )
    refused(token, "bad-signature")


def test_the_payload_of_another_token() -> None:
    head, _, signature = forge().split(".")
    refused(f"{head}.{forge(claims(sub='root')).split('.')[1]}.{signature}", "bad-signature")


def test_the_twin_of_an_es256_token_counts_as_the_same_token() -> None:
    """The twin verifies by nature; what counts uses sees one token."""

    def twin(message: bytes) -> bytes:
        signature = es256(message)
        s = P256_ORDER - int.from_bytes(signature[32:], "big")
        return signature[:32] + s.to_bytes(32, "big")

    header = {"alg": "ES256", "kid": "ec"}
    first, second = forge(header=header, sign=es256), forge(header=header, sign=twin)
    assert first != second
    assert verify(first).token_hash == verify(second).token_hash
    assert verify(first).token_hash == hashlib.sha256(first.rpartition(".")[0].encode()).hexdigest()


def test_a_1024_bit_key_even_if_a_key_source_offers_it() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505

    class Weak:
        def key(self, issuer: TrustedIssuer, kid: str, algorithm: str, *, now: float) -> VerificationKey:
            return VerificationKey(algorithm="RS256", public=weak.public_key())

    token = forge(sign=lambda m: weak.sign(m, padding.PKCS1v15(), hashes.SHA256()))
    issuers = {ISSUER: TrustedIssuer(issuer=ISSUER, audience=AUDIENCE)}
    with pytest.raises(TokenError, match="signature"):
        verify_id_token(Secret(token), issuers=issuers, keys=Weak(), now=NOW, max_age=None)


# --- issuer


@pytest.mark.parametrize(
    "issuer",
    [
        "https://evil.example",
        ISSUER + "/",
        ISSUER + ".evil.example",
        ISSUER.upper(),
        "https://idp.example.co",
        "xhttps://idp.example.com",
        ISSUER + "\n",
        "",
    ],
)
def test_an_issuer_that_is_not_configured_is_never_contacted(issuer: str) -> None:
    keys = Keys()
    issuers = {ISSUER: TrustedIssuer(issuer=ISSUER, audience=AUDIENCE)}
    with pytest.raises(TokenError) as caught:
        verify_id_token(Secret(forge(claims(iss=issuer))), issuers=issuers, keys=keys, now=NOW, max_age=None)
    assert caught.value.reason == "unknown-issuer"
    assert keys.asked == []


@pytest.mark.parametrize("issuer", [..., None, 1, True, [ISSUER], {"a": ISSUER}])
def test_an_issuer_that_is_no_text(issuer: object) -> None:
    refused(forge(claims(iss=issuer)), "claims")


def test_an_issuer_filed_under_another_name() -> None:
    issuers = {ISSUER: TrustedIssuer(issuer="https://other.example.com", audience=AUDIENCE)}
    with pytest.raises(TokenError) as caught:
        verify_id_token(Secret(forge()), issuers=issuers, keys=Keys(), now=NOW, max_age=None)
    assert caught.value.reason == "unknown-issuer"


# --- audience


@pytest.mark.parametrize(
    "audience",
    [
        ...,
        None,
        "",
        "other",
        AUDIENCE + " ",
        AUDIENCE.upper(),
        [],
        ["other"],
        [AUDIENCE, "other"],
        ["other", AUDIENCE],
        [AUDIENCE, AUDIENCE],
        [[AUDIENCE]],
        {AUDIENCE: 1},
        True,
        1,
    ],
)
def test_an_audience_that_is_not_ours_alone(audience: object) -> None:
    refused(forge(claims(aud=audience)), "wrong-audience")


def test_a_list_of_our_audience_alone_is_ours() -> None:
    assert verify(forge(claims(aud=[AUDIENCE]))).audience == AUDIENCE


@pytest.mark.parametrize("azp", ["other", "", None, [AUDIENCE], 1])
def test_a_token_issued_to_another_client(azp: object) -> None:
    refused(forge(claims(azp=azp)), "wrong-audience")
    assert verify(forge(claims(azp=AUDIENCE)))


# --- times

NOT_TIMES = [None, True, False, "1800000300", 1.8e9, 1800000300.0, 10**30, 2**63, 0, -1, [NOW], {"a": NOW}]


@pytest.mark.parametrize("name", ["exp", "iat", "nbf", "auth_time"])
@pytest.mark.parametrize("value", NOT_TIMES, ids=repr)
def test_a_time_that_is_no_whole_number_of_seconds(name: str, value: object) -> None:
    refused(forge(claims(**{name: value})), "claims")


@pytest.mark.parametrize("name", ["exp", "iat"])
def test_a_token_without_its_times(name: str) -> None:
    refused(forge(claims(**{name: ...})), "claims")


def test_a_token_that_expires_before_it_was_issued() -> None:
    refused(forge(claims(iat=NOW + 50, exp=NOW + 40)), "claims")


def test_an_expired_token() -> None:
    token = forge(claims(exp=NOW - 1, iat=NOW - 100))
    assert verify(token, now=NOW + 58)
    refused(token, "expired", now=NOW + 59)


@pytest.mark.parametrize("name", ["iat", "nbf", "auth_time"])
def test_a_token_from_the_future(name: str) -> None:
    assert verify(forge(claims(**{name: NOW + 60})))
    refused(forge(claims(**{name: NOW + 61})), "not-yet-valid")


def test_a_token_older_than_the_broker_allows() -> None:
    token = forge(claims(iat=NOW - 3660, exp=NOW + 9000))
    assert verify(token)
    refused(token, "too-old", now=NOW + 1)
    assert verify(token, now=NOW + 1, max_age=None)


@pytest.mark.parametrize("clock", [float("nan"), float("inf"), float("-inf"), 0.0])
def test_a_clock_that_is_none(clock: float) -> None:
    with pytest.raises(TokenError):
        verify(forge(), now=clock)


# --- subject and the rest


@pytest.mark.parametrize(
    "subject",
    [
        ...,
        None,
        "",
        1,
        True,
        ["u-1"],
        "x" * 256,
        " u",
        "u ",
        "u\t",
        "u\n",
        "u\0",
        "\u0085u",
        "u\u202e",
        "\u00a0u",
        "u\u200b",
        "\ufeffu",
    ],
    ids=repr,
)
def test_a_subject_that_two_readers_may_read_differently(subject: object) -> None:
    refused(forge(claims(sub=subject)), "claims")


def test_subjects_are_not_folded() -> None:
    found = {
        verify(forge(claims(sub=sub))).subject for sub in ["a b", "a  b", "A b", "á", "a\u0301", "x" * 255]
    }
    assert len(found) == 6


def test_a_lone_surrogate_in_the_subject() -> None:
    refused(forge(b'{"sub":"u\\ud800","iss":"' + ISSUER.encode() + b'"}'), "malformed")


@pytest.mark.parametrize("found", [..., "", "n", "N-1", "n-1 ", "ñ-1"])
def test_the_nonce_of_another_sign_in(found: object) -> None:
    refused(forge(claims(nonce=found)), "nonce", nonce="n-1")


@pytest.mark.parametrize(
    ("name", "value"),
    [("nonce", 1), ("nonce", None), ("acr", 1), ("acr", ["x"]), ("amr", "mfa"), ("amr", [1]), ("amr", None)],
)
def test_a_claim_of_another_shape(name: str, value: object) -> None:
    refused(forge(claims(**{name: value})), "claims")
