"""The mint key in a file of the broker's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path


class LocalSigner:
    """``credx.jose.Signer`` over an RSA key in an owner-only file."""

    kid: str

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the key, or make it on first start. Raises ``ConfigError``."""
        raise NotImplementedError

    def public_jwk(self) -> dict[str, str]:
        raise NotImplementedError

    def sign(self, message: bytes) -> bytes:
        raise NotImplementedError
