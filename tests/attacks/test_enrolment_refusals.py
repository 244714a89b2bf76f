"""The back door: who must not add or remove a second factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyotp
import pytest
from support.broker_world import BS, CI, UP, UV

from credx.model import Secret
from credx.protocol import StepUp, TotpProof, WebAuthnProof

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.broker_world import SecurityKey
    from support.front import Answer, Front

    from credx.protocol import Proof

NO = "insufficient_authorization"


def touch(front: Front, token: Secret, key: SecurityKey, asked: Answer, **bend: Any) -> WebAuthnProof:
    return front.world.touch(token, key, StepUp.from_json(asked.body), **bend)


def code(front: Front, app: pyotp.TOTP, asked: Answer) -> TotpProof:
    return front.world.code(app, StepUp.from_json(asked.body))


def listed(front: Front, token: Secret) -> list[str]:
    return [factor["name"] for factor in front.send("GET", "/factors", token=token).body["factors"]]


# -- codes and security keys


def test_a_code_that_would_add_a_security_key(front: Front) -> None:
    world = front.world
    app, token = world.add_app(), world.token()
    front.refused(lambda: front.enrol(token), NO, cause="no factor, invitation or IdP MFA")
    proof = code(front, app, front.enrol(token, "totp"))
    front.refused(lambda: front.enrol(token, "webauthn", proof=proof), NO, cause="bound to another request")
    world.add_key()
    proof = code(front, app, front.enrol(token, "webauthn"))
    front.refused(lambda: front.enrol(token, "webauthn", proof=proof), NO, cause="codes are not accepted")
    assert sorted(listed(front, token)) == ["app", "key"]


def test_a_code_that_would_remove_a_security_key(front: Front) -> None:
    world = front.world
    app, key, token = world.add_app(), world.add_key(), world.token()
    of_key, of_app = front.factor_id(), front.factor_id(kind="totp")
    proof = code(front, app, front.remove(token, of_key))
    front.refused(lambda: front.remove(token, of_key, proof), NO, cause="codes are not accepted")
    proof = code(front, app, front.remove(token, of_app))
    front.refused(lambda: front.remove(token, of_key, proof), NO, cause="bound to another request")
    assert sorted(listed(front, token)) == ["app", "key"]
    assert front.remove(token, of_key, touch(front, token, key, front.remove(token, of_key))).status == 204


@pytest.mark.parametrize(
    "bend", [{"flags": UP}, {"origin": "https://evil.example.com"}, {"challenge": b"x" * 32}]
)
def test_a_touch_that_is_not_good_enough_to_add_or_remove(front: Front, bend: dict[str, Any]) -> None:
    key, token = front.world.add_key(), front.world.token()
    proof = touch(front, token, key, front.enrol(token), **bend)
    front.refused(lambda: front.enrol(token, proof=proof))
    proof = touch(front, token, key, front.remove(token, front.factor_id()), **bend)
    front.refused(lambda: front.remove(token, front.factor_id(), proof))
    assert listed(front, token) == ["key"]


# -- what a proof was made for


def test_a_proof_made_for(front: Front) -> None:
    """Each proof serves for its own purpose alone: every other pair is refused."""
    world = front.world
    key, token = world.add_key(), world.token()
    world.add_key(name="second")
    first, second = front.factor_id(name="key"), front.factor_id(name="second")
    uses: dict[str, Callable[..., Answer]] = {
        "a role": lambda proof=None: front.ask(token, proof=proof),
        "a key": lambda proof=None: front.enrol(token, proof=proof),
        "a key of another name": lambda proof=None: front.enrol(token, name="other", proof=proof),
        "an app of the same name": lambda proof=None: front.enrol(token, "totp", proof=proof),
        "a name that looks like both": lambda proof=None: front.enrol(token, name='new", "totp', proof=proof),
        "removing the first": lambda proof=None: front.remove(token, first, proof),
        "removing the second": lambda proof=None: front.remove(token, second, proof),
    }
    for made_for, step_up in uses.items():
        proof: Proof = touch(front, token, key, front.asked_again(step_up))
        for used_for, use in uses.items():
            if used_for != made_for:
                front.refused(lambda use=use, proof=proof: use(proof), NO, cause="bound to another request")
    assert sorted(listed(front, token)) == ["key", "second"]


def test_an_enrolment_proof_used_twice(front: Front) -> None:
    key, token = front.world.add_key(), front.world.token()
    proof = touch(front, token, key, front.enrol(token))
    assert front.enrol(token, proof=proof).status == 200
    front.refused(lambda: front.enrol(token, proof=proof), NO, cause="ended or used")


def test_an_enrolment_whose_proving_factor_is_gone(front: Front, new_key: Any) -> None:
    key, token = front.world.add_key(), front.world.token()
    front.world.add_key(name="spare")
    begun = front.enrol(token, proof=touch(front, token, key, front.enrol(token))).body
    factor = front.factor_id(name="key")
    assert front.remove(token, factor, touch(front, token, key, front.remove(token, factor))).status == 204
    answer = new_key().register(begun["public_key"])
    front.refused(
        lambda: front.complete(token, begun["enrolment"], webauthn=answer), "access_denied", cause="via proof"
    )


# -- invitations


def test_an_invitation_of_another_person(front: Front) -> None:
    world = front.world
    for_alice, of_ci = world.invite(), world.invite("mallory", CI)
    for invitation in (for_alice, of_ci):
        front.refused(
            lambda invitation=invitation: front.enrol(world.token("mallory"), invitation=invitation),
            "access_denied",
            cause="somebody else",
        )
    unknown = front.refused(
        lambda: front.enrol(world.token("mallory"), invitation=Secret("x" * 43)),
        "access_denied",
        cause="not known",
    )
    assert unknown.body == front.enrol(world.token("mallory"), invitation=for_alice).body  # and tells nothing


def test_an_invitation_used_twice(front: Front, new_key: Any) -> None:
    world = front.world
    token, invitation = world.token(), world.invite()
    begun = [front.enrol(token, name=name, invitation=invitation).body for name in ("one", "two")]
    answers = [new_key().register(body["public_key"]) for body in begun]
    assert front.complete(token, begun[0]["enrolment"], webauthn=answers[0]).status == 201
    front.refused(
        lambda: front.complete(token, begun[1]["enrolment"], webauthn=answers[1]),
        "access_denied",
        cause="used",
    )
    front.refused(lambda: front.enrol(token, invitation=invitation), "access_denied", cause="used")
    assert listed(front, token) == ["one"]


def test_an_invitation_after_a_day(front: Front, new_key: Any) -> None:
    world = front.world
    invitation = world.invite()
    world.clock.pass_(24 * 3600 - 100)
    token = world.token()
    begun = front.enrol(token, invitation=invitation).body
    world.clock.pass_(100)
    front.refused(lambda: front.enrol(token, invitation=invitation), "access_denied", cause="ended")
    answer = new_key().register(begun["public_key"])
    front.refused(
        lambda: front.complete(token, begun["enrolment"], webauthn=answer), "access_denied", cause="ended"
    )


# -- the identity provider's own MFA


def test_mfa_of_the_identity_provider_by_somebody_who_has_a_factor(front: Front, new_key: Any) -> None:
    world = front.world
    token = world.token(amr=["mfa"], auth_time=int(world.clock()))
    begun = [front.enrol(token, name=name).body for name in ("one", "two")]
    answers = [new_key().register(body["public_key"]) for body in begun]
    assert front.complete(token, begun[0]["enrolment"], webauthn=answers[0]).status == 201
    front.refused(
        lambda: front.complete(token, begun[1]["enrolment"], webauthn=answers[1]),
        "access_denied",
        cause="idp-mfa",
    )
    front.asked_again(lambda: front.enrol(token))
    assert listed(front, token) == ["one"]


def test_a_second_first_factor_that_completes_at_the_same_moment(front: Front, new_key: Any) -> None:
    world = front.world
    token = world.token(amr=["mfa"], auth_time=int(world.clock()))
    begun = [front.enrol(token, name=name).body for name in ("one", "two")]
    answers = [new_key().register(body["public_key"]) for body in begun]
    commit = world.audit.commit

    def the_other_first(*args: Any, **named: Any) -> None:
        world.audit.commit = commit  # type: ignore[method-assign]
        assert front.complete(token, begun[1]["enrolment"], webauthn=answers[1]).status == 201
        commit(*args, **named)

    world.audit.commit = the_other_first  # type: ignore[method-assign]
    answer = front.complete(token, begun[0]["enrolment"], webauthn=answers[0])
    assert (answer.status, answer.body["error"]) == (503, "temporarily_unavailable")
    front.nothing_in(answer)
    assert [record["event"] for record in world.records()] == ["enrolled", "refused"]
    assert listed(front, token) == ["two"]


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"amr": ["mfa"]},
        {"amr": ["pwd"], "auth_time": 0},
        {"amr": ["mfa"], "auth_time": -301},
        {"amr": ["MFA"], "auth_time": 0},
    ],
)
def test_a_first_factor_by(front: Front, claims: dict[str, Any]) -> None:
    if "auth_time" in claims:
        claims = claims | {"auth_time": int(front.world.clock()) + claims["auth_time"]}
    token = front.world.token(**claims)
    front.refused(lambda: front.enrol(token), NO, cause="no factor, invitation or IdP MFA")


def test_mfa_of_the_identity_provider_that_the_policy_stopped_to_accept(front: Front, new_key: Any) -> None:
    world = front.world
    token = world.token(amr=["mfa"], auth_time=int(world.clock()))
    begun = front.enrol(token).body
    world.change_policy('mfa_amr = ["mfa"]\n', "")
    front.refused(lambda: front.enrol(token), NO, cause="no factor, invitation or IdP MFA")
    answer = new_key().register(begun["public_key"])
    front.refused(
        lambda: front.complete(token, begun["enrolment"], webauthn=answer), "access_denied", cause="idp-mfa"
    )


# -- completing


def test_an_enrolment_completed_by(front: Front, new_key: Any) -> None:
    world = front.world
    token = world.token()
    begun = front.enrol(token, invitation=world.invite()).body
    answer = new_key().register(begun["public_key"])
    world.clock.pass_(1)
    for somebody in (
        world.token("mallory"),
        world.token(),
    ):  # another person; himself with a renewed ID token
        front.refused(
            lambda somebody=somebody: front.complete(somebody, begun["enrolment"], webauthn=answer),
            "invalid_grant",
        )
    assert listed(front, token) == listed(front, world.token("mallory")) == []
    assert front.complete(token, begun["enrolment"], webauthn=answer).status == 201
    front.refused(lambda: front.complete(token, begun["enrolment"], webauthn=answer), "invalid_grant")


def test_an_enrolment_completed_after_five_minutes(front: Front) -> None:
    token = front.world.token()
    begun = front.enrol(token, "totp", invitation=front.world.invite()).body
    front.world.clock.pass_(300)
    right = pyotp.TOTP(begun["secret"]).at(int(front.world.clock()))
    front.refused(lambda: front.complete(token, begun["enrolment"], otp=right), "invalid_grant")


def test_an_enrolment_completed_by_somebody_disabled_meanwhile(front: Front, new_key: Any) -> None:
    world = front.world
    token = world.token()
    begun = front.enrol(token, invitation=world.invite()).body
    answer = new_key().register(begun["public_key"])
    front.disable()
    front.refused(
        lambda: front.complete(token, begun["enrolment"], webauthn=answer),
        "access_denied",
        cause="user disabled",
    )
    front.disable(disabled=False)
    front.refused(lambda: front.complete(token, begun["enrolment"], webauthn=answer), "invalid_grant")


def test_an_enrolment_completed_with_an_answer_of_the_other_kind(front: Front, new_key: Any) -> None:
    token = front.world.token()
    app = front.enrol(token, "totp", invitation=front.world.invite()).body
    key = front.enrol(token, invitation=front.world.invite()).body
    answer = new_key().register(key["public_key"])
    front.refused(lambda: front.complete(token, app["enrolment"], webauthn=answer), "invalid_request")
    front.refused(lambda: front.complete(token, key["enrolment"], otp="123456"), "invalid_request")


def test_a_credential_id_that_belongs_to_somebody_else(front: Front, new_key: Any) -> None:
    world = front.world
    alices, mallory = world.add_key(), world.token("mallory")
    copy = new_key()
    copy.credential_id = alices.credential_id
    begun = front.enrol(mallory, invitation=world.invite("mallory")).body
    answer = copy.register(begun["public_key"])
    front.refused(
        lambda: front.complete(mallory, begun["enrolment"], webauthn=answer),
        "access_denied",
        cause="credential id in use",
    )
    token = world.token()
    front.issued(lambda: front.ask(token, proof=world.touch(token, alices, world.step_up(token))))


@pytest.mark.parametrize(
    ("bend", "cause"),
    [
        ({"origin": "https://credx.example.com.evil.com"}, "origin"),
        ({"rp_id": "example.com"}, "RP ID"),
        ({"type": "webauthn.get"}, "type"),
        ({"flags": UP}, "User Verified"),
        ({"flags": UP | UV | BS}, "not eligible"),
        ({"client_extra": {"crossOrigin": True}}, "frame"),
        ({"challenge": b"x" * 32}, "challenge"),
        ({"credential_id": b"y" * 32}, "another one"),
    ],
)
def test_a_new_key_whose_answer_is_bent(front: Front, new_key: Any, bend: dict[str, Any], cause: str) -> None:
    token = front.world.token()
    begun = front.enrol(token, invitation=front.world.invite()).body
    answer = new_key().register(begun["public_key"], **bend)
    front.refused(lambda: front.complete(token, begun["enrolment"], webauthn=answer), NO, cause=cause)
    good = new_key().register(begun["public_key"])  # and its challenge is burnt
    front.refused(lambda: front.complete(token, begun["enrolment"], webauthn=good), "invalid_grant")


def test_a_wrong_confirming_code(front: Front) -> None:
    token = front.world.token()
    begun = front.enrol(token, "totp", invitation=front.world.invite()).body
    old = pyotp.TOTP(begun["secret"]).at(int(front.world.clock()) - 90)
    front.refused(lambda: front.complete(token, begun["enrolment"], otp=old), NO, cause="confirming code")
    assert listed(front, token) == []


def test_a_factor_of_somebody_else(front: Front) -> None:
    world = front.world
    world.add_key()
    key, mallory = world.add_key("mallory"), world.token("mallory")
    alices = front.factor_id()
    front.refused(lambda: front.remove(mallory, alices), "not_found", cause="no such factor")
    proof = touch(front, mallory, key, front.remove(mallory, front.factor_id("mallory")))
    front.refused(lambda: front.remove(mallory, alices, proof), "not_found", cause="no such factor")
