"""ID tokens that the broker must not take, on every route that reads one: no record, one line, nothing told."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from support.broker_world import IDP_KEY, ISSUER, NOW, b64

from credx.errors import UnavailableError
from credx.jose import rsa_public_jwk
from credx.model import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.front import Front

STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KID = rsa_public_jwk(IDP_KEY.public_key())["kid"]
PUBLIC = IDP_KEY.public_key()


def rs256(message: bytes, key: Any = IDP_KEY) -> bytes:
    return bytes(key.sign(message, padding.PKCS1v15(), hashes.SHA256()))


def hs256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda message: hmac.digest(secret, message, hashlib.sha256)


def member(right: dict[str, Any], bent: dict[str, Any] | bytes | None) -> bytes:
    if isinstance(bent, bytes):
        return bent
    return json.dumps({k: v for k, v in (right | (bent or {})).items() if v is not None}).encode()


def forge(
    header: dict[str, Any] | bytes | None = None,
    claims: dict[str, Any] | bytes | None = None,
    sign: Callable[[bytes], bytes] = rs256,
) -> Secret:
    """A token that is right but for what is given; ``None`` as a value leaves a member out."""
    right = {"iss": ISSUER, "aud": "credx-cli", "sub": "alice", "iat": NOW, "exp": NOW + 3600}
    right |= {"email": "alice@example.com", "groups": ["sre"]}
    text = f"{b64(member({'alg': 'RS256', 'kid': KID}, header))}.{b64(member(right, claims))}"
    return Secret(f"{text}.{b64(sign(text.encode()))}")


def spki(encoding: serialization.Encoding) -> bytes:
    return PUBLIC.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)


JWK = rsa_public_jwk(PUBLIC)
TWINS = (
    b'{"alg":"none","alg":"RS256","kid":"%s"}' % KID.encode(),
    b'{"iss":"https://idp.example.com","aud":"credx-cli","sub":"alice","sub":"root","iat":%d,"exp":%d,"groups":["sre"]}'
    % (NOW, NOW + 3600),
)

BAD = {
    "expired": (forge(claims={"iat": NOW - 3000, "exp": NOW - 61}), "expired"),
    "without an expiry": (forge(claims={"exp": None}), "claims"),
    "issued in the future": (forge(claims={"iat": NOW + 61}), "not-yet-valid"),
    "not valid yet": (forge(claims={"nbf": NOW + 61}), "not-yet-valid"),
    "for another audience": (forge(claims={"aud": "credx-ci"}), "wrong-audience"),
    "for us and others": (forge(claims={"aud": ["credx-cli", "other"]}), "wrong-audience"),
    "without an audience": (forge(claims={"aud": None}), "wrong-audience"),
    "issued to another client": (forge(claims={"azp": "other"}), "wrong-audience"),
    "of an unknown issuer": (forge(claims={"iss": "https://evil.example.com"}), "unknown-issuer"),
    "of an issuer with a slash more": (forge(claims={"iss": ISSUER + "/"}), "unknown-issuer"),
    "of an issuer that begins like ours": (forge(claims={"iss": ISSUER + ".evil.com"}), "unknown-issuer"),
    "alg none, no signature": (Secret(forge({"alg": "none"}).reveal().rpartition(".")[0] + "."), "malformed"),
    "alg none, our signature": (forge({"alg": "none"}), "algorithm"),
    "alg None": (forge({"alg": "None"}), "algorithm"),
    "HS256 with the key as PEM": (
        forge({"alg": "HS256"}, sign=hs256(spki(serialization.Encoding.PEM))),
        "algorithm",
    ),
    "HS256 with the key as DER": (
        forge({"alg": "HS256"}, sign=hs256(spki(serialization.Encoding.DER))),
        "algorithm",
    ),
    "HS256 with the key as JWK": (forge({"alg": "HS256"}, sign=hs256(json.dumps(JWK).encode())), "algorithm"),
    "HS256 with nothing": (forge({"alg": "HS256"}, sign=hs256(b"")), "algorithm"),
    "PS256": (forge({"alg": "PS256"}), "algorithm"),
    "ES256 where the issuer has RS256": (forge({"alg": "ES256"}), "algorithm"),
    "of an unknown key": (forge({"kid": "another"}), "unknown-key"),
    "of no key": (forge({"kid": None}), "header"),
    "of a key that is a path": (forge({"kid": "../../dev/null"}), "unknown-key"),
    "of a key with a NUL": (forge({"kid": KID + "\0"}), "header"),
    "signed by a stranger": (forge(sign=lambda m: rs256(m, STRANGER)), "bad-signature"),
    "with the stranger's key embedded": (
        forge({"jwk": rsa_public_jwk(STRANGER.public_key())}, sign=lambda m: rs256(m, STRANGER)),
        "header",
    ),
    "with a key address": (forge({"jku": "https://evil.example.com/keys"}), "header"),
    "with a certificate": (forge({"x5c": ["AAAA"]}), "header"),
    "crit": (forge({"crit": ["exp"]}), "header"),
    "crit b64": (forge({"crit": ["b64"], "b64": False}), "header"),
    "an access token": (forge({"typ": "at+jwt"}), "header"),
    "two members in the header": (forge(TWINS[0]), "malformed"),
    "two members in the payload": (forge(claims=TWINS[1]), "malformed"),
    "17 KiB": (forge(claims={"pad": "x" * 12_800}), "too-large"),
    "a thousand dots": (Secret("." * 1000), "malformed"),
    "padded": (Secret(forge().reveal() + "=="), "malformed"),
    "a subject with a blank at its end": (forge(claims={"sub": "alice "}), "claims"),
    "a subject with a NUL": (forge(claims={"sub": "alice\0"}), "claims"),
    "no subject": (forge(claims={"sub": None}), "claims"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_id_token_that_is(front: Front, name: str) -> None:
    token, reason = BAD[name]
    front.refused(
        lambda: front.ask(token), "invalid_token", verified=False, line="token_refused", cause=f'"{reason}"'
    )
    assert token.reveal() not in json.dumps(front.lines)


@pytest.mark.parametrize(
    "reason", ["expired", "of an unknown key", "signed by a stranger", "alg none, our signature"]
)
def test_no_route_takes_a_token_that_another_refuses(front: Front, reason: str) -> None:  # CVE-2025-66406
    token = BAD[reason][0]
    proof = front.world.code(front.world.add_app(), front.world.step_up(front.world.token(), "dev"))
    calls: list[Callable[[], Any]] = [
        lambda: front.send("GET", "/roles", token=token),
        lambda: front.send("GET", "/factors", token=token),
        lambda: front.enrol(token),
        lambda: front.enrol(token, proof=proof),
        lambda: front.challenge(token, proof.auth_session.reveal()),
        lambda: front.complete(token, "x" * 43, otp="123456"),
        lambda: front.remove(token, "0123456789abcdef"),
        lambda: front.send("DELETE", "/factor-sessions", token=token),
        lambda: front.ask(token, "dev", proof),
    ]
    for call in calls:
        answer = front.refused(call, "invalid_token", verified=False, line="token_refused")
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_a_sign_in_older_than_the_policy_allows(front: Front) -> None:
    at_the_edge, too_old = (front.world.token(iat=NOW - age, exp=NOW + 9) for age in (3660, 3661))
    answer = front.refused(
        lambda: front.ask(too_old),
        "insufficient_user_authentication",
        verified=False,
        line="token_refused",
        cause="too-old",
    )
    assert 'max_age="3600"' in answer.headers["www-authenticate"]
    front.world.add_key()
    front.asked_again(lambda: front.ask(at_the_edge))


def test_a_token_while_its_issuers_keys_are_out_of_reach(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: Any = front.world.keys

    def down(*_: Any, **__: Any) -> bytes:
        raise UnavailableError("no route")

    monkeypatch.setattr(keys, "_fetch", down)
    front.refused(
        lambda: front.ask(forge()),
        "temporarily_unavailable",
        verified=False,
        line="identity_provider_unavailable",
    )


def test_a_strangers_issuer_is_never_contacted(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(front.world.keys, "_fetch", asked.append)
    for name in ("of an unknown issuer", "with a key address", "with a certificate", "17 KiB"):
        front.refused(
            lambda name=name: front.ask(BAD[name][0]), "invalid_token", verified=False, line="token_refused"
        )
    assert asked == []


def test_the_token_that_is_not_bent_is_taken(front: Front) -> None:
    key, token = front.world.add_key(), forge()
    proof = front.world.touch(token, key, front.world.step_up(token))
    front.issued(lambda: front.ask(token, proof=proof))
