"""A security key made of software: CTAP 2.1 behind python-fido2's own device interface.

``fido2.client.Fido2Client`` drives it exactly as it drives a USB key, so what the sandbox and the tests
run is the production path down to the CBOR. It has built-in user verification (the ``uv`` option, as a key
with a fingerprint reader), ES256, discoverable and other credentials, and a signature counter for each
credential that is on disk before a signature leaves. It has no PIN and no CTAP1.

Sections cited are those of CTAP 2.1.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor
from fido2.cose import ES256
from fido2.ctap import STATUS, CtapDevice, CtapError
from fido2.ctap2.base import Ctap2
from fido2.hid import CAPABILITY, CTAPHID
from fido2.webauthn import AttestedCredentialData, AuthenticatorData

from credx.sandbox.files import locked
from credx.sandbox.key_finger import Finger, Prompt, Touch
from credx.sandbox.key_memory import Credential, load, save
from credx.sandbox.key_messages import GET_ASSERTION, MAKE_CREDENTIAL, parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

ERR = CtapError.ERR
FLAG = AuthenticatorData.FLAG

AAGUID: Final = bytes.fromhex("63726564782d73616e64626f786b6579")  # "credx-sandboxkey"
TOUCH_TIMEOUT: Final = 30.0  # seconds, 6.1.2 step 14 asks for a limit of the authenticator's own
NEXT_ASSERTION_TIMEOUT: Final = 30.0  # seconds, 6.3
MAX_MESSAGE: Final = 7609  # bytes, the largest that CTAPHID carries (11.2.4)
MAX_IDS_IN_LIST: Final = 16
CREDENTIAL_ID_SIZE: Final = 32
MAX_CREDENTIALS: Final = 100


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How to misbehave. Each is a thing that a relying party has to refuse.

    Attributes:
        counter_step: added to the counter for each signature; 0 stands still, -1 goes back (a cloned key).
        verified: False leaves the UV flag out although the client asked for it.
        present: False leaves the UP flag out.
        foreign_rp: the RP ID hash is that of another site.
        backed_up_only: BS without BE, which WebAuthn 6.1.3 forbids.
        bad_signature: one bit is wrong.
        user_handle: sent in the place of the real one.
    """

    counter_step: int = 1
    verified: bool = True
    present: bool = True
    foreign_rp: bool = False
    backed_up_only: bool = False
    bad_signature: bool = False
    user_handle: bytes | None = None


