"""Guessing, and denying: what locks after too many wrong answers, what never does, and who cannot cause it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from credx.broker import attempts, auth_session, totp
from credx.broker.handles import handle_hash
from credx.broker.stores import Put
from credx.broker.users import load_factors
from credx.model import Secret
from credx.protocol import TotpProof

if TYPE_CHECKING:
    import pyotp
    from support.front import Answer, Front

    from credx.broker.users import Factor

DAY = 24 * 3600


def guess(front: Front, code: str = "000000", *, token: Secret | None = None) -> Answer:
    token = token or front.world.token()
    session = front.world.step_up(token, "dev").auth_session
    return front.ask(token, "dev", TotpProof(auth_session=session, otp=Secret(code)))


def now_of(app: pyotp.TOTP, front: Front) -> str:
    return app.at(int(front.world.clock()))


def factor(front: Front, name: str) -> Factor:
    world = front.world
    return next(f for f in load_factors(front.store, world.user_key(), now=world.clock()) if f.name == name)


# -- codes


def test_a_hundred_guesses_between_the_right_codes_of_another_app(front: Front) -> None:
    """NIST SP 800-63B-4 3.2.2 counts for each authenticator: the daily app's codes end not the count of the spare's."""
    world = front.world
    daily, spare, key = world.add_app(name="daily"), world.add_app(name="spare"), world.add_key()
    user, spare_id = world.user_key(), factor(front, "spare").id
    for _ in range(attempts.MOST):
        world.clock.pass_(DAY)
        attempts.count(front.store, user, [spare_id], now=world.clock())
        front.store.apply(
            [attempts.passed(front.store, user, "daily", now=world.clock() + 1)], now=world.clock()
        )
    world.clock.pass_(365 * DAY)
    front.refused(lambda: guess(front, now_of(spare, front)), cause="wrong code")  # not even looked at
    front.issued(lambda: guess(front, now_of(daily, front)))
    token = world.token()
    front.issued(lambda: front.ask(token, proof=world.touch(token, key, world.step_up(token))))
    assert attempts.load(front.store, user, now=world.clock()).get(spare_id).failures == attempts.MOST


def test_guesses_at_codes_lock_no_security_key(front: Front) -> None:
    world = front.world
    app, key = world.add_app(), world.add_key()
    for _ in range(attempts.FREE):
        guess(front)
    front.refused(lambda: guess(front, now_of(app, front)), cause="locked, 5")
    token = world.token()
    front.issued(lambda: front.ask(token, proof=world.touch(token, key, world.step_up(token))))
    front.refused(
        lambda: guess(front, now_of(app, front)), cause="locked, 5"
    )  # nor does the key unlock codes


def test_a_guess_by_another_way_in(front: Front) -> None:
    """Logging in, enrolling and removing count on one counter (CVE-2026-7820, CVE-2025-6015)."""
    world = front.world
    app, token = world.add_app(), world.token()
    mine = factor(front, "app").id

    def wrong(session: str) -> TotpProof:
        return TotpProof(auth_session=Secret(session), otp=Secret("000000"))

    guess(front)
    front.enrol(token, "totp", proof=wrong(front.enrol(token, "totp").body["auth_session"]))
    front.remove(token, mine, wrong(front.remove(token, mine).body["auth_session"]))
    counted = attempts.load(front.store, world.user_key(), now=world.clock()).of
    assert {name: tally.failures for name, tally in counted.items()} == {attempts.PERSON: 3, mine: 3}
    for _ in range(2):
        guess(front)
    front.refused(lambda: guess(front, now_of(app, front)), cause="locked, 5")
    session = front.remove(token, mine).body["auth_session"]
    right = TotpProof(auth_session=Secret(session), otp=Secret(now_of(app, front)))
    front.refused(lambda: front.remove(token, mine, right), cause="locked, 5")


def test_a_guess_that_the_store_cannot_count(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    from support.front import Failing

    world, looked_at = front.world, []
    app, token = world.add_app(), world.token()
    proof = world.code(app, world.step_up(token, "dev"))
    original = totp.matched_step
    monkeypatch.setattr(totp, "matched_step", lambda *a, **k: looked_at.append(1) or original(*a, **k))
    with Failing(front.store, 0):
        assert front.ask(token, "dev", proof).status == 503
    assert looked_at == []
    front.issued(lambda: front.ask(token, "dev", proof))


# -- security keys


def test_wrong_answers_that_lock_a_key(front: Front) -> None:
    """A signature cannot be guessed: a lock would only serve whoever stole an ID token."""
    world = front.world
    key, stolen = world.add_key(), world.token()
    for _ in range(21):
        session = world.step_up(stolen)
        for _ in range(auth_session.MAX_FAILURES):
            bad = world.touch(stolen, key, session, response={"signature": "AAAA"}, counter=1)
            front.refused(lambda bad=bad: front.ask(stolen, proof=bad), cause="ignature")
    world.clock.pass_(1)
    token = world.token()
    front.issued(lambda: front.ask(token, proof=world.touch(token, key, world.step_up(token))))


def test_a_copied_key_after_the_other_was_used(front: Front) -> None:
    """WebAuthn 6.1.1: made for a younger challenge than the last use, a lower counter is of another device."""
    world = front.world
    key, app, token = world.add_key(), world.add_app(), world.token()
    front.issued(
        lambda: front.ask(token, "dev", world.touch(token, key, world.step_up(token, "dev"), counter=7))
    )
    earlier = _factor_session(front, key, token)
    world.clock.pass_(1)
    copy = world.touch(token, key, world.step_up(token), counter=8)
    answer = front.refused(lambda: front.ask(token, proof=copy), cause="after 8: key ")
    assert "disabled" in answer.body["error_description"]
    assert "retry" not in answer.body
    assert factor(front, "key").disabled
    # whoever has the copy or the original: neither serves, nor what was proved before
    front.refused(lambda: front.ask(token), cause="no accepted factor")
    front.refused(lambda: front.ask(token, "dev", earlier), cause="disabled")
    front.refused(lambda: front.challenge(token, copy.auth_session.reveal()), cause="no security key")
    # the owner's other factor goes on; a code never removes a security key, another key does
    front.issued(lambda: front.ask(token, "dev", world.code(app, world.step_up(token, "dev"))))
    spare = world.add_key(name="spare")
    session = world.broker.own_factors.remove(token, "10.0.0.1", factor(front, "key").id)
    assert session is not None
    assert front.remove(token, factor(front, "key").id, world.touch(token, spare, session)).status == 204


def _factor_session(front: Front, key: Any, token: Secret) -> Any:
    from credx.protocol import FactorSessionProof

    world = front.world
    proof = world.touch(token, key, world.step_up(token, "dev"), counter=8)
    answer = front.issued(lambda: front.ask(token, "dev", proof))
    return FactorSessionProof(factor_session=Secret(answer.body["factor_session"]))


def test_an_answer_that_was_overtaken_is_no_copy(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    world.clock.pass_(5)
    slow = world.touch(token, key, world.step_up(token))
    world.clock.pass_(5)
    front.issued(lambda: front.ask(token, proof=world.touch(token, key, world.step_up(token))))
    front.refused(lambda: front.ask(token, proof=slow), cause="signature counter 2 after 3")
    assert not factor(front, "key").disabled
    world.clock.pass_(5)
    front.issued(lambda: front.ask(token, proof=world.touch(token, key, world.step_up(token))))


def test_a_low_counter_without_a_good_signature_disables_no_key(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    world.clock.pass_(5)
    bad = world.touch(token, key, world.step_up(token), counter=0, response={"signature": "AAAA"})
    front.refused(lambda: front.ask(token, proof=bad), cause="ignature")
    assert not factor(front, "key").disabled


# -- denial


def test_a_stolen_id_token_pushes_out_what_another_has_begun(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    for number in range(3):
        world.clock.pass_(1)
        stolen = world.token(jti=f"stolen-{number}")
        for _ in range(25):
            front.asked_again(lambda stolen=stolen: front.ask(stolen))
    stored = front.store.query(f"user#{world.user_key()}", "auth#", now=world.clock())
    assert len(stored) == auth_session.MAX_OPEN_PERSON
    front.issued(lambda: front.ask(token, proof=world.touch(token, key, step_up)))


def test_an_id_token_without_end_of_auth_sessions(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    first = world.step_up(token).auth_session
    for _ in range(auth_session.MAX_OPEN):
        world.clock.pass_(1)
        last = world.step_up(token)
    stored = front.store.query(f"user#{world.user_key()}", "auth#", now=world.clock())
    assert len(stored) == auth_session.MAX_OPEN
    front.refused(lambda: front.challenge(token, first.reveal()), cause="not known")
    front.issued(lambda: front.ask(token, proof=world.touch(token, key, last)))


# -- somebody else's hand in the store


BROKEN: dict[str, tuple[str, Any]] = {
    "a factor without material": ("factor#", {"id": "a", "kind": "webauthn", "name": "key", "created_at": 1}),
    "a factor with a member more": ("factor#", {"id": "a", "admin": True}),
    "an auth session without a binding": ("auth#", {"token_hash": "x", "kinds": ["webauthn"]}),
    "an auth session of nothing": ("auth#", {}),
    "an auth session whose challenge is no hex": ("auth#", {"challenge": "zz"}),
    "a sealed secret that is none": ("factor#", {"material": {"sealed": "v1.AAAA", "last_step": 0}}),
    "a time step that is no number": ("factor#", {"material": {"last_step": "now"}}),
    "counts that are none": ("attempts", {"person": "many"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_item(front: Front, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is decided on it: 503, a line that says what, and all is well once it is mended."""
    world, (prefix, change) = front.world, BROKEN[name]
    app, token = world.add_app(), world.token()
    guess(front)  # so that there are counts
    proof = world.code(app, world.step_up(token, "dev"))
    items = front.store.query(f"user#{world.user_key()}", prefix, now=world.clock())
    item = next(one for one in items if prefix != "auth#" or handle_hash(proof.auth_session) in one.key.sort)
    value = change if "material" not in change and "challenge" not in change else {**item.value, **change}
    put = Put(key=item.key, value=value, expected=None, expires_at=item.expires_at)
    front.store.apply([put], now=world.clock())
    with caplog.at_level(logging.ERROR, "credx.broker"):
        answer = front.ask(token, "dev", proof)
    assert (answer.status, answer.body["error"]) == (503, "temporarily_unavailable")
    assert answer.headers["retry-after"]
    assert "malformed" in caplog.text
    assert world.records("granted") == []
    mended = Put(key=item.key, value=item.value, expected=None, expires_at=item.expires_at)
    front.store.apply([mended], now=world.clock())
    front.issued(lambda: front.ask(token, "dev", proof))


def test_a_fault_of_the_program_leaves_a_record(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    world = front.world
    app, token = world.add_app(), world.token()
    proof = world.code(app, world.step_up(token, "dev"))

    def crash(*_: Any, **__: Any) -> Any:
        raise RuntimeError("with a secret in it")

    with monkeypatch.context() as broken:
        broken.setattr(totp, "matched_step", crash)
        answer = front.ask(token, "dev", proof)
    assert answer.status == 500
    record = world.records("refused")[-1]
    assert (record["error"], record["detail"]) == ("server_error", "unexpected RuntimeError")
    front.issued(lambda: front.ask(token, "dev", proof))
