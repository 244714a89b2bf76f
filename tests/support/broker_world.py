"""A whole broker: fake clock, local keys, a security key and an authenticator app in software. In memory, unless
a test brings a store and a source of keys.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
from typing import TYPE_CHECKING, Any

import pyotp
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fido2.cose import ES256
from fido2.webauthn import (
    AttestationObject,
    AttestedCredentialData,
    AuthenticatorData,
    CollectedClientData,
)
from support.memory_store import MemoryStore

from credx.broker.audit import Audit, new_writer_id
from credx.broker.front.answers import Request, Response
from credx.broker.front.api import Api
from credx.broker.invitation import create_invitation
from credx.broker.policy.file import parse_policy
from credx.broker.seal import Sealer
from credx.broker.service import Broker
from credx.broker.signer import LocalSigner
from credx.errors import UnavailableError
from credx.jose import VerificationKey, sign_jwt
from credx.model import AwsCredentials, Secret
from credx.protocol import Ask, StepUp, TokenRequest, TotpProof, WebAuthnProof

if TYPE_CHECKING:
    from credx.broker.stores import Store
    from credx.protocol import Issued, Proof

NOW = 1_800_000_000
ORIGIN = "https://credx.example.com"
RP_ID = "credx.example.com"
ISSUER = "https://idp.example.com"
CI = "https://ci.example.com"
TARGET = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0123456789abcdef0"
UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40

POLICY = """
version = 1
[broker]
issuer = "https://credx.example.com"
name = "Example Corp"
max_token_age = "1h"
[[identity_providers]]
issuer = "https://idp.example.com"
client_id = "credx-cli"
readable_claim = "email"
groups_claim = "groups"
mfa_amr = ["mfa"]
scopes = ["openid", "profile"]
algorithms = ["RS256"]
[[identity_providers]]
issuer = "https://ci.example.com"
client_id = "credx-ci"
readable_claim = "job"
scopes = ["openid"]
algorithms = ["RS256"]
workloads = true
[groups.sre]
claims = ["sre"]
issuer = "https://idp.example.com"
[groups.others]
users = ["https://idp.example.com|somebody-else"]
[groups.deploy]
workloads = [{ issuer = "https://ci.example.com", claims = { repository_id = "42" } }]
"""

ROLE = """
[roles.{name}]
description = "{name}"
arn = "arn:aws:iam::111122223333:role/{name}"
region = "eu-central-1"
groups = {groups}
factors = {factors}
duration = "1h"
roles_claim = true
{more}
"""


def role(name: str, factors: str = '["webauthn"]', more: str = "", groups: str = '["sre"]') -> str:
    return ROLE.format(name=name, factors=factors, more=more, groups=groups)


ROLES = (
    role("prod")
    + role("dev", '["webauthn", "totp"]', 'factor_max_age = "8h"\nfactor_group = "dev"')
    + role("dev-short", '["webauthn", "totp"]', 'factor_max_age = "10m"\nfactor_group = "dev"')
    + role("dev-key", '["webauthn"]', 'factor_max_age = "8h"\nfactor_group = "dev"')
    + role("other-group", '["webauthn", "totp"]', 'factor_max_age = "8h"')
    + role("touch", '["webauthn"]', 'user_verification = false\nfactor_max_age = "8h"\nfactor_group = "dev"')
    + role(
        "shell",
        '["webauthn"]',
        'target = "required"\noperations = ["shell"]\n'
        'targets = ["arn:aws:ec2:eu-central-1:111122223333:instance/*"]',
    )
    + role(
        "brokered",
        '["webauthn"]',
        'sts = "broker"\n[[roles.brokered.statements]]\neffect = "Allow"\nactions = ["s3:GetObject"]\n'
        'resources = ["arn:aws:s3:::logs/*"]',
    ).replace("roles_claim = true\n", "")
    + role("foreign", groups='["others"]')
    + role("deploy", '["workload"]', groups='["deploy"]')
    + role("deploy-otp", '["totp"]', groups='["deploy"]')
)

IDP_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
MINT_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Clock:
    def __init__(self) -> None:
        self.time = float(NOW)

    def __call__(self) -> float:
        return self.time

    def pass_(self, seconds: float) -> None:
        self.time += seconds


class Keys:
    down = False

    def key(self, issuer: Any, kid: str, algorithm: str, *, now: float) -> VerificationKey:
        if self.down:
            raise UnavailableError("no route to the identity provider")
        return VerificationKey(algorithm="RS256", public=IDP_KEY.public_key())


class Sts:
    """What the broker asked STS for; ``fails`` is raised instead of an answer."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.fails: Exception | None = None

    def __call__(self, **asked: Any) -> AwsCredentials:
        self.asked.append(asked)
        if self.fails is not None:
            raise self.fails
        return AwsCredentials(
            access_key_id="ASIAEXAMPLE",
            secret_access_key=Secret("very-secret-key"),
            session_token=Secret("very-secret-session"),
            expiration=NOW + 7200,
            account_id="111122223333",
            region=asked["region"],
            role_arn=asked["role_arn"],
        )


