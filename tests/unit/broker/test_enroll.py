"""Enrolment is the back door of every second factor: who may add or remove what, and how often."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pyotp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fido2.cose import ES256, ES384, RS256

from credx.broker.invitation import create_invitation
from credx.broker.stores import Key, Put
from credx.broker.users import MAX_FACTORS
from credx.errors import Refusal
from credx.model import Secret
from credx.protocol import FactorSessionProof, Issued, StepUp

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = "10.0.0.1"
UP, UV, BE, BS = 0x01, 0x04, 0x08, 0x10


def refused(world: Any, call: Callable[[], Any], code: str) -> str:
    before = len(world.records())
    with pytest.raises(Refusal) as caught:
        call()
    assert caught.value.code == code
    after = world.records()
    assert len(after) == before + 1
    assert (after[-1]["event"], after[-1]["error"]) == ("refused", code)
    return str(after[-1]["detail"])


def begin(world: Any, token: Secret, kind: str = "webauthn", name: str = "new", **how: Any) -> Any:
    return world.broker.enrolment.begin(token, HERE, kind=kind, name=name, **how)


def complete(world: Any, token: Secret, begun: dict[str, Any], **answer: Any) -> dict[str, Any]:
    return world.broker.enrolment.complete(token, HERE, Secret(begun["enrolment"]), **answer)


def code(world: Any, begun: dict[str, Any]) -> Secret:
    return Secret(pyotp.TOTP(begun["secret"]).at(int(world.clock())))


# -- who may add


def test_a_first_factor_takes_an_invitation(world: Any) -> None:
    refused(world, lambda: begin(world, world.token()), "insufficient_authorization")
    world.add_key()
    invited, enrolled = world.records("invited")[0], world.records("enrolled")[0]
    assert (invited["subject"], invited["detail"]) == ("alice", "by root")
    assert enrolled["factor_kind"] == "webauthn"
    assert enrolled["detail"].startswith("'key', invitation ")
    assert [f["kind"] for f in world.broker.own_factors.listing(world.token(), HERE)] == ["webauthn"]


def test_an_invitation_is_for_one_person_once_and_for_a_day(world: Any, new_key: Any) -> None:
    token, invitation = world.token(), world.invite()
    cause = refused(world, lambda: begin(world, world.token("mallory"), invited=invitation), "access_denied")
    assert "somebody else" in cause
    refused(world, lambda: begin(world, token, invited=Secret("x" * 43)), "access_denied")
    first, second = begin(world, token, invited=invitation), begin(world, token, "totp", invited=invitation)
    complete(world, token, first, registration=new_key().register(first["public_key"]))
    refused(world, lambda: complete(world, token, second, otp=code(world, second)), "access_denied")
    refused(world, lambda: begin(world, token, invited=invitation), "access_denied")
    late = world.invite()
    world.clock.pass_(24 * 3600)
    refused(world, lambda: begin(world, world.token(), invited=late), "access_denied")


def test_the_same_subject_of_another_issuer_is_somebody_else(world: Any) -> None:
    invitation = create_invitation(
        world.audit,
        "https://ci.example.com",
        "alice",
        administrator="root",
        now=world.clock(),
        rng=os.urandom,
    )
    refused(world, lambda: begin(world, world.token(), invited=invitation), "access_denied")


def test_idp_mfa_serves_a_person_without_a_factor_and_fresh(world: Any, new_key: Any) -> None:
    now = int(world.clock())
    for claims in ({"amr": ["pwd"]}, {"amr": ["mfa"]}, {"amr": ["mfa"], "auth_time": now - 301}):
        refused(
            world, lambda claims=claims: begin(world, world.token(**claims)), "insufficient_authorization"
        )
    token = world.token(amr=["mfa"], auth_time=now - 299)
    first, second = begin(world, token), begin(world, token)
    complete(world, token, first, registration=new_key().register(first["public_key"]))
    answer = new_key().register(second["public_key"])  # begun while there was none: completing looks again
    refused(world, lambda: complete(world, token, second, registration=answer), "access_denied")
    assert isinstance(begin(world, token), StepUp)
    assert len(world.broker.own_factors.listing(token, HERE)) == 1


def test_a_further_factor_takes_a_proof_that_names_it(world: Any, new_key: Any) -> None:
    key, token = world.add_key(), world.token()
    step_up = begin(world, token, name="spare")
    assert isinstance(step_up, StepUp)
    proof = world.touch(token, key, step_up)
    refused(world, lambda: begin(world, token, name="other", proof=proof), "insufficient_authorization")
    refused(world, lambda: begin(world, token, "totp", "spare", proof=proof), "insufficient_authorization")
    refused(world, lambda: world.ask(token, proof=proof), "insufficient_authorization")
    begun = begin(world, token, name="spare", proof=proof)
    spare = new_key()
    assert [c["type"] for c in begun["public_key"]["excludeCredentials"]] == ["public-key"]
    complete(world, token, begun, registration=spare.register(begun["public_key"]))
    refused(world, lambda: begin(world, token, name="spare", proof=proof), "insufficient_authorization")
    assert isinstance(world.ask(token, proof=world.touch(token, spare, world.step_up(token))), Issued)


def test_a_proof_for_a_role_adds_no_factor(world: Any) -> None:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    refused(world, lambda: begin(world, token, proof=proof), "insufficient_authorization")


def test_an_earlier_proof_adds_and_removes_nothing(world: Any) -> None:
    key, token = world.add_key(), world.token()
    issued = world.ask(token, "dev", world.touch(token, key, world.step_up(token, "dev")))
    earlier = FactorSessionProof(factor_session=issued.factor_session)
    assert isinstance(begin(world, token, proof=earlier), StepUp)
    factor_id = world.broker.own_factors.listing(token, HERE)[0]["id"]
    assert isinstance(world.broker.own_factors.remove(token, HERE, factor_id, proof=earlier), StepUp)
    assert len(world.records("removed")) == 0


def test_a_code_never_adds_a_security_key_but_another_app(world: Any) -> None:
    app, token = world.add_app(), world.token()
    refused(world, lambda: begin(world, token), "insufficient_authorization")
    step_up = begin(world, token, "totp", "second app")
    begun = begin(world, token, "totp", "second app", proof=world.code(app, step_up))
    world.clock.pass_(60)
    assert complete(world, token, begun, otp=code(world, begun))["kind"] == "totp"


def test_touching_without_a_pin_adds_nothing(world: Any) -> None:
    key, token = world.add_key(), world.token()
    step_up = begin(world, token)
    assert isinstance(begin(world, token, proof=world.touch(token, key, step_up, flags=UP)), StepUp)


def test_what_allowed_it_must_still_hold_when_it_completes(world: Any, new_key: Any) -> None:
    key, token = world.add_key(), world.token()
    begun = begin(world, token, proof=world.touch(token, key, begin(world, token)))
    factor_id = world.broker.own_factors.listing(token, HERE)[0]["id"]
    step_up = world.broker.own_factors.remove(token, HERE, factor_id)
    world.broker.own_factors.remove(token, HERE, factor_id, proof=world.touch(token, key, step_up))
    answer = new_key().register(begun["public_key"])
    refused(world, lambda: complete(world, token, begun, registration=answer), "access_denied")


@pytest.mark.parametrize("name", ["", " edge", "x" * 65, "a\nb", "a\u202eb", "\x00"])
def test_a_name_is_short_and_printable(world: Any, name: str) -> None:
    invitation = world.invite()
    refused(world, lambda: begin(world, world.token(), name=name, invited=invitation), "invalid_request")


@pytest.mark.parametrize("kind", ["workload", "sms", ""])
def test_only_keys_and_apps_are_enrolled(world: Any, kind: str) -> None:
    refused(world, lambda: begin(world, world.token(), kind), "invalid_request")


def test_a_workload_has_no_security_key(world: Any) -> None:
    refused(world, lambda: begin(world, world.job()), "invalid_request")


def test_a_person_has_ten_factors_at_the_most(world: Any) -> None:
    for number in range(MAX_FACTORS):
        world.add_key(name=f"key {number}")
    invitation = world.invite()
    refused(world, lambda: begin(world, world.token(), invited=invitation), "access_denied")


# -- completing


@pytest.mark.parametrize(
    ("bend", "cause"),
    [
        ({"origin": "https://evil.example.com"}, "origin"),
        ({"rp_id": "example.com"}, "RP ID"),
        ({"type": "webauthn.get"}, "type"),
        ({"flags": UP}, "User Verified"),
        ({"flags": UV}, "User Present"),
        ({"flags": UP | UV | BS}, "not eligible"),
        ({"client_extra": {"crossOrigin": True}}, "frame"),
        ({"challenge": b"x" * 32}, "challenge"),
        ({"credential_id": b"y" * 32}, "another one"),
        ({"credential_type": "x"}, "type of the credential"),
        ({"response": {"attestationObject": "gA"}}, ""),
        (
            {"cose": ES384.from_cryptography_key(ec.generate_private_key(ec.SECP384R1()).public_key())},
            "algorithm",
        ),
        (
            {"cose": RS256.from_cryptography_key(rsa.generate_private_key(65537, 1024).public_key())},  # noqa: S505
            "algorithm or key size",
        ),
        ({"cose": ES256({1: 2, 3: -7, -1: 1, -2: b"\1" * 32, -3: b"\2" * 32})}, ""),
    ],
)
def test_a_bent_registration_is_refused_and_burns_its_challenge(
    world: Any, new_key: Any, bend: dict[str, Any], cause: str
) -> None:
    token = world.token()
    begun = begin(world, token, invited=world.invite())
    answer = new_key().register(begun["public_key"], **bend)
    detail = refused(
        world, lambda: complete(world, token, begun, registration=answer), "insufficient_authorization"
    )
    assert cause in detail
    good = new_key().register(begun["public_key"])
    refused(world, lambda: complete(world, token, begun, registration=good), "invalid_grant")
    assert world.broker.own_factors.listing(token, HERE) == []


def test_an_enrolment_is_one_persons_with_one_token_once_and_for_five_minutes(
    world: Any, new_key: Any
) -> None:
    token = world.token()
    begun = begin(world, token, invited=world.invite())
    answer = new_key().register(begun["public_key"])
    for other in (world.token("mallory"), world.token(jti="another")):
        refused(
            world, lambda other=other: complete(world, other, begun, registration=answer), "invalid_grant"
        )
    refused(world, lambda: complete(world, token, begun, otp=Secret("123456")), "invalid_request")
    complete(world, token, begun, registration=answer)
    refused(world, lambda: complete(world, token, begun, registration=answer), "invalid_grant")
    late = begin(world, token, "totp", invited=world.invite())
    world.clock.pass_(300)
    refused(world, lambda: complete(world, token, late, otp=code(world, late)), "invalid_grant")


def test_a_credential_id_belongs_to_one_person(world: Any) -> None:
    key, mallory = world.add_key(), world.token("mallory")
    begun = begin(world, mallory, invited=world.invite("mallory"))
    answer = key.register(begun["public_key"])
    refused(world, lambda: complete(world, mallory, begun, registration=answer), "access_denied")


def test_a_confirming_code_must_be_right_and_is_used(world: Any) -> None:
    token = world.token()
    begun = begin(world, token, "totp", invited=world.invite())
    assert begun["uri"].startswith("otpauth://totp/Example%20Corp:alice")
    wrong = lambda: complete(world, token, begun, otp=Secret("000000"))  # noqa: E731
    refused(world, wrong, "insufficient_authorization")
    right = code(world, begun)
    complete(world, token, begun, otp=right)
    app = pyotp.TOTP(begun["secret"])
    answer = world.ask(token, "dev", world.code(app, world.step_up(token, "dev")))
    assert isinstance(answer, StepUp)  # the confirming code's step is used
    world.clock.pass_(30)
    assert isinstance(world.ask(token, "dev", world.code(app, world.step_up(token, "dev"))), Issued)


def test_a_sealed_secret_is_bound_to_its_person_and_factor(world: Any) -> None:
    world.add_app()
    mallory = world.add_app("mallory")
    factors = {
        who: world.store.query(f"user#{world.user_key(who)}", "factor#", now=world.clock())[0]
        for who in ("alice", "mallory")
    }
    moved = dict(factors["alice"].value) | {"material": factors["mallory"].value["material"]}
    world.store.apply([Put(key=factors["alice"].key, value=moved, expected=None)], now=world.clock())
    token = world.token()
    with pytest.raises(Refusal) as refused:
        world.ask(token, "dev", world.code(mallory, world.step_up(token, "dev")))
    assert refused.value.code == "temporarily_unavailable"
    assert not world.records("granted")


def test_an_app_that_cannot_be_read_takes_no_other_one_with_it(world: Any) -> None:
    world.add_app(name="spoilt")
    good = world.add_app(name="good")
    spoilt = next(
        item
        for item in world.store.query(f"user#{world.user_key()}", "factor#", now=world.clock())
        if item.value["name"] == "spoilt"
    )
    value = dict(spoilt.value) | {"material": {**spoilt.value["material"], "sealed": "AAAA"}}
    world.store.apply([Put(key=spoilt.key, value=value, expected=None)], now=world.clock())
    token = world.token()
    assert isinstance(world.ask(token, "dev", world.code(good, world.step_up(token, "dev"))), Issued)


# -- removing


def test_removing_takes_a_proof_that_names_the_factor(world: Any) -> None:
    key, token = world.add_key(name="one"), world.token()
    world.clock.pass_(1)
    world.add_key(name="two")
    one, two = (f["id"] for f in world.broker.own_factors.listing(token, HERE))
    remove = world.broker.own_factors.remove
    proof = world.touch(token, key, remove(token, HERE, one))
    refused(world, lambda: remove(token, HERE, two, proof=proof), "insufficient_authorization")
    assert remove(token, HERE, one, proof=proof) is None
    assert [f["id"] for f in world.broker.own_factors.listing(token, HERE)] == [two]
    assert world.records("removed")[0]["factor_id"] == one
    assert isinstance(world.ask(token, proof=world.touch(token, key, world.step_up(token))), StepUp)


def test_a_removed_key_can_be_enrolled_again(world: Any) -> None:
    key, token = world.add_key(), world.token()
    factor_id = world.broker.own_factors.listing(token, HERE)[0]["id"]
    step_up = world.broker.own_factors.remove(token, HERE, factor_id)
    world.broker.own_factors.remove(token, HERE, factor_id, proof=world.touch(token, key, step_up))
    begun = begin(world, token, invited=world.invite())
    complete(world, token, begun, registration=key.register(begun["public_key"]))


def test_a_code_removes_no_security_key(world: Any) -> None:
    app, key, token = world.add_app(), world.add_key(), world.token()
    factors = {f["kind"]: f["id"] for f in world.broker.own_factors.listing(token, HERE)}
    remove = world.broker.own_factors.remove
    step_up = remove(token, HERE, factors["webauthn"])
    assert [f["kind"] for f in step_up.factors] == ["webauthn"]
    refused(
        world,
        lambda: remove(token, HERE, factors["webauthn"], proof=world.code(app, step_up)),
        "insufficient_authorization",
    )
    assert (
        remove(
            token, HERE, factors["totp"], proof=world.touch(token, key, remove(token, HERE, factors["totp"]))
        )
        is None
    )


def test_nobody_elses_factor_can_be_removed_or_seen(world: Any) -> None:
    world.add_key()
    mallory, token = world.add_key("mallory"), world.token("mallory")
    alices = world.broker.own_factors.listing(world.token(), HERE)[0]["id"]
    refused(world, lambda: world.broker.own_factors.remove(token, HERE, alices), "not_found")
    assert alices not in str(world.broker.own_factors.listing(token, HERE))
    assert mallory


def test_pending_enrolments_are_bounded(world: Any) -> None:
    token = world.token()
    for _ in range(8):
        begin(world, token, "totp", invited=world.invite())
    assert len(world.store.query(f"user#{world.user_key()}", "enrol#", now=world.clock())) == 5
    assert world.store.get(Key(f"user#{world.user_key()}", "profile"), now=world.clock()) is None
