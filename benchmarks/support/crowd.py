"""People with a security key and an ID token each, put straight into the store; and the policy that lets them in.

Everything that a person sends is made here beforehand, but for the one signature of the security key that
answers the broker's challenge.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fido2.cose import ES256
from fido2.webauthn import AttestedCredentialData

from credx.broker.signer import LocalSigner
from credx.broker.stores import Put
from credx.broker.users import Factor, credential_key, profile_key
from credx.broker.webauthn import credential_hash, user_handle
from credx.jose import sign_jwt
from credx.protocol import GRANT_TYPE, ID_TOKEN_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from credx.broker.stores import Store, Write

ORIGIN: Final = "https://credx.example.com"
CLIENT: Final = "credx-cli"
ROLE: Final = "prod"  # a touch for each issuance
KEPT_ROLE: Final = "dev"  # one touch serves for hours
BATCH: Final = 90  # writes of one apply; a store takes 100
UP, UV = 0x01, 0x04  # flags of authenticator data

_BROKER = """
version = 1
[broker]
issuer = "{origin}"
name = "Example Corp"
max_token_age = "24h"
[[identity_providers]]
issuer = "{idp}"
client_id = "{client}"
readable_claim = "email"
groups_claim = "groups"
[groups.sre]
claims = ["sre"]
"""
_ROLE = """
[roles.{name}]
description = "{name}"
arn = "arn:aws:iam::111122223333:role/{name}"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
duration = "1h"
roles_claim = true
{more}
[[roles.{name}.statements]]
effect = "Allow"
actions = ["s3:GetObject"]
resources = ["arn:aws:s3:::logs/*"]
"""


def policy_text(idp: str, *, more_roles: int = 0) -> str:
    """A policy file with ``ROLE``, ``KEPT_ROLE`` and as many more roles as wanted."""
    kept = 'factor_max_age = "8h"\nfactor_group = "dev"'
    roles = [_ROLE.format(name=ROLE, more=""), _ROLE.format(name=KEPT_ROLE, more=kept)]
    roles += [_ROLE.format(name=f"role-{number}", more="") for number in range(more_roles)]
    return _BROKER.format(origin=ORIGIN, idp=idp, client=CLIENT) + "".join(roles)


@dataclass(kw_only=True)
class Somebody:
    """One person; ``counter`` is that of the security key."""

    id_token: str
    key: ec.EllipticCurvePrivateKey
    credential_id: str
    handle: str
    counter: int = 0
    factor_session: str = ""

    def ask(self, role: str, **proof: str) -> bytes:
        """The form of ``POST /token``."""
        fields = {
            "grant_type": GRANT_TYPE,
            "subject_token": self.id_token,
            "subject_token_type": ID_TOKEN_TYPE,
            "audience": role,
        }
        return urlencode(fields | proof).encode("ascii")

    def touch(self, challenge: str) -> str:
        """The security key's answer, as AuthenticationResponseJSON."""
        self.counter += 1
        client_data = _dump({"type": "webauthn.get", "challenge": challenge, "origin": ORIGIN})
        data = _RP_HASH + bytes([UP | UV]) + self.counter.to_bytes(4, "big")
        signature = self.key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "clientDataJSON": b64(client_data),
            "authenticatorData": b64(data),
            "signature": b64(signature),
            "userHandle": self.handle,
        }
        named = {"id": self.credential_id, "rawId": self.credential_id, "type": "public-key"}
        return _dump({**named, "response": response, "clientExtensionResults": {}}).decode()


_RP_HASH: Final = hashlib.sha256(b"credx.example.com").digest()


class Crowd:
    """Makes people. One identity provider's key, and one security key that is in everybody's hand: only the
    credential ids differ, which is all that the broker's store knows.
    """

    def __init__(self, idp: str) -> None:
        self.idp = idp
        self.signer = LocalSigner(rsa.generate_private_key(public_exponent=65537, key_size=2048))
        self.key = ec.generate_private_key(ec.SECP256R1())

    def key_set(self) -> bytes:
        return _dump({"keys": [self.signer.public_jwk()]})

    def user_key(self, subject: str) -> str:
        return hashlib.sha256(f"{self.idp}\0{subject}".encode()).hexdigest()

    def person(self, subject: str) -> Somebody:
        now = int(time.time())
        claims = {
            "iss": self.idp,
            "aud": CLIENT,
            "sub": subject,
            "iat": now,
            "exp": now + 8 * 3600,
            "email": f"{subject}@example.com",
            "name": "Some Body",
            "groups": ["sre", "staff", "everybody"],
        }
        return Somebody(
            id_token=sign_jwt(claims, signer=self.signer).reveal(),
            key=self.key,
            credential_id=b64(_credential_id(subject)),
            handle=b64(user_handle(self.user_key(subject))),
        )

    def enrol(self, store: Store, subjects: Iterable[str], *, factors: int = 1) -> None:
        """What enrolment leaves in the store for each of them: profile, factors, owned credential ids."""
        for writes in _batches(w for subject in subjects for w in self._writes(subject, factors)):
            store.apply(writes, now=time.time())

    def _writes(self, subject: str, factors: int) -> Iterator[Write]:
        user_key = self.user_key(subject)
        profile = {"user": subject, "issuer": self.idp, "subject": subject, "had_factor": True}
        yield Put(key=profile_key(user_key), value=profile, expected=0)
        for number in range(factors):
            material = self._material(f"{subject}/{number}" if number else subject)
            factor_id = hashlib.sha256(material["credential_id"].encode()).hexdigest()[:16]
            factor = Factor(
                id=factor_id, kind="webauthn", name=f"key {number}", created_at=1, material=material
            )
            yield factor.put(user_key)
            owned = credential_key(credential_hash(material))
            yield Put(key=owned, value={"user_key": user_key}, expected=0)

    def _material(self, name: str) -> dict[str, Any]:
        credential_id = _credential_id(name)
        public = ES256.from_cryptography_key(self.key.public_key())
        attested = AttestedCredentialData.create(b"\0" * 16, credential_id, public)
        return {
            "credential_id": b64(credential_id),
            "credential": b64(attested),
            "counter": 0,
            "backup_eligible": False,
            "backed_up": False,
            "aaguid": "00000000-0000-0000-0000-000000000000",
            "transports": ["usb"],
        }


def _credential_id(name: str) -> bytes:
    return hashlib.sha256(b"credential " + name.encode()).digest()


def _batches(writes: Iterable[Write]) -> Iterator[Sequence[Write]]:
    batch: list[Write] = []
    for write in writes:
        batch.append(write)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
