"""Signing: compact RS256, and the public half as STS wants it published."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from credx.model import Secret
from credx.strict import to_base64url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from credx.jose.trust import Signer


def sign_jwt(claims: Mapping[str, Any], *, signer: Signer) -> Secret:
    """A compact JWS (RFC 7515 7.1) over ``claims``.

    Raises:
        ValueError: a claim that is no JSON (NaN, a lone object).
    """
    header = {"alg": "RS256", "kid": signer.kid, "typ": "JWT"}
    signing_input = f"{_segment(header)}.{_segment(claims)}"
    return Secret(f"{signing_input}.{to_base64url(signer.sign(signing_input.encode('ascii')))}")


def rsa_public_jwk(key: RSAPublicKey) -> dict[str, str]:
    """``kty``, ``kid`` (RFC 7638 thumbprint), ``use``, ``alg``, ``n``, ``e`` and nothing else: STS refuses a
    key with any ``key_ops`` and holds an ``x5c`` against the numbers.
    """
    numbers = key.public_numbers()
    required = {"e": _number(numbers.e), "kty": "RSA", "n": _number(numbers.n)}
    # RFC 7638 3: the required members only, in lexicographic order, no white space
    digest = hashlib.sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).digest()
    return {
        "kty": "RSA",
        "kid": to_base64url(digest),
        "use": "sig",
        "alg": "RS256",
        "n": required["n"],
        "e": required["e"],
    }


def _segment(value: Mapping[str, Any]) -> str:
    return to_base64url(json.dumps(dict(value), separators=(",", ":"), allow_nan=False).encode("ascii"))


def _number(value: int) -> str:
    return to_base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))  # RFC 7518 2, Base64urlUInt
