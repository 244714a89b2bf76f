"""People and ID tokens of the sandbox's identity provider, good ones and, for tests, bad ones.

pyjwt's primitives sign here, apart from ``credx.jose``: a codec that checks itself proves nothing.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import get_default_algorithms

if TYPE_CHECKING:
    from collections.abc import Mapping

RSA_BITS: Final = 2048


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who can sign in. ``subject`` is opaque on purpose: nobody may rely on it being a name."""

    username: str
    subject: str
    name: str
    groups: tuple[str, ...]
    amr: tuple[str, ...] = ("pwd",)

    @property
    def email(self) -> str:
        return f"{self.username}@example.com"

    def claims(self, scope: str) -> dict[str, Any]:
        """The claims about this person that these scopes give (OpenID Connect Core 5.4)."""
        granted = scope.split()
        claims: dict[str, Any] = {"sub": self.subject}
        if "profile" in granted:
            claims |= {"name": self.name, "preferred_username": self.username, "groups": list(self.groups)}
        if "email" in granted or "profile" in granted:
            claims |= {"email": self.email, "email_verified": True}
        return claims


PEOPLE: Final = (
    Person(
        username="alice",
        subject="00u1f7k2m9q4x8c3v5n6",
        name="Alice Sørensen",
        groups=("sre", "dev"),
    ),
    Person(username="bob", subject="00u8b3d6g1j5p7r2t4w9", name="Bob Okafor", groups=("dev",)),
)


class SigningKey:
    """One RSA key with its public JWK."""

    def __init__(self) -> None:
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        numbers = self.private.public_key().public_numbers()
        n, e = (_number(value) for value in (numbers.n, numbers.e))
        thumbprint = json.dumps({"e": e, "kty": "RSA", "n": n}, separators=(",", ":"))  # RFC 7638 3
        self.kid = encode(sha256(thumbprint.encode()).digest())
        self.jwk = {"kty": "RSA", "kid": self.kid, "use": "sig", "alg": "RS256", "n": n, "e": e}


def compact(header: Mapping[str, Any], payload: bytes, *, algorithm: str, key: Any) -> str:
    """A compact JWS over exactly these bytes, with no check at all: a bad header signs as well as a good one.

    ``key`` is what pyjwt's algorithm of that name signs with: a private key, or bytes for HS256.
    """
    signing_input = f"{encode(_json(header))}.{encode(payload)}"
    if algorithm == "none":
        return signing_input + "."
    signature = get_default_algorithms()[algorithm].sign(signing_input.encode(), key)
    return f"{signing_input}.{encode(signature)}"


def encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def payload_of(claims: Mapping[str, Any]) -> bytes:
    return _json(claims)


def _number(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))
