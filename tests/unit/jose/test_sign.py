from __future__ import annotations

import json

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from credx.jose import rsa_public_jwk, sign_jwt
from credx.strict import base64url

PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class LocalSigner:
    kid = "the-kid"

    def public_jwk(self) -> dict[str, str]:
        return rsa_public_jwk(PRIVATE.public_key())

    def sign(self, message: bytes) -> bytes:
        return PRIVATE.sign(message, padding.PKCS1v15(), hashes.SHA256())


def test_a_token_that_pyjwt_verifies() -> None:
    token = sign_jwt(
        {"sub": "ü", "aud": "a", "https://aws.amazon.com/tags": {"k": ["v"]}}, signer=LocalSigner()
    )
    key = jwt.PyJWK(rsa_public_jwk(PRIVATE.public_key()))
    decoded = jwt.decode_complete(token.reveal(), key, algorithms=["RS256"], audience="a")
    assert decoded["header"] == {"alg": "RS256", "kid": "the-kid", "typ": "JWT"}
    assert decoded["payload"] == {"sub": "ü", "aud": "a", "https://aws.amazon.com/tags": {"k": ["v"]}}
    assert "=" not in token.reveal()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_claim_that_other_parsers_refuse(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        sign_jwt({"x": value}, signer=LocalSigner())


def test_the_published_key_has_six_members_and_no_more() -> None:
    jwk = rsa_public_jwk(PRIVATE.public_key())
    assert set(jwk) == {"kty", "kid", "use", "alg", "n", "e"}
    assert int.from_bytes(base64url(jwk["n"]), "big") == PRIVATE.public_key().public_numbers().n
    assert jwk["e"] == "AQAB"
    assert json.loads(json.dumps(jwk)) == jwk


def test_the_thumbprint_of_rfc_7638_3_1() -> None:
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRX"
        "jBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSq"
        "zs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHa"
        "Q-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
    )
    number = int.from_bytes(base64url(modulus), "big")
    jwk = rsa_public_jwk(rsa.RSAPublicNumbers(65537, number).public_key())
    assert jwk["kid"] == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert jwk["n"] == modulus
