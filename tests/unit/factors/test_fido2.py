from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from fido2.client import ClientError, PinRequiredError
from fido2.ctap import CtapError
from fido2.server import Fido2Server
from fido2.webauthn import AttestedCredentialData, PublicKeyCredentialRpEntity, PublicKeyCredentialUserEntity

from credx.errors import FactorError
from credx.factors import fido2 as ceremonies
from credx.factors.key_errors import explain
from credx.sandbox.security_key import SoftwareKey

if TYPE_CHECKING:
    from pathlib import Path

ORIGIN = "https://credx.example.com"
RP = "credx.example.com"


class Party:
    """A relying party by python-fido2's own server, which checks what a broker checks."""

    def __init__(self) -> None:
        self.server = Fido2Server(PublicKeyCredentialRpEntity(id=RP, name="credx"))
        self.user = PublicKeyCredentialUserEntity(id=b"user-1", name="u", display_name="U")
        self.known: list[AttestedCredentialData] = []

    def enrol(self, ui: Any, *keys: Any) -> dict:
        options, state = self.server.register_begin(self.user, self.known, user_verification="required")
        made = ceremonies.make_credential(
            dict(options)["publicKey"], origin=ORIGIN, devices=lambda: list(keys), ui=ui, seconds=10
        )
        self.known.append(self.server.register_complete(state, made).credential_data)
        return made

    def prove(self, ui: Any, *keys: Any, origin: str = ORIGIN, seconds: float = 10) -> dict:
        options, state = self.server.authenticate_begin(self.known, user_verification="required")
        assertion = ceremonies.get_assertion(
            dict(options)["publicKey"], origin=origin, devices=lambda: list(keys), ui=ui,
            approve="prod-ops on i-0abc for 1 h", seconds=seconds,
        )  # fmt: skip
        self.server.authenticate_complete(state, self.known, assertion)
        return assertion


@pytest.fixture
def party() -> Party:
    return Party()


@pytest.fixture
def key(tmp_path: Path) -> SoftwareKey:
    return SoftwareKey(tmp_path / "key")


def test_a_key_is_enrolled_and_proven(party: Party, key: SoftwareKey, ui: Any) -> None:
    made = party.enrol(ui, key)
    assert made["type"] == "public-key"
    assert set(made["response"]) >= {"clientDataJSON", "attestationObject"}
    assertion = party.prove(ui, key)
    assert set(assertion["response"]) >= {"clientDataJSON", "authenticatorData", "signature"}
    assert assertion["id"] == made["id"]
    assert ui.notes == [
        "touch the security key that you want to add",
        "touch your security key to approve: prod-ops on i-0abc for 1 h",
    ]


def test_the_answer_is_plain_json(party: Party, key: SoftwareKey, ui: Any) -> None:
    import json

    made = party.enrol(ui, key)
    assert json.loads(json.dumps(made)) == made
    assertion = party.prove(ui, key)
    assert json.loads(json.dumps(assertion)) == assertion


def test_without_a_key_the_hint_says_what_to_do(party: Party, ui: Any) -> None:
    with pytest.raises(FactorError, match="no security key is plugged in") as caught:
        party.prove(ui)
    assert "plug it in" in (caught.value.hint or "")
    assert ui.notes == []


def test_a_key_that_is_not_enrolled_is_named(party: Party, key: SoftwareKey, ui: Any, tmp_path: Path) -> None:
    party.enrol(ui, key)
    with pytest.raises(FactorError, match="this security key is not enrolled"):
        party.prove(ui, SoftwareKey(tmp_path / "other"))


def test_of_several_keys_the_enrolled_one_answers(
    party: Party, key: SoftwareKey, ui: Any, tmp_path: Path
) -> None:
    party.enrol(ui, key)
    others = [SoftwareKey(tmp_path / f"other{n}") for n in range(2)]
    assert party.prove(ui, others[0], key, others[1])
    assert len(ui.notes) == 2  # one question, however many keys


def test_a_key_that_is_enrolled_already_is_named(party: Party, key: SoftwareKey, ui: Any) -> None:
    party.enrol(ui, key)
    with pytest.raises(FactorError, match="enrolled already"):
        party.enrol(ui, key)


@pytest.mark.parametrize(
    "origin", ["https://credx.example.org", "https://evilcredx.example.com", "http://credx.example.com"]
)
def test_a_challenge_for_another_site_is_never_signed(
    party: Party, key: SoftwareKey, ui: Any, origin: str
) -> None:
    party.enrol(ui, key)
    with pytest.raises(FactorError, match="another site"):
        party.prove(ui, key, origin=origin)


