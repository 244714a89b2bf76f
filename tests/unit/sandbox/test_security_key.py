"""The software key through python-fido2's own client and server, as a USB key would be used."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.exceptions import InvalidSignature
from fido2 import cbor
from fido2.client import ClientError, DefaultClientDataCollector, Fido2Client, UserInteraction
from fido2.ctap import STATUS, CtapError
from fido2.ctap2.base import Ctap2
from fido2.hid import CTAPHID
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestedCredentialData,
    AuthenticationResponse,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from credx.sandbox.security_key import Faults, Prompt, SoftwareKey, Touch

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = "http://localhost:8443"
REQUIRED = UserVerificationRequirement.REQUIRED


class Site:
    """A relying party and one browser in front of it."""

    def __init__(self, *, resident: bool = False) -> None:
        rp = PublicKeyCredentialRpEntity(id="localhost", name="test")
        self.server = Fido2Server(rp, verify_origin=lambda origin: origin == ORIGIN)
        self.resident = resident
        self.credentials: list[AttestedCredentialData] = []
        self.prompts = 0

    def client(self, key: SoftwareKey) -> Fido2Client:
        site = self

        class Interaction(UserInteraction):
            def prompt_up(self) -> None:
                site.prompts += 1

        return Fido2Client(key, DefaultClientDataCollector(ORIGIN), user_interaction=Interaction())

    def register(self, key: SoftwareKey, user_id: bytes = b"alice") -> AttestedCredentialData:
        options, state = self.server.register_begin(
            PublicKeyCredentialUserEntity(id=user_id, name=user_id.decode(), display_name="A"),
            credentials=[] if self.resident else self.credentials,
            resident_key_requirement=ResidentKeyRequirement.REQUIRED if self.resident else None,
            user_verification=REQUIRED,
        )
        response = self.client(key).make_credential(options.public_key)
        data = self.server.register_complete(state, dict(response)).credential_data
        assert data is not None
        self.credentials.append(data)
        return data

    def sign(
        self,
        key: SoftwareKey,
        *,
        index: int = 0,
        event: threading.Event | None = None,
        uv: UserVerificationRequirement = REQUIRED,
    ) -> AuthenticationResponse:
        options, state = self.server.authenticate_begin(
            None if self.resident else self.credentials, user_verification=uv
        )
        answers = self.client(key).get_assertion(options.public_key, event=event)
        response = AuthenticationResponse.from_dict(dict(answers.get_response(index)))
        self.server.authenticate_complete(state, self.credentials, response)
        return response


def counter(response: AuthenticationResponse) -> int:
    return response.response.authenticator_data.counter


def test_registers_and_signs_with_user_verification_and_a_rising_counter(tmp_path: Path) -> None:
    site, key = Site(), SoftwareKey(tmp_path / "key")
    registered = site.register(key)
    assert registered.credential_id == key.credentials()[0].id
    first, second = site.sign(key), site.sign(key)
    assert first.response.authenticator_data.is_user_verified()
    assert 1 < counter(first) < counter(second)
    assert first.response.user_handle is None
    assert site.prompts == 3


def test_without_user_verification_asked_the_flag_is_absent(tmp_path: Path) -> None:
    site, key = Site(), SoftwareKey(tmp_path / "key")
    site.register(key)
    response = site.sign(key, uv=UserVerificationRequirement.DISCOURAGED)
    assert not response.response.authenticator_data.is_user_verified()


def test_the_state_survives_and_is_private(tmp_path: Path) -> None:
    site, path = Site(), tmp_path / "key"
    site.register(SoftwareKey(path))
    first = counter(site.sign(SoftwareKey(path)))
    assert counter(site.sign(SoftwareKey(path))) == first + 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["key", "key.lock"]


def test_packed_self_attestation_is_valid(tmp_path: Path) -> None:
    site = Site()
    site.server.attestation = "direct"  # type: ignore[assignment]
    assert site.register(SoftwareKey(tmp_path / "key", attestation="packed"))


def test_a_second_registration_of_the_same_key_is_excluded(tmp_path: Path) -> None:
    site, key = Site(), SoftwareKey(tmp_path / "key")
    site.register(key)
    with pytest.raises(ClientError) as caught:
        site.register(key)
    assert caught.value.code == ClientError.ERR.DEVICE_INELIGIBLE
    assert caught.value.cause.code == CtapError.ERR.CREDENTIAL_EXCLUDED
    assert site.prompts == 2  # it asked for a touch before it told


def test_a_foreign_credential_is_not_found_and_only_a_touch_tells(tmp_path: Path) -> None:
    site = Site()
    site.register(SoftwareKey(tmp_path / "key"))
    with pytest.raises(ClientError) as caught:
        site.sign(SoftwareKey(tmp_path / "other"))
    assert caught.value.cause.code == CtapError.ERR.NO_CREDENTIALS
    assert site.prompts == 2


def test_discoverable_credentials_come_newest_first(tmp_path: Path) -> None:
    site, key = Site(resident=True), SoftwareKey(tmp_path / "key")
    site.register(key, b"alice")
    site.register(key, b"bob")
    assert site.sign(key, index=0).response.user_handle == b"bob"
    assert site.sign(key, index=1).response.user_handle == b"alice"
    site.credentials.clear()
    site.register(key, b"alice")  # one for each account
    assert len(key.credentials()) == 2


def test_next_assertion_needs_an_assertion_just_before(tmp_path: Path) -> None:
    site, now = Site(resident=True), [0.0]
    key = SoftwareKey(tmp_path / "key", clock=lambda: now[0])
    site.register(key, b"alice")
    site.register(key, b"bob")
    ctap = Ctap2(key)
    for spoil in (ctap.get_info, lambda: now.__setitem__(0, now[0] + 31)):
        assert ctap.get_assertion("localhost", bytes(32)).number_of_credentials == 2
        spoil()
        with pytest.raises(CtapError, match="NOT_ALLOWED"):
            ctap.get_next_assertion()


def test_a_refused_touch(tmp_path: Path) -> None:
    asked: list[Prompt] = []

    def finger(prompt: Prompt) -> Touch:
        asked.append(prompt)
        return Touch.GIVEN if prompt.purpose == "register" else Touch.REFUSED

    site, key = Site(), SoftwareKey(tmp_path / "key", touch=finger)
    site.register(key)
    with pytest.raises(ClientError) as caught:
        site.sign(key)
    assert caught.value.cause.code == CtapError.ERR.OPERATION_DENIED
    assert asked[-1] == Prompt(purpose="sign", rp_id="localhost")
    assert key.credentials()[0].counter == 1


def test_a_touch_that_never_comes(tmp_path: Path) -> None:
    site, key = Site(), SoftwareKey(tmp_path / "key", touch_timeout=0.01)
    site.register(key)
    key.touch = lambda _prompt: Touch.NEVER
    with pytest.raises(ClientError) as caught:
        site.sign(key)
    assert caught.value.code == ClientError.ERR.TIMEOUT
    assert caught.value.cause.code == CtapError.ERR.USER_ACTION_TIMEOUT


def test_the_client_can_cancel(tmp_path: Path) -> None:
    site, key, event = Site(), SoftwareKey(tmp_path / "key"), threading.Event()
    site.register(key)

    def finger(_prompt: Prompt) -> Touch:
        event.set()
        return Touch.NEVER

    key.touch = finger
    with pytest.raises(ClientError) as caught:
        site.sign(key, event=event)
    assert caught.value.cause.code == CtapError.ERR.KEEPALIVE_CANCEL


def test_keepalive_says_that_a_touch_is_needed(tmp_path: Path) -> None:
    seen: list[int] = []
    Ctap2(SoftwareKey(tmp_path / "key")).selection(on_keepalive=seen.append)
    assert seen == [STATUS.UPNEEDED]


def test_reset_forgets_everything(tmp_path: Path) -> None:
    site, key = Site(), SoftwareKey(tmp_path / "key")
    site.register(key)
    Ctap2(key).reset()
    assert key.credentials() == ()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"", CtapError.ERR.INVALID_LENGTH),
        (b"\x02\xa1\x01", CtapError.ERR.INVALID_CBOR),
        (b"\x02" + cbor.encode([]), CtapError.ERR.CBOR_UNEXPECTED_TYPE),
        (b"\x02" + cbor.encode({1: "localhost"}), CtapError.ERR.MISSING_PARAMETER),
        (b"\x02" + cbor.encode({1: "a", 2: b"", 5: {"rk": True}}), CtapError.ERR.UNSUPPORTED_OPTION),
        (b"\x02" + cbor.encode({1: "a", 2: b"", 6: b"x", 7: 2}), CtapError.ERR.INVALID_PARAMETER),
        (b"\x06" + cbor.encode({1: 2, 2: 1}), CtapError.ERR.INVALID_COMMAND),
    ],
)
def test_bad_commands_are_answered_with_their_status(
    tmp_path: Path, request_: bytes, status: CtapError.ERR
) -> None:
    assert SoftwareKey(tmp_path / "key").call(CTAPHID.CBOR, request_) == bytes([status])


SIMPLE = st.booleans() | st.integers(-300, 300) | st.text(max_size=5) | st.binary(max_size=5)
VALUES = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "alg", "type", "rk", "uv", "up", "name"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    command=st.sampled_from([1, 2, 4, 6, 8, 0x0B, 0x40]),
    parameters=st.dictionaries(st.integers(1, 9), VALUES, max_size=9),
)
def test_any_parameters_get_an_answer(
    tmp_path_factory: pytest.TempPathFactory, command: int, parameters: dict[int, Any]
) -> None:
    key = SoftwareKey(tmp_path_factory.getbasetemp() / "fuzzed-key")
    assert key.call(CTAPHID.CBOR, bytes([command]) + cbor.encode(parameters))


@given(st.binary(max_size=40))
def test_any_bytes_get_an_answer(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    if data[:1] != b"\x07":
        assert SoftwareKey(tmp_path_factory.getbasetemp() / "fuzzed-key").call(CTAPHID.CBOR, data)


@pytest.mark.parametrize(
    ("algorithm", "options", "status"),
    [
        (-8, {"uv": True}, "UNSUPPORTED_ALGORITHM"),
        (-7, {"uv": True, "up": False}, "INVALID_OPTION"),
        (-7, {}, "PUAT_REQUIRED"),
    ],
)
def test_bad_registrations(tmp_path: Path, algorithm: int, options: dict[str, Any], status: str) -> None:
    with pytest.raises(CtapError, match=status):
        Ctap2(SoftwareKey(tmp_path / "key")).make_credential(
            bytes(32),
            {"id": "localhost"},
            {"id": b"a"},
            [{"type": "public-key", "alg": algorithm}],
            options=options,
        )


@pytest.mark.parametrize(
    "faults",
    [
        Faults(verified=False),
        Faults(present=False),
        Faults(foreign_rp=True),
        Faults(bad_signature=True),
    ],
)
def test_faults_that_the_fido2_library_itself_refuses(tmp_path: Path, faults: Faults) -> None:
    site, key = Site(), SoftwareKey(tmp_path / "key")
    site.register(key)
    key.faults = faults
    with pytest.raises((ValueError, InvalidSignature)):
        site.sign(key)


def test_faults_that_only_a_relying_party_of_its_own_care_refuses(tmp_path: Path) -> None:
    site, key = Site(), SoftwareKey(tmp_path / "key")
    site.register(key)
    before = counter(site.sign(key))
    key.faults = Faults(counter_step=-1, backed_up_only=True, user_handle=b"mallory")
    data = site.sign(key).response
    assert data.authenticator_data.counter < before
    assert data.authenticator_data.is_backed_up()
    assert not data.authenticator_data.is_backup_eligible()
    assert data.user_handle == b"mallory"


SIGN_TEN_TIMES = """
import pathlib, sys
from fido2.ctap2.base import Ctap2
from credx.sandbox.security_key import SoftwareKey
key = Ctap2(SoftwareKey(pathlib.Path(sys.argv[1])))
allowed = [{"type": "public-key", "id": bytes.fromhex(sys.argv[2])}]
for _ in range(10):
    print(key.get_assertion("localhost", bytes(32), allowed).auth_data.counter)
"""


def test_parallel_processes_never_share_a_counter(tmp_path: Path) -> None:
    site, path = Site(), tmp_path / "key"
    registered = site.register(SoftwareKey(path))
    argv = [sys.executable, "-c", SIGN_TEN_TIMES, str(path), registered.credential_id.hex()]
    workers = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    counters = [int(line) for worker in workers for line in worker.communicate(timeout=30)[0].split()]
    assert sorted(counters) == list(range(2, 32))
