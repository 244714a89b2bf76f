"""What the software key remembers: its credentials, in one 0600 file that processes share."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from credx.sandbox.files import read_private, write_private

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Credential:
    id: bytes
    rp_id: str
    user: Mapping[str, Any]
    private_key: ec.EllipticCurvePrivateKey
    counter: int
    discoverable: bool

    def to_json(self) -> dict[str, Any]:
        der = self.private_key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "id": _text(self.id),
            "rp_id": self.rp_id,
            "user": {**self.user, "id": _text(self.user["id"])},
            "private_key": _text(der),
            "counter": self.counter,
            "discoverable": self.discoverable,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Credential:
        key = serialization.load_der_private_key(_bytes(value["private_key"]), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError("the security key's file holds a key of another kind")
        return cls(
            id=_bytes(value["id"]),
            rp_id=value["rp_id"],
            user={**value["user"], "id": _bytes(value["user"]["id"])},
            private_key=key,
            counter=value["counter"],
            discoverable=value["discoverable"],
        )

    def descriptor(self) -> dict[str, Any]:
        return {"id": self.id, "type": "public-key"}

    def same_account(self, other: Credential) -> bool:
        return self.rp_id == other.rp_id and self.user["id"] == other.user["id"]

    def sign(self, message: bytes) -> bytes:
        return self.private_key.sign(message, ec.ECDSA(hashes.SHA256()))


def load(path: Path) -> tuple[Credential, ...]:
    """What is registered, the oldest first."""
    content = read_private(path)
    if content is None:
        return ()
    return tuple(Credential.from_json(value) for value in json.loads(content)["credentials"])


def save(path: Path, credentials: Sequence[Credential]) -> None:
    """Replace all of it. The caller holds ``files.locked(path)`` since he loaded."""
    content = json.dumps({"version": 1, "credentials": [c.to_json() for c in credentials]}, indent=1)
    write_private(path, content.encode())


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)
