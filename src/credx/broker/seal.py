"""Secrets that the store has to give back (TOTP seeds), encrypted under a key that is not in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from credx.errors import CredxError

if TYPE_CHECKING:
    from pathlib import Path


class SealError(CredxError):
    """A sealed value does not open: another key, another context, or tampered with."""


class Sealer:
    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the key, or make it on first start. Raises ``ConfigError``."""
        raise NotImplementedError

    def seal(self, plaintext: bytes, context: str) -> str:
        """``context`` says what the value is and whose, such as ``totp/<user key>/<factor id>``."""
        raise NotImplementedError

    def open_(self, sealed: str, context: str) -> bytes:
        """Raises ``SealError``."""
        raise NotImplementedError
