"""A provider that answers from memory, over the same ``Http`` interface."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from credx.errors import UnavailableError
from credx.http import Response
from credx.identity.discovery import Provider
from credx.jose import RemoteKeys, rsa_public_jwk, sign_jwt

NOW = 1_800_000_000
ISSUER = "https://idp.example.com"
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class LocalSigner:
    kid = rsa_public_jwk(PRIVATE.public_key())["kid"]

    def public_jwk(self) -> dict[str, str]:
        return rsa_public_jwk(PRIVATE.public_key())

    def sign(self, message: bytes) -> bytes:
        return PRIVATE.sign(message, padding.PKCS1v15(), hashes.SHA256())


@dataclass
class Idp:
    """``answers`` of the token and revocation endpoints are taken in turn; ``forms`` are what was posted."""

    document: dict[str, Any] = field(
        default_factory=lambda: {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize?tenant=1",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": "https://keys.example.net/jwks",
            "revocation_endpoint": f"{ISSUER}/revoke",
            "code_challenge_methods_supported": ["plain", "S256"],
        }
    )
    answers: list[tuple[int, Any]] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    down: bool = False

    def fetch(self, url: str, *, deadline: float = 10) -> bytes:
        self.fetched.append(url)
        if self.down:
            raise UnavailableError("down")
        document = (
            self.document if url.endswith("openid-configuration") else {"keys": [LocalSigner().public_jwk()]}
        )
        return document if isinstance(document, bytes) else json.dumps(document).encode()

    def request(self, method: str, url: str, *, headers: Any, body: bytes, cap: int) -> Response:
        assert method == "POST"
        assert headers["content-type"] == "application/x-www-form-urlencoded"
        if self.down:
            raise UnavailableError("down")
        self.forms.append({"_url": url, **dict(parse_qsl(body.decode(), strict_parsing=True))})
        status, answer = self.answers.pop(0)
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return Response(status=status, headers={}, body=raw)

    @property
    def keys(self) -> RemoteKeys:
        return RemoteKeys(self.fetch)

    @staticmethod
    def id_token(**overrides: Any) -> str:
        claims = {"iss": ISSUER, "sub": "u-1", "aud": "credx-cli", "iat": NOW, "exp": NOW + 300, **overrides}
        return sign_jwt(claims, signer=LocalSigner()).reveal()


@pytest.fixture
def idp() -> Idp:
    return Idp()


@pytest.fixture
def provider() -> Provider:
    return Provider(
        issuer=ISSUER,
        authorization_endpoint=f"{ISSUER}/authorize?tenant=1",
        token_endpoint=f"{ISSUER}/token",
        jwks_uri="https://keys.example.net/jwks",
        revocation_endpoint=f"{ISSUER}/revoke",
    )


@pytest.fixture
def now() -> int:
    return NOW
