from __future__ import annotations

from typing import Any

import pytest

from credx.errors import FactorError
from credx.factors import fido2
from credx.factors.prove import Prover
from credx.model import Secret
from credx.protocol import StepUp, TotpProof, WebAuthnProof

SESSION = Secret("s" * 20)


def step(*kinds: str) -> StepUp:
    return StepUp(
        auth_session=SESSION,
        expires_in=300,
        factors=tuple({"kind": kind, "id": kind, "name": kind} for kind in kinds),
    )


@pytest.fixture
def signed(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    calls: list[dict] = []

    def get_assertion(public_key: Any, **rest: Any) -> Any:
        calls.append({"public_key": public_key} | rest)
        return {"id": "x"}

    monkeypatch.setattr(fido2, "get_assertion", get_assertion)
    return calls


def prover(ui: Any, *, devices: Any = (), totp_code: Any = None, may_touch: Any = True) -> Prover:
    return Prover(
        ui=ui,
        devices=lambda: list(devices),
        totp_code=totp_code,
        origin="https://credx.example.com",
        may_touch=may_touch,
    )


def begin(session: Secret) -> dict:
    assert session == SESSION
    return {"challenge": "c"}


def never(_: Secret) -> dict:
    raise AssertionError("no challenge is wanted")


def test_a_plugged_in_key_comes_first(ui: Any, signed: list[dict[str, Any]]) -> None:
    proof = prover(ui, devices=["key"]).prove(step("totp", "webauthn"), "dev", begin)
    assert isinstance(proof, WebAuthnProof)
    assert proof.assertion == {"id": "x"}
    assert signed[0]["origin"] == "https://credx.example.com"
    assert signed[0]["approve"] == "dev"


def test_without_a_key_a_code_is_asked_for(ui: Any, signed: list[dict[str, Any]]) -> None:
    ui.answers = ["123456"]
    proof = prover(ui).prove(step("totp", "webauthn"), "dev", never)
    assert isinstance(proof, TotpProof)
    assert "dev" in ui.asked[0]
    assert signed == []


def test_the_hook_answers_codes_before_the_person(ui: Any) -> None:
    proof = prover(ui, totp_code=lambda: Secret("654321")).prove(step("totp"), "dev", never)
    assert isinstance(proof, TotpProof)
    assert proof.otp.reveal() == "654321"
    assert ui.asked == []


def test_a_hook_that_knows_nothing_leaves_it_to_the_person(ui: Any) -> None:
    ui.answers = ["123456"]
    proof = prover(ui, totp_code=lambda: None).prove(step("totp"), "dev", never)
    assert isinstance(proof, TotpProof)


def test_a_role_for_keys_alone_says_that_none_is_there(ui: Any, signed: list[dict[str, Any]]) -> None:
    with pytest.raises(FactorError, match="no security key is plugged in"):
        prover(ui).prove(step("webauthn"), "dev", never)


def test_no_factor_at_all(ui: Any) -> None:
    with pytest.raises(FactorError, match="no second factor"):
        prover(ui, devices=["key"]).prove(step(), "dev", never)


@pytest.mark.parametrize("kind", ["webauthn", "totp"])
def test_nobody_is_bothered_when_nobody_may_be(ui: Any, signed: list[dict[str, Any]], kind: str) -> None:
    ui.interactive = False
    with pytest.raises(FactorError, match="would have asked for"):
        prover(ui, devices=["key"], may_touch=False).prove(step(kind), "dev", never)
    ui.interactive = True
    with pytest.raises(FactorError, match="would have asked for"):
        prover(ui, devices=["key"]).prove(step(kind), "dev", never, person=False)
    assert ui.asked == []
    assert ui.notes == []
    assert signed == []


def test_the_first_code_of_a_new_authenticator_comes_from_the_person(ui: Any) -> None:
    ui.answers = ["123456"]
    mine = prover(ui, totp_code=lambda: Secret("654321"))
    assert mine.first_code("first code").reveal() == "123456"
    ui.interactive = False
    assert mine.first_code("first code").reveal() == "654321"


def test_a_key_is_registered_only_when_a_touch_may_be_asked_for(
    ui: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fido2, "make_credential", lambda options, **_: {"made": options})
    assert prover(ui).register({"o": 1}) == {"made": {"o": 1}}
    with pytest.raises(FactorError, match="would have asked for a touch"):
        prover(ui, may_touch=False).register({"o": 1})


def test_keys_that_cannot_be_listed_are_no_obstacle_to_a_code(ui: Any) -> None:
    def broken() -> list[Any]:
        raise FactorError("cannot be listed")

    mine = prover(ui)
    mine._devices = broken
    ui.answers = ["123456"]
    assert isinstance(mine.prove(step("totp", "webauthn"), "dev", never), TotpProof)
    with pytest.raises(FactorError, match="cannot be listed"):
        mine.prove(step("webauthn"), "dev", never)


def test_a_factor_of_an_unknown_kind_is_passed_over(ui: Any) -> None:
    odd = StepUp(auth_session=SESSION, expires_in=300, factors=({"id": "x"}, {"kind": "face", "id": "y"}))
    with pytest.raises(FactorError, match="no second factor"):
        prover(ui).prove(odd, "dev", never)
