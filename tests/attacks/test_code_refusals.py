"""Codes of an authenticator app: used once, of this moment, six ASCII digits, and guesses are counted."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import NOW

from credx.broker import attempts, totp
from credx.model import Secret
from credx.protocol import TotpProof

if TYPE_CHECKING:
    from support.front import Answer, Front

NO = "insufficient_authorization"


def guess(front: Front, token: Secret, code: str = "000000") -> Answer:
    session = front.world.step_up(token, "dev").auth_session
    return front.ask(token, "dev", TotpProof(auth_session=session, otp=Secret(code)))


def failures(front: Front) -> int:
    world = front.world
    return attempts.load(front.store, world.user_key(), now=world.clock()).get(attempts.PERSON).failures


def test_a_code_used_twice(front: Front) -> None:  # CVE-2025-6014
    world = front.world
    app, token = world.add_app(), world.token()
    first, second, third = (world.step_up(token, role) for role in ("dev", "dev", "other-group"))
    front.issued(lambda: front.ask(token, "dev", world.code(app, first)))
    front.refused(lambda: front.ask(token, "dev", world.code(app, first)), NO, cause="ended or used")
    front.refused(lambda: front.ask(token, "dev", world.code(app, second)), NO, cause="used before")
    front.refused(lambda: front.ask(token, "other-group", world.code(app, third)), NO, cause="used before")


def test_a_code_of_a_step_before_the_last_used(front: Front) -> None:
    world = front.world
    app, token = world.add_app(), world.token()
    front.issued(lambda: front.ask(token, "dev", world.code(app, world.step_up(token, "dev"), steps=1)))
    for steps in (0, 1):
        front.refused(
            lambda steps=steps: guess(front, token, app.at(int(world.clock()), counter_offset=steps)),
            NO,
            cause="used before",
        )


@pytest.mark.parametrize("steps", [-100, -3, -2, 2, 3])
def test_a_code_of_another_time(front: Front, steps: int) -> None:
    app, token = front.world.add_app(), front.world.token()
    code = app.at(int(front.world.clock()), counter_offset=steps)
    front.refused(lambda: guess(front, token, code), NO, cause="wrong code")


def test_the_code_that_confirmed_the_enrolment(front: Front) -> None:
    app, token = front.world.add_app(), front.world.token()
    front.world.clock.pass_(-30)  # its step is one back now
    front.refused(lambda: guess(front, token, app.at(NOW)), NO, cause="used before")


FOLDED = {
    "fullwidth": lambda d: chr(0xFF10 + d),
    "superscript": lambda d: "⁰¹²³⁴⁵⁶⁷⁸⁹"[d],
    "mathematical bold": lambda d: chr(0x1D7CE + d),
    "Arabic-Indic": lambda d: chr(0x0660 + d),
    "with a blank after each": lambda d: f"{d} ",
    "with an invisible mark": lambda d: f"{d}\u200b",
}


@pytest.mark.parametrize("digits", FOLDED)
def test_digits_that_are(front: Front, digits: str) -> None:  # CVE-2025-6014: pyotp folds them
    app, token = front.world.add_app(), front.world.token()
    session, right = front.world.step_up(token, "dev").auth_session, app.at(int(front.world.clock()))
    typed = TotpProof(auth_session=session, otp=Secret("".join(FOLDED[digits](int(d)) for d in right)))
    front.refused(lambda: front.ask(token, "dev", typed), NO, verified=False)
    assert totp.matched_step(Secret(app.secret), typed.otp, now=front.world.clock()) is None
    front.issued(lambda: guess(front, token, right))


@pytest.mark.parametrize("bend", [" {}", "{} ", "{}\n", "\t{}", "+{}", "{}.0", "0{}", "{}{}"])
def test_a_code_with_something_around_it(front: Front, bend: str) -> None:
    app, token = front.world.add_app(), front.world.token()
    right = app.at(int(front.world.clock()))
    front.refused(lambda: guess(front, token, bend.format(right, right)), NO, verified=False)
    assert (
        totp.matched_step(Secret(app.secret), Secret(bend.format(right, right)), now=front.world.clock())
        is None
    )


def test_the_sixth_guess_even_if_it_is_right(front: Front) -> None:
    app, token = front.world.add_app(), front.world.token()
    for _ in range(attempts.FREE - 1):
        assert front.refused(lambda: guess(front, token), NO, cause="wrong code").body["retry"]
    answer = front.refused(lambda: guess(front, token), NO, cause="locked, 5")
    assert "retry" not in answer.body
    right = app.at(int(front.world.clock()) + 31)
    front.refused(lambda: guess(front, token, app.at(int(front.world.clock()))), NO, cause="locked, 5")
    front.refused(lambda: front.enrol(token, "totp", proof=_code(front, app, "totp")), NO, cause="locked, 5")
    front.world.clock.pass_(attempts.FIRST_REST + 1)
    front.issued(lambda: guess(front, token, right))


def _code(front: Front, app: Any, kind: str) -> TotpProof:
    session = front.enrol(front.world.token(), kind).body["auth_session"]
    return TotpProof(auth_session=Secret(session), otp=Secret(app.at(int(front.world.clock()))))


def test_parallel_guesses_beyond_the_limit(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:  # CVE-2026-27801
    front.world.add_app()
    token, looked_at, original = front.world.token(), [], totp.matched_step

    def counted(*args: Any, **named: Any) -> Any:
        looked_at.append(1)
        return original(*args, **named)

    monkeypatch.setattr(totp, "matched_step", counted)
    answers, start = [], threading.Barrier(24)

    def one() -> None:
        start.wait()
        answers.append(guess(front, token).status)

    threads = [threading.Thread(target=one) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {403, 503}
    assert len(answers) == 24
    assert 1 <= len(looked_at) <= attempts.FREE
    assert failures(front) == len(looked_at)
    records = front.world.records("refused")
    assert len(records) == 24
    assert front.world.records("granted") == []


def test_guesses_in_requests_that_fail(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:  # CVE-2026-35597
    app, token = front.world.add_app(), front.world.token()

    def crash(*_: Any, **__: Any) -> Any:
        raise RuntimeError

    with monkeypatch.context() as broken:
        broken.setattr(totp, "matched_step", crash)
        for number in range(attempts.FREE):
            assert guess(front, token).status == 500
            assert failures(front) == number + 1
    front.refused(lambda: guess(front, token, app.at(int(front.world.clock()))), NO, cause="locked, 5")


def test_a_lock_by_somebody_without_the_persons_id_token(front: Front) -> None:  # AliasVault 2330
    world = front.world
    app, token = world.add_app(), world.token()
    session = world.step_up(token, "dev").auth_session
    wrong = TotpProof(auth_session=session, otp=Secret("000000"))
    forged = Secret(token.reveal()[:-8] + "AAAAAAAA")
    for _ in range(attempts.FREE + 1):
        front.refused(
            lambda: front.ask(forged, "dev", wrong), "invalid_token", verified=False, line="token_refused"
        )
        front.refused(lambda: front.ask(world.token("mallory"), "dev", wrong), NO, cause="not known")
    assert failures(front) == 0
    front.issued(lambda: front.ask(token, "dev", world.code(app, world.step_up(token, "dev"))))


def test_a_code_where_the_role_takes_security_keys_alone(front: Front) -> None:
    world = front.world
    app, _, token = world.add_app(), world.add_key(), world.token()
    proof = world.code(app, world.step_up(token))
    front.refused(lambda: front.ask(token, proof=proof), NO, cause="codes are not accepted")


def test_a_code_of_somebody_elses_app(front: Front) -> None:
    world = front.world
    world.add_app()
    mallorys, token = world.add_app("mallory"), world.token()
    proof = world.code(mallorys, world.step_up(token, "dev"))
    front.refused(lambda: front.ask(token, "dev", proof), NO, cause="wrong code")


def test_a_code_for_a_session_of_another_role(front: Front) -> None:
    world = front.world
    app, token = world.add_app(), world.token()
    proof = world.code(app, world.step_up(token, "dev"))
    front.refused(lambda: front.ask(token, "other-group", proof), NO, cause="bound to another")
    assert failures(front) == 0