class SecurityKey:
    """A WebAuthn authenticator and its client. Every field of an answer can be bent by the test."""

    def __init__(self, *, counts: bool = True) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.credential_id = os.urandom(32)
        self.counter = itertools.count(1) if counts else itertools.repeat(0)
        self.user_handle = b""

    def register(
        self,
        options: dict[str, Any],
        *,
        origin: str = ORIGIN,
        flags: int = UP | UV,
        cose: Any = None,
        **bend: Any,
    ) -> dict[str, Any]:
        self.user_handle = base64.urlsafe_b64decode(options["user"]["id"] + "==")
        public = cose if cose is not None else ES256.from_cryptography_key(self.private.public_key())
        attested = AttestedCredentialData.create(b"\0" * 16, self.credential_id, public)
        client_data = self._client_data(bend.pop("type", "webauthn.create"), options, origin, bend)
        data = AuthenticatorData.create(
            hashlib.sha256(bend.pop("rp_id", options["rp"]["id"]).encode()).digest(),
            flags | AT,
            next(self.counter),
            attested,
        )
        return self._answer(
            {
                "clientDataJSON": b64(client_data),
                "attestationObject": b64(AttestationObject.create("none", data, {})),
                "transports": ["usb"],
            },
            bend,
        )

    def answer(
        self, options: dict[str, Any], *, origin: str = ORIGIN, flags: int = UP | UV, **bend: Any
    ) -> dict[str, Any]:
        client_data = self._client_data(bend.pop("type", "webauthn.get"), options, origin, bend)
        data = AuthenticatorData.create(
            hashlib.sha256(bend.pop("rp_id", options["rpId"]).encode()).digest(),
            flags,
            bend.pop("counter", None) if "counter" in bend else next(self.counter),
        )
        signed = bytes(data) + hashlib.sha256(client_data).digest()
        response = {
            "clientDataJSON": b64(client_data),
            "authenticatorData": b64(data),
            "signature": b64(self.private.sign(signed, ec.ECDSA(hashes.SHA256()))),
        }
        handle = bend.pop("user_handle", self.user_handle)
        if handle is not None:
            response["userHandle"] = b64(handle)
        return self._answer(response, bend)

    def _client_data(self, kind: str, options: dict[str, Any], origin: str, bend: dict[str, Any]) -> bytes:
        raw: bytes | None = bend.pop("client_data", None)
        extra: dict[str, Any] = bend.pop("client_extra", {})
        challenge = bend.pop("challenge", options["challenge"])
        return raw or bytes(CollectedClientData.create(kind, challenge, origin, **extra))

    def _answer(self, response: dict[str, Any], bend: dict[str, Any]) -> dict[str, Any]:
        credential_id = b64(bend.pop("credential_id", self.credential_id))
        whole = {
            "id": credential_id,
            "rawId": credential_id,
            "type": bend.pop("credential_type", "public-key"),
            "response": {**response, **bend.pop("response", {})},
            "clientExtensionResults": {},
        }
        assert not bend, f"nothing bends {list(bend)}"
        return whole


