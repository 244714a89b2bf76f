"""The mint key in a file of the broker's own: for a broker on one host.

RSA-2048 is made, up to 4096 is read: 2048 is the one size that STS was seen to accept, its strength (112 bit,
NIST SP 800-57 part 1 table 2) is good until 2030, a signature is worth something for minutes only, and
signing takes a third of the time of 3072.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from credx.broker.ownfile import read_or_create
from credx.errors import ConfigError
from credx.jose import rsa_public_jwk
from credx.strict import base64url

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NEW_KEY_BITS: Final = 2048
KEY_BITS: Final = range(2048, 4096 + 1)
EXPONENT: Final = 65537


class LocalSigner:
    """``credx.jose.Signer`` over an RSA key. ``kid`` is its RFC 7638 thumbprint."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self._key = key
        self._jwk = rsa_public_jwk(key.public_key())
        self.kid = self._jwk["kid"]

    @classmethod
    def open(cls, path: Path) -> Self:
        """The key in the owner-only file ``path``, made on the first start.

        Raises:
            ConfigError: the file is open to others, foreign, a link, or holds another kind of key.
        """
        hint = f"restore {path} from a backup, or move it away to start with a new key"
        try:
            key = load_pem_private_key(read_or_create(path, _new_key), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            raise ConfigError(f"{path} is no unencrypted private key in PEM", hint=hint) from exc
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ConfigError(f"{path} is no RSA key", hint=hint)
        if key.key_size not in KEY_BITS or key.public_key().public_numbers().e != EXPONENT:
            raise ConfigError(f"{path} is no RSA key of 2048 to 4096 bit with exponent 65537", hint=hint)
        return cls(key)

    def public_jwk(self) -> dict[str, str]:
        return dict(self._jwk)

    def sign(self, message: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 3.3)."""
        return self._key.sign(message, padding.PKCS1v15(), SHA256())


def _new_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=EXPONENT, key_size=NEW_KEY_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def verifies(jwk: Mapping[str, str], message: bytes, signature: str) -> bool:
    """Whether ``signature`` (base64url) over ``message`` is by the key of ``rsa_public_jwk``."""
    n, e = (int.from_bytes(base64url(jwk[name]), "big") for name in ("n", "e"))
    key = rsa.RSAPublicNumbers(e, n).public_key()
    try:
        key.verify(base64url(signature), message, padding.PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True
