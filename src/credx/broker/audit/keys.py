"""The key of one audit writer: P-256, made at the start of the process, in memory and nowhere else.

ES256 (RFC 7518 3.4) takes a tenth of the time of the mint key's RS256, and the mint key may be out of the
process. Every signature is in its low form: of the two that verify for one message, (r, s) and (r, n - s),
only one is taken, so that nobody without the key can make another record out of a record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from credx.strict import base64url, to_base64url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Verifier = Callable[[bytes, str], bool]  # (message, base64url signature)

BYTES: Final = 32  # of a coordinate and of each half of a signature (RFC 7518 3.4 and 6.2.1.2)
ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SP 800-186 3.2.1.3


class WriterKey:
    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        numbers = self._key.public_key().public_numbers()
        self.jwk = {"kty": "EC", "crv": "P-256", "x": _octets(numbers.x), "y": _octets(numbers.y)}

    def sign(self, message: bytes) -> str:
        """Base64url of r and s."""
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(SHA256())))
        return to_base64url(r.to_bytes(BYTES, "big") + min(s, ORDER - s).to_bytes(BYTES, "big"))


def verifier(jwk: Mapping[str, object]) -> Verifier:
    """What verifies signatures of ``WriterKey.jwk``.

    Raises:
        ValueError: it is no such key.
    """
    if (jwk.get("kty"), jwk.get("crv")) != ("EC", "P-256"):
        raise ValueError("no P-256 key")
    x, y = (base64url(str(jwk.get(name))) for name in ("x", "y"))
    if len(x) != BYTES or len(y) != BYTES:
        raise ValueError("no P-256 key")
    numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1())
    key, es256 = numbers.public_key(), ec.ECDSA(SHA256())  # refuses a point off the curve

    def verifies(message: bytes, signature: str) -> bool:
        try:
            raw = base64url(signature)
            r, s = int.from_bytes(raw[:BYTES]), int.from_bytes(raw[BYTES:])
            if len(raw) != 2 * BYTES or s > ORDER // 2:
                return False
            key.verify(encode_dss_signature(r, s), message, es256)
        except (InvalidSignature, ValueError):
            return False
        return True

    return verifies


def _octets(number: int) -> str:
    return to_base64url(number.to_bytes(BYTES, "big"))
