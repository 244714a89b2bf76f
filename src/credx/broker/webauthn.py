"""WebAuthn: options, and the verification of registrations and assertions (WebAuthn Level 3, 7.1 and 7.2).

``fido2`` checks type, origin, challenge, RP ID hash, UP, UV and signature. What it leaves to the relying party
is checked here: whose credential, user handle, backup flags, signature counter, framing, algorithm.
"""

from __future__ import annotations

import functools
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import fido2.utils
from cryptography.exceptions import InvalidSignature
from fido2.server import Fido2Server
from fido2.utils import websafe_decode, websafe_encode
from fido2.webauthn import (
    AttestationConveyancePreference,
    AttestedCredentialData,
    AuthenticationResponse,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    PublicKeyCredentialParameters,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from credx.errors import Refusal
from credx.protocol import parse_json
from credx.urls import origin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fido2.webauthn import AuthenticatorData, CollectedClientData

    from credx.broker.policy.rules import BrokerSettings
    from credx.broker.users import Factor

# python-fido2 works out the type hints of its own classes anew for every value it makes, 35 times in one issuance:
# a third of the broker's time. They never change.
fido2.utils.get_type_hints = functools.cache(fido2.utils.get_type_hints)  # type: ignore[assignment,attr-defined]

ES256, EDDSA, RS256 = -7, -8, -257  # COSE algorithm numbers (RFC 9053, RFC 8812)
ALGORITHMS: Final = (ES256, EDDSA, RS256)
CHALLENGE_BYTES: Final = 32  # WebAuthn 13.4.3 asks for 16 or more
CREDENTIAL_ID_LENGTH: Final = range(16, 1024)  # WebAuthn 7.1 and 4, "Credential ID"
MIN_RSA_BYTES: Final = 256


class CounterError(Refusal):
    """A good signature with a signature counter that did not go up."""

    def __init__(self, factor: Factor, counter: int) -> None:
        super().__init__(
            "insufficient_authorization",
            "the security key was not accepted: its counter went back, it may have been copied",
            f"signature counter {counter} after {factor.material['counter']}",
        )
        self.factor = factor


@dataclass(frozen=True, kw_only=True)
class Assertion:
    """A verified assertion: which factor, and what its authenticator says about this use."""

    factor: Factor
    user_verified: bool
    counter: int
    backed_up: bool


def user_handle(user_key: str) -> bytes:
    """``user.id``: no personal data (WebAuthn 14.6.1), the same for every credential of one person."""
    return bytes.fromhex(user_key)


def credential_hash(material: Mapping[str, Any]) -> str:
    return hashlib.sha256(material["credential_id"].encode("ascii")).hexdigest()


@functools.lru_cache(maxsize=4)  # a policy that is reloaded rarely changes them
def _server(settings: BrokerSettings) -> Fido2Server:
    expected = origin(settings.url)
    server = Fido2Server(
        PublicKeyCredentialRpEntity(id=settings.rp_id, name=settings.rp_name),
        attestation=AttestationConveyancePreference.NONE,
        verify_origin=lambda given: given == expected,
    )
    server.allowed_algorithms = [
        PublicKeyCredentialParameters(type=PublicKeyCredentialType.PUBLIC_KEY, alg=alg) for alg in ALGORITHMS
    ]
    return server


class RelyingParty:
    """Verifies for one RP ID and exactly one origin."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._server = _server(settings)

    def request_options(
        self, challenge: bytes, factors: Sequence[Factor], *, user_verification: bool
    ) -> dict[str, Any]:
        """PublicKeyCredentialRequestOptionsJSON; ``factors`` are the only credentials that it allows."""
        # written here: by way of the library's classes it takes as long as a signature
        return {
            "challenge": websafe_encode(challenge),
            "rpId": self._server.rp.id,
            "allowCredentials": [_allowed(factor) for factor in factors],
            "userVerification": _user_verification(required=user_verification).value,
        }

    def creation_options(
        self, challenge: bytes, factors: Sequence[Factor], *, user_key: str, user: str
    ) -> dict[str, Any]:
        """PublicKeyCredentialCreationOptionsJSON; an authenticator that holds one of ``factors`` declines."""
        options, _ = self._server.register_begin(
            PublicKeyCredentialUserEntity(id=user_handle(user_key), name=user, display_name=user),
            credentials=[_descriptor(factor) for factor in factors],
            resident_key_requirement=ResidentKeyRequirement.DISCOURAGED,
            user_verification=UserVerificationRequirement.REQUIRED,
            challenge=challenge,
        )
        return _plain(options.public_key)

    def verify_assertion(
        self,
        assertion: Mapping[str, Any],
        *,
        challenge: bytes,
        factors: Sequence[Factor],
        user_key: str,
        user_verification: bool,
    ) -> Assertion:
        """Verify an AuthenticationResponseJSON against the person's own ``factors``.

        Raises:
            Refusal: with the private cause in ``detail``.
        """
        try:
            response = AuthenticationResponse.from_dict(assertion)
            data = response.response.authenticator_data
            _check_frame(assertion, response.response.client_data)
            factor = _own(factors, websafe_encode(response.raw_id))  # 7.2: looked up in his own set alone
            if response.response.user_handle not in (None, b"", user_handle(user_key)):  # 7.2
                _no("user handle of somebody else")
            self._server.authenticate_complete(
                _state(challenge, user_verification=user_verification), [_credential(factor)], response
            )
            _check_backup(data, factor.material["backup_eligible"])
        except Exception as exc:  # noqa: BLE001 -- readers of bytes from outside raise anything: a no
            _refuse(exc)
        found = Assertion(
            factor=factor,
            user_verified=data.is_user_verified(),
            counter=data.counter,
            backed_up=data.is_backed_up(),
        )
        advanced(factor, found)
        return found

    def verify_registration(self, registration: Mapping[str, Any], *, challenge: bytes) -> dict[str, Any]:
        """Verify a RegistrationResponseJSON; what comes back is the new factor's material.

        Raises:
            Refusal: with the private cause in ``detail``.
        """
        try:
            response = RegistrationResponse.from_dict(registration)
            _check_frame(registration, response.response.client_data)
            data = self._server.register_complete(_state(challenge, user_verification=True), response)
            credential = data.credential_data
            if credential is None or credential.credential_id != response.raw_id:
                _no("no attested credential, or another one than named")
            if len(credential.credential_id) not in CREDENTIAL_ID_LENGTH:
                _no("length of the credential id")
            key = credential.public_key
            if key[3] not in ALGORITHMS or (key[3] == RS256 and len(key[-1]) < MIN_RSA_BYTES):
                _no("algorithm or key size")
            with suppress(InvalidSignature):  # of nothing; what is no point of its curve fails otherwise
                key.verify(b"", b"")
            _check_backup(data, data.is_backup_eligible())
            offered = registration["response"].get("transports") or []
            transports = [t.value for t in AuthenticatorTransport if t.value in offered]
        except Exception as exc:  # noqa: BLE001 -- readers of bytes from outside raise anything: a no
            _refuse(exc)
        return {
            "credential_id": websafe_encode(credential.credential_id),
            "credential": websafe_encode(credential),
            "counter": data.counter,
            "backup_eligible": data.is_backup_eligible(),
            "backed_up": data.is_backed_up(),
            "aaguid": str(credential.aaguid),
            "transports": transports,
        }


def advanced(factor: Factor, used: Assertion) -> dict[str, Any]:
    """Its material after a use: the counter only ever goes up (7.2), unless there is none.

    Raises:
        CounterError: it did not: two authenticators hold this credential, or an old answer came back.
    """
    stored = factor.material["counter"]
    if (used.counter or stored) and used.counter <= stored:
        raise CounterError(factor, used.counter)
    return dict(factor.material) | {"counter": used.counter, "backed_up": used.backed_up}


def _check_frame(response: Mapping[str, Any], client_data: CollectedClientData) -> None:
    if response.get("type") != "public-key":
        _no("type of the credential")
    client = parse_json(bytes(client_data))  # the library's reader takes the last of two members
    if client.get("crossOrigin", False) is not False or "topOrigin" in client:
        _no("asked for inside a frame of another site")


def _check_backup(data: AuthenticatorData, eligible: object) -> None:
    if data.is_backed_up() and not data.is_backup_eligible():
        _no("backed up but not eligible")
    if data.is_backup_eligible() is not eligible:
        _no("backup eligibility changed")


def _own(factors: Sequence[Factor], credential_id: str) -> Factor:
    own = {factor.material["credential_id"]: factor for factor in factors}
    if credential_id not in own:
        _no("not a credential of this person that is accepted here")
    return own[credential_id]


def _no(cause: str) -> NoReturn:
    raise ValueError(cause)


def _refuse(exc: Exception) -> NoReturn:
    cause = exc.detail if isinstance(exc, Refusal) else f"{type(exc).__name__}: {exc}"[:200]
    raise Refusal("insufficient_authorization", "the security key's answer was not accepted", cause) from exc


def _credential(factor: Factor) -> AttestedCredentialData:
    return AttestedCredentialData(websafe_decode(factor.material["credential"]))


def _allowed(factor: Factor) -> dict[str, Any]:
    named = {"type": "public-key", "id": factor.material["credential_id"]}
    transports = list(factor.material["transports"])
    return named | {"transports": transports} if transports else named


def _descriptor(factor: Factor) -> PublicKeyCredentialDescriptor:
    return PublicKeyCredentialDescriptor(
        type=PublicKeyCredentialType.PUBLIC_KEY,
        id=websafe_decode(factor.material["credential_id"]),
        transports=[AuthenticatorTransport(t) for t in factor.material["transports"]] or None,
    )


def _user_verification(*, required: bool) -> UserVerificationRequirement:
    return UserVerificationRequirement.REQUIRED if required else UserVerificationRequirement.PREFERRED


def _state(challenge: bytes, *, user_verification: bool) -> dict[str, Any]:
    required = _user_verification(required=user_verification)
    return {"challenge": websafe_encode(challenge), "user_verification": required}


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dict(options)))
    return plain