def test_options_that_make_no_sense_are_refused(ui: Any, key: SoftwareKey) -> None:
    for options in ({}, {"challenge": 5}, {"challenge": "AAAA", "allowCredentials": "x"}):
        with pytest.raises(FactorError, match="cannot be read"):
            ceremonies.get_assertion(options, origin=ORIGIN, devices=lambda: [key], ui=ui, approve="x")


class Slow:
    """A key that nobody touches: blinks until it is told to stop."""

    closed = False

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Puts a client that waits in the place of python-fido2's for ``Slow`` keys."""
    real = ceremonies.Fido2Client

    class Client:
        def __init__(self, device: Any, collector: Any, interaction: Any) -> None:
            self.device = device

        def get_assertion(self, options: Any, stop: Any) -> Any:
            stop.wait(30)
            self.device.stopped.set()
            raise ClientError.ERR.TIMEOUT

    monkeypatch.setattr(
        ceremonies,
        "Fido2Client",
        lambda d, *rest: Client(d, *rest) if isinstance(d, Slow) else real(d, *rest),
    )
    return Slow()


def test_nobody_touches_in_time(party: Party, key: SoftwareKey, ui: Any, slow: Slow) -> None:
    party.enrol(ui, key)
    start = time.monotonic()
    with pytest.raises(FactorError, match=r"no touch within 0.2 s"):
        party.prove(ui, slow, seconds=0.2)
    assert time.monotonic() - start < 5
    assert slow.stopped.is_set()
    assert slow.closed


def test_the_first_success_stops_the_other_keys(party: Party, key: SoftwareKey, ui: Any, slow: Slow) -> None:
    party.enrol(ui, key)
    assert party.prove(ui, slow, key)
    assert slow.stopped.is_set()
    assert slow.closed


def test_ctrl_c_stops_the_keys(
    party: Party, key: SoftwareKey, ui: Any, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    party.enrol(ui, key)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ceremonies._Run, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        party.prove(ui, slow)
    assert slow.stopped.is_set()
    assert slow.closed


def test_ctrl_c_before_a_key_is_worked(
    party: Party, key: SoftwareKey, ui: Any, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    party.enrol(ui, key)

    def interrupted(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        party.prove(ui, slow)
    assert slow.closed


def _pin_client(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    given: list[str | None] = []

    class Client:
        def __init__(self, device: Any, collector: Any, interaction: Any) -> None:
            self.interaction = interaction

        def get_assertion(self, options: Any, stop: Any) -> Any:
            given.append(self.interaction.request_pin(None, RP))
            if not given[-1]:
                raise PinRequiredError
            raise ClientError.ERR.BAD_REQUEST(CtapError(CtapError.ERR.PIN_INVALID))

    monkeypatch.setattr(ceremonies, "Fido2Client", Client)
    return given


def test_the_pin_is_asked_by_the_calling_thread(
    party: Party, key: SoftwareKey, ui: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _pin_client(monkeypatch)
    threads = []
    ui.answers = ["0000"]
    ask = ui.prompt_secret
    ui.prompt_secret = lambda text: threads.append(threading.current_thread()) or ask(text)
    with pytest.raises(FactorError, match="the PIN is wrong") as caught:
        party.prove(ui, key)
    assert given == ["0000"]
    assert threads == [threading.main_thread()]
    assert "0000" not in str(caught.value)


def test_without_a_terminal_a_pin_is_an_error_that_says_so(
    party: Party, key: SoftwareKey, ui: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _pin_client(monkeypatch)
    ui.interactive = False
    with pytest.raises(FactorError, match="wants its PIN"):
        party.prove(ui, key)
    assert given == [None]
    assert ui.asked == []


def _client_error(code: Any, below: Any = None) -> ClientError:
    return code(None if below is None else CtapError(below))


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (_client_error(ClientError.ERR.BAD_REQUEST, CtapError.ERR.PIN_AUTH_BLOCKED), "is blocked"),
        (_client_error(ClientError.ERR.BAD_REQUEST, CtapError.ERR.OPERATION_DENIED), "was refused"),
        (_client_error(ClientError.ERR.CONFIGURATION_UNSUPPORTED), "no PIN or fingerprint"),
        (_client_error(ClientError.ERR.TIMEOUT), "no touch within"),
        (_client_error(ClientError.ERR.OTHER_ERROR), "failed"),
        (OSError("gone"), "failed"),
    ],
)
def test_each_failure_has_its_words(cause: Exception, says: str) -> None:
    error = explain([cause], 50)
    assert says in error.message
    assert error.hint
    assert error.__cause__ is cause


def test_of_several_failures_the_one_that_helps_is_told() -> None:
    other = _client_error(ClientError.ERR.OTHER_ERROR)
    wrong = _client_error(ClientError.ERR.DEVICE_INELIGIBLE)
    pin = PinRequiredError()
    assert "not enrolled" in explain([other, wrong], 50).message
    assert "PIN" in explain([other, wrong, pin], 50).message