class World:
    """A broker and everybody around it."""

    def __init__(self, store: Store | None = None, keys: Any = None) -> None:
        self.clock = Clock()
        self.keys = keys or Keys()
        self.sts = Sts()
        self.store: Store = store or MemoryStore()
        self.audit = Audit(self.store, new_writer_id(NOW, os.urandom), signer=LocalSigner(MINT_KEY))
        self.policy = parse_policy(POLICY + ROLES)
        self.broker = Broker(
            policy=lambda: self.policy,
            store=self.store,
            audit=self.audit,
            signer=LocalSigner(MINT_KEY),
            sealer=Sealer(b"k" * 32),
            keys=self.keys,
            sts=self.sts,
            now=self.clock,
            rng=os.urandom,
        )
        self.api = Api(self.broker)

    def change_policy(self, old: str, new: str) -> None:
        assert old in POLICY + ROLES
        self.policy = parse_policy((POLICY + ROLES).replace(old, new))

    # -- people

    def token(self, subject: str = "alice", **claims: Any) -> Secret:
        body = {
            "iss": ISSUER,
            "aud": "credx-cli",
            "sub": subject,
            "iat": int(self.clock()),
            "exp": int(self.clock()) + 3600,
            "email": f"{subject}@example.com",
            "groups": ["sre"],
            **claims,
        }
        return sign_jwt({k: v for k, v in body.items() if v is not None}, signer=LocalSigner(IDP_KEY))

    def job(self, **claims: Any) -> Secret:
        return self.token(
            "repo:42:main", **{"iss": CI, "aud": "credx-ci", "job": "deploy", "repository_id": "42", **claims}
        )

    def user_key(self, subject: str = "alice", issuer: str = ISSUER) -> str:
        return hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()

    def invite(self, subject: str = "alice", issuer: str = ISSUER) -> Secret:
        return create_invitation(
            self.audit, issuer, subject, administrator="root", now=self.clock(), rng=os.urandom
        )

    def add_key(self, subject: str = "alice", name: str = "key", **how: Any) -> SecurityKey:
        key, token = SecurityKey(**how.pop("key", {})), self.token(subject)
        begun = self.broker.enrolment.begin(
            token, "10.0.0.1", kind="webauthn", name=name, invited=self.invite(subject)
        )
        assert isinstance(begun, dict)
        self.broker.enrolment.complete(
            token,
            "10.0.0.1",
            Secret(begun["enrolment"]),
            registration=key.register(begun["public_key"], **how),
        )
        return key

    def add_app(self, subject: str = "alice", name: str = "app", issuer: str = ISSUER) -> pyotp.TOTP:
        token = self.token(subject) if issuer == ISSUER else self.job()
        begun = self.broker.enrolment.begin(
            token, "10.0.0.1", kind="totp", name=name, invited=self.invite(subject, issuer)
        )
        assert isinstance(begun, dict)
        app = pyotp.TOTP(begun["secret"])
        self.broker.enrolment.complete(
            token, "10.0.0.1", Secret(begun["enrolment"]), otp=Secret(app.at(int(self.clock())))
        )
        self.clock.pass_(60)  # the confirming code's step is used
        return app

    # -- the exchange

    def ask(
        self, token: Secret, role: str = "prod", proof: Proof | None = None, **more: Any
    ) -> Issued | StepUp:
        request = TokenRequest(subject_token=token, ask=Ask(role=role, **more), proof=proof)
        return self.broker.token(request, "10.0.0.1")

    def step_up(self, token: Secret, role: str = "prod", **more: Any) -> StepUp:
        answer = self.ask(token, role, **more)
        assert isinstance(answer, StepUp)
        return answer

    def touch(self, token: Secret, key: SecurityKey, step_up: StepUp, **bend: Any) -> WebAuthnProof:
        options = self.broker.begin_proof(token, step_up.auth_session, "10.0.0.1")
        return WebAuthnProof(auth_session=step_up.auth_session, assertion=key.answer(options, **bend))

    def code(self, app: pyotp.TOTP, step_up: StepUp, *, steps: int = 0) -> TotpProof:
        return TotpProof(
            auth_session=step_up.auth_session, otp=Secret(app.at(int(self.clock()), counter_offset=steps))
        )

    # -- what is left behind

    def records(self, event: str | None = None) -> list[dict[str, Any]]:
        return [dict(record) for record in self.audit.read(self.clock() + 1, event=event)]

    # -- HTTP

    def http(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: Secret | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[Response, Any]:
        sent = {"content-type": "application/json"} | (headers or {})
        if token is not None:
            sent["authorization"] = f"Bearer {token.reveal()}"
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        response = self.api.handle(
            Request(method=method, path=path, headers=sent, body=raw, client="10.0.0.1")
        )
        return response, json.loads(response.body) if response.body else None
