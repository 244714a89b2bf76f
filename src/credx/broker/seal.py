"""Secrets that the store has to give back (TOTP seeds), encrypted under a key that is not in the store.

AES-256-GCM with a random 96-bit nonce: good for 2**32 values under one key (NIST SP 800-38D 8.3). The
context is authenticated, so a sealed value moved to another user's item does not open there.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from credx.broker.ownfile import read_or_create
from credx.errors import ConfigError, CredxError
from credx.strict import base64url, to_base64url

if TYPE_CHECKING:
    from pathlib import Path

    from credx.broker.handles import Rng

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12  # SP 800-38D 5.2.1.1
TAG_BYTES: Final = 16
MAX_PLAINTEXT: Final = 4096  # bytes; a TOTP seed has 20 to 64

_VERSION: Final = "v1."


class SealError(CredxError):
    """A sealed value does not open: another key, another context, or changed."""


class Sealer:
    """``seal`` and ``open_`` under one key of 32 bytes."""

    def __init__(self, key: bytes, rng: Rng = os.urandom) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError("a seal key has 32 bytes")
        self._cipher = AESGCM(key)
        self._rng = rng

    @classmethod
    def open(cls, path: Path, rng: Rng = os.urandom) -> Self:
        """The key in the owner-only file ``path`` (base64, one line), made on the first start.

        Raises:
            ConfigError: the file is open to others, foreign, a link, or holds no such key.
        """
        content = read_or_create(path, lambda: base64.b64encode(rng(KEY_BYTES)) + b"\n")
        try:
            return cls(base64.b64decode(content.strip(), validate=True), rng)
        except (ValueError, binascii.Error) as exc:
            raise ConfigError(
                f"{path} is no key of 32 bytes in base64",
                hint=f"restore {path} from a backup; without it every TOTP factor is enrolled anew",
            ) from exc

    def seal(self, plaintext: bytes, context: str) -> str:
        """Printable text. ``context`` says what the value is and whose, such as ``totp/<user key>/<id>``."""
        if not context or len(plaintext) > MAX_PLAINTEXT:
            raise ValueError("a sealed value needs a context and a bounded size")
        nonce = self._rng(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, plaintext, _bound(context))
        return _VERSION + to_base64url(sealed)

    def open_(self, sealed: str, context: str) -> bytes:
        """The plaintext. Raises ``SealError``."""
        if not sealed.startswith(_VERSION):
            raise SealError("a sealed value is of an unknown version")
        try:
            raw = base64url(sealed.removeprefix(_VERSION))
            if len(raw) < NONCE_BYTES + TAG_BYTES:
                raise SealError("a sealed value is too short")
            return self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _bound(context))
        except (InvalidTag, ValueError) as exc:
            raise SealError(
                "a sealed value does not open",
                hint="the seal key is another one than it was sealed with, or the store was changed",
            ) from exc


def _bound(context: str) -> bytes:
    return b"credx seal v1\0" + context.encode()