class SoftwareKey(CtapDevice):
    """One security key, kept in one 0600 file. Any number of processes may hold the same one.

    Args:
        path: the file; it is made on the first registration.
        touch: asked for every user presence; the default finger is always there.
        faults: how to misbehave.
        attestation: ``none`` or ``packed`` (self attestation).
        clock: monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        touch: Callable[[Prompt], Touch] = lambda _prompt: Touch.GIVEN,
        faults: Faults | None = None,
        attestation: str = "none",
        touch_timeout: float = TOUCH_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.path = path
        self.faults = faults or Faults()
        self.touch = touch
        self._attestation = attestation
        self._touch_timeout = touch_timeout
        self._clock = clock
        self._rng = rng
        self._pending: _Pending | None = None
        self._busy = threading.Lock()

    @property
    def capabilities(self) -> int:
        return CAPABILITY.CBOR | CAPABILITY.NMSG  # CTAP2, and no CTAP1 (11.2.9.1.3)

    @classmethod
    def list_devices(cls) -> Iterator[CtapDevice]:
        """There is none to be discovered: whoever wants one knows its path."""
        return iter(())

    def credentials(self) -> tuple[Credential, ...]:
        """What is registered, the oldest first."""
        return load(self.path)

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        """One CTAPHID transaction; only CBOR is known. The answer is a status byte and CBOR (8.1)."""
        if cmd != CTAPHID.CBOR:
            raise CtapError(ERR.INVALID_COMMAND)
        if not self._busy.acquire(blocking=False):
            raise CtapError(ERR.CHANNEL_BUSY)
        try:
            body = self._command(
                data, Finger(self.touch, self._touch_timeout, event or threading.Event(), on_keepalive)
            )
        except CtapError as error:
            return bytes([error.code])
        finally:
            self._busy.release()
        return b"\x00" + (b"" if body is None else cbor.encode(body))

    def _command(self, data: bytes, finger: Finger) -> dict[int, Any] | None:
        if not data:
            raise CtapError(ERR.INVALID_LENGTH)
        pending, self._pending = self._pending, None  # 6.3: any other command ends the list
        match data[0]:
            case Ctap2.CMD.GET_INFO:
                return _INFO
            case Ctap2.CMD.MAKE_CREDENTIAL:
                return self._make_credential(parameters(data[1:], MAKE_CREDENTIAL, required=4), finger)
            case Ctap2.CMD.GET_ASSERTION:
                return self._get_assertion(parameters(data[1:], GET_ASSERTION, required=2), finger)
            case Ctap2.CMD.GET_NEXT_ASSERTION:
                return self._next_assertion(pending)
            case Ctap2.CMD.SELECTION:
                finger.wait(Prompt(purpose="select"))
                return None
            case Ctap2.CMD.RESET:
                finger.wait(Prompt(purpose="reset"))
                with locked(self.path):
                    save(self.path, ())
                return None
        raise CtapError(ERR.INVALID_COMMAND)

    def _make_credential(self, given: Mapping[int, Any], finger: Finger) -> dict[int, Any]:
        """6.1.2, without the steps for PIN, enterprise attestation and extensions."""
        client_data_hash, rp, user, algorithms = given[1], given[2], given[3], given[4]
        options = given.get(7, {})
        _no_pin(given.get(8), given.get(9))
        if not any(p.get("alg") == ES256.ALGORITHM for p in algorithms):
            raise CtapError(ERR.UNSUPPORTED_ALGORITHM)
        if options.get("up") is False:
            raise CtapError(ERR.INVALID_OPTION)
        if not options.get("uv"):
            raise CtapError(ERR.PUAT_REQUIRED)  # step 10: no makeCredUvNotRqd here
        finger.wait(Prompt(purpose="register", rp_id=rp["id"]))
        excluded = {descriptor["id"] for descriptor in given.get(5, ())}
        discoverable = bool(options.get("rk"))
        made = Credential(
            id=self._rng(CREDENTIAL_ID_SIZE),
            rp_id=rp["id"],
            user=user,
            private_key=ec.generate_private_key(ec.SECP256R1()),
            counter=1,
            discoverable=discoverable,
        )
        with locked(self.path):
            known = self.credentials()
            if any(c.id in excluded and c.rp_id == made.rp_id for c in known):
                raise CtapError(ERR.CREDENTIAL_EXCLUDED)
            # 6.1.2 step 17: one discoverable credential for each user of a site
            kept = [c for c in known if not (discoverable and c.discoverable and c.same_account(made))]
            if len(kept) >= MAX_CREDENTIALS:
                raise CtapError(ERR.KEY_STORE_FULL)
            save(self.path, (*kept, made))
        public_key = ES256.from_cryptography_key(made.private_key.public_key())  # type: ignore[no-untyped-call]
        attested = AttestedCredentialData.create(AAGUID, made.id, public_key)
        auth_data = self._auth_data(made, verified=True, present=True, attested=bytes(attested))
        statement: dict[str, Any] = {}
        if self._attestation == "packed":
            statement = {"alg": ES256.ALGORITHM, "sig": made.sign(auth_data + client_data_hash)}
        return {1: self._attestation, 2: auth_data, 3: statement}

    def _get_assertion(self, given: Mapping[int, Any], finger: Finger) -> dict[int, Any]:
        """6.2.2, without the steps for PIN and extensions."""
        rp_id, client_data_hash, options = given[1], given[2], given.get(5, {})
        _no_pin(given.get(6), given.get(7))
        if "rk" in options:
            raise CtapError(ERR.UNSUPPORTED_OPTION)  # step 5
        present, verified = options.get("up", True), bool(options.get("uv"))
        if present:
            finger.wait(Prompt(purpose="sign", rp_id=rp_id))
        here = [c for c in self.credentials() if c.rp_id == rp_id]
        if allowed := given.get(3):
            wanted = {descriptor["id"] for descriptor in allowed}
            found = [c for c in here if c.id in wanted][:1]  # step 12: any one of the list
        else:
            found = [c for c in reversed(here) if c.discoverable]  # the newest first
        if not found:
            raise CtapError(ERR.NO_CREDENTIALS)
        self._pending = _Pending(
            client_data_hash, found[1:], present, verified, len(found) > 1, self._clock()
        )
        answer = self._assertion(found[0], self._pending)
        if len(found) > 1:
            answer[5] = len(found)
        return answer

    def _next_assertion(self, pending: _Pending | None) -> dict[int, Any]:
        if (
            pending is None
            or not pending.credentials
            or self._clock() - pending.since > NEXT_ASSERTION_TIMEOUT
        ):
            raise CtapError(ERR.NOT_ALLOWED)
        credential, *rest = pending.credentials
        self._pending = replace(pending, credentials=rest, since=self._clock())
        return self._assertion(credential, pending)

    def _assertion(self, credential: Credential, asked: _Pending) -> dict[int, Any]:
        if asked.present:  # looking whether a credential is here (up=False) signs nothing of worth
            credential = self._count(credential.id)
        auth_data = self._auth_data(credential, verified=asked.verified, present=asked.present)
        signature = credential.sign(auth_data + asked.client_data_hash)
        if self.faults.bad_signature:
            signature = signature[:-1] + bytes([signature[-1] ^ 1])
        answer: dict[int, Any] = {1: credential.descriptor(), 2: auth_data, 3: signature}
        handle = self.faults.user_handle or (credential.user["id"] if credential.discoverable else None)
        if handle is not None:
            # names only after user verification, and only to choose between accounts
            names = asked.verified and asked.several
            answer[4] = {**(credential.user if names else {}), "id": handle}
        return answer

    def _count(self, credential_id: bytes) -> Credential:
        """Count on disk first, then sign: no two signatures of any process share a counter."""
        with locked(self.path):
            known = self.credentials()
            counted = {
                c.id: replace(c, counter=max(0, c.counter + self.faults.counter_step))
                for c in known
                if c.id == credential_id
            }
            if not counted:
                raise CtapError(ERR.NO_CREDENTIALS)  # another process has reset the key
            save(self.path, tuple(counted.get(c.id, c) for c in known))
        return counted[credential_id]

    def _auth_data(
        self, credential: Credential, *, verified: bool, present: bool, attested: bytes = b""
    ) -> bytes:
        rp_id = "attacker.example" if self.faults.foreign_rp else credential.rp_id
        flags = FLAG(0)
        if present and self.faults.present:
            flags |= FLAG.UP
        if verified and self.faults.verified:
            flags |= FLAG.UV
        if self.faults.backed_up_only:
            flags |= FLAG.BS
        if attested:
            flags |= FLAG.AT
        data = AuthenticatorData.create(sha256(rp_id.encode()).digest(), flags, credential.counter, attested)
        return bytes(data)


@dataclass(frozen=True)
class _Pending:
    """One getAssertion that getNextAssertion may go on with."""

    client_data_hash: bytes
    credentials: list[Credential]
    present: bool
    verified: bool
    several: bool
    since: float


_INFO: Final[dict[int, Any]] = {
    1: ["FIDO_2_0", "FIDO_2_1"],
    3: AAGUID,
    4: {"rk": True, "up": True, "uv": True},
    5: MAX_MESSAGE,
    # No PIN and no token is offered (neither clientPin nor pinUvAuthToken is above), yet python-fido2 2.2.1
    # refuses user verification by a key that names no protocol at all.
    6: [2],
    7: MAX_IDS_IN_LIST,
    8: CREDENTIAL_ID_SIZE * 2,
    9: ["usb"],
    10: [{"alg": ES256.ALGORITHM, "type": "public-key"}],
}


def _no_pin(parameter: object, protocol: object) -> None:
    if parameter is not None or protocol is not None:
        raise CtapError(ERR.PIN_NOT_SET if parameter == b"" else ERR.INVALID_PARAMETER)
