"""Tokens: the one place that verifies an ID token and the one that signs a JWT. The only home of PyJWT."""

from credx.jose.keys import RemoteKeys
from credx.jose.sign import rsa_public_jwk, sign_jwt
from credx.jose.trust import (
    ALGORITHMS,
    CLOCK_LEEWAY,
    KeySource,
    Signer,
    TokenError,
    TrustedIssuer,
    VerificationKey,
)
from credx.jose.verify import verify_id_token

__all__ = [
    "ALGORITHMS",
    "CLOCK_LEEWAY",
    "KeySource",
    "RemoteKeys",
    "Signer",
    "TokenError",
    "TrustedIssuer",
    "VerificationKey",
    "rsa_public_jwk",
    "sign_jwt",
    "verify_id_token",
]
