"""A hundred thousand mutants of a good ID token: none is accepted, none is more than a no, none costs much.

A run that fails names the seed of its batch; ``--hypothesis-seed`` makes all batches those of that run.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import mutants
from support.broker_world import IDP_KEY, ISSUER, NOW, World
from support.mutants import Good, mutant

from credx.broker.front.answers import Request
from credx.jose import TokenError, TrustedIssuer, VerificationKey, verify_id_token
from credx.model import Secret
from credx.protocol import Ask, TokenRequest

if TYPE_CHECKING:
    from credx.model import VerifiedClaims

BATCHES, BATCH = 1000, 100
THROUGH_THE_API = 2000
COST = 20  # times what the largest good token takes
MEMORY = 2 * 1024 * 1024  # bytes; a token of 16 KiB becomes a few hundred KiB of Python objects at the most

P256 = ec.generate_private_key(ec.SECP256R1())
PEM = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
CLAIMS = {"iss": ISSUER, "aud": "credx-cli", "sub": "alice", "iat": NOW, "exp": NOW + 3600, "groups": ["sre"]}
ISSUERS = {ISSUER: TrustedIssuer(issuer=ISSUER, audience="credx-cli")}
ES256 = Good(
    {"alg": "ES256", "kid": "ec", "typ": "JWT"},
    CLAIMS,
    lambda message: mutants.es256(P256, message),
    P256.public_key().public_bytes(*PEM),
)
RS256 = Good(
    {"alg": "RS256", "kid": "rsa", "typ": "JWT"},
    CLAIMS,
    lambda message: IDP_KEY.sign(message, padding.PKCS1v15(), hashes.SHA256()),
    IDP_KEY.public_key().public_bytes(*PEM),
)


class Keys:
    def key(self, issuer: Any, kid: str, algorithm: str, *, now: float) -> VerificationKey:
        if kid == "ec":
            return VerificationKey(algorithm="ES256", public=P256.public_key())
        return VerificationKey(algorithm="RS256", public=IDP_KEY.public_key())


def verify(token: str) -> VerifiedClaims:
    return verify_id_token(Secret(token), issuers=ISSUERS, keys=Keys(), now=NOW, max_age=3600)


def cost(token: str) -> float:
    """Seconds of this thread that it takes to refuse a mutant, or to accept a good token."""
    started = time.thread_time()
    with contextlib.suppress(TokenError):
        verify(token)
    return time.thread_time() - started


def largest() -> float:
    large = Good(ES256.header, CLAIMS | {"groups": ["x" * 36] * 270}, ES256.sign, ES256.public).token()
    assert 14_000 < len(large) < 16_384
    assert verify(large).subject == "alice"
    return min(cost(large) for _ in range(20))


LARGEST = largest()


def test_the_good_tokens_are_good() -> None:
    for good in (ES256, RS256):
        assert verify(good.token()).subject == "alice"


@settings(max_examples=BATCHES, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**63))
def test_mutants_of_a_good_token(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 -- to be repeated
    limit = COST * LARGEST
    for number in range(BATCH):
        token = mutant(RS256 if number % 20 == 0 else ES256, rng)
        started = time.thread_time()
        try:
            verify(token)
        except TokenError:
            pass
        else:
            raise AssertionError((seed, number, token))
        if time.thread_time() - started > limit:
            assert min(cost(token) for _ in range(3)) < limit, (seed, number, token[:200])


def test_mutants_are_refused_for_every_reason_there_is() -> None:
    rng, reasons = random.Random(1), set()  # noqa: S311
    for _ in range(3000):
        try:
            verify(mutant(ES256, rng))
        except TokenError as exc:
            reasons.add(exc.reason)
    assert reasons == {
        "malformed", "header", "algorithm", "bad-signature", "claims", "wrong-audience", "unknown-issuer", "expired",
        "too-old", "not-yet-valid", "too-large",
    }  # fmt: skip


@pytest.mark.parametrize("token", ["a" * 16_000, "a." * 8000, "." * 16_000, "a.b", ES256.token() + ".a"])
def test_nothing_is_decoded_of_what_is_not_in_three_parts(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2025-30204, CVE-2025-27144, CVE-2025-66506: counted before anything is split."""
    decoded: list[str] = []
    monkeypatch.setattr("credx.jose.verify.base64url", decoded.append)
    with pytest.raises(TokenError, match="three parts"):
        verify(token)
    assert decoded == []


def test_the_memory_that_mutants_take() -> None:
    seed = random.SystemRandom().getrandbits(63)
    rng = random.Random(seed)  # noqa: S311
    tokens = [mutant(ES256, rng) for _ in range(1500)]
    for token in tokens[:50]:
        cost(token)
    tracemalloc.start()
    try:
        for number, token in enumerate(tokens):
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            cost(token)
            assert tracemalloc.get_traced_memory()[1] - before < MEMORY, (seed, number)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < MEMORY, seed  # nothing of them stays


def test_mutants_at_the_door() -> None:
    seed = random.SystemRandom().getrandbits(63)
    rng = random.Random(seed)  # noqa: S311
    world, statuses = World(), set()
    for number in range(THROUGH_THE_API):
        token = mutant(RS256, rng)
        form = number % 2 == 0
        headers = {"content-type": "application/x-www-form-urlencoded"}
        bearer = {"authorization": "Bearer " + token.encode("utf-8", "surrogatepass").decode("latin-1")}
        response = world.api.handle(
            Request(
                method="POST" if form else "GET",
                path="/token" if form else "/roles",
                headers=headers if form else bearer,
                body=asked(token) if form else b"",
                client=f"10.0.{number % 250}.1",
            )
        )
        statuses.add(response.status)
        assert response.status in (400, 401, 413), (seed, number, response.status)
        assert "error" in json.loads(response.body), (seed, number)
    assert 401 in statuses
    assert world.records() == []
    assert not world.store._rows  # type: ignore[attr-defined]


def asked(token: str) -> bytes:
    whole = token.encode("utf-8", "replace").decode()  # a form cannot hold half a surrogate pair
    return TokenRequest(subject_token=Secret(whole), ask=Ask(role="prod")).to_form()
