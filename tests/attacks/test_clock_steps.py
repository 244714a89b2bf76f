"""A clock that steps, ten minutes or a day and an hour, to either side, between any two steps of a person: nothing that
was used is good again, no answer is a 5xx, and once the clock is right everything goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyotp
import pytest

from credx.broker import attempts, pace
from credx.model import Secret
from credx.protocol import FactorSessionProof, TotpProof, WebAuthnProof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.front import Answer, Front

MINUTES, DAY = 600, 25 * 3600
STEPS = [MINUTES, -MINUTES, DAY, -DAY]
NO, STALE = (403, "insufficient_authorization"), (401, "invalid_token")
TOO_OLD = (401, "insufficient_user_authentication")


def outcome(answer: Answer) -> tuple[int, str]:
    assert answer.status < 500, answer.raw
    return answer.status, (answer.body or {}).get("error", "")


def recorded(front: Front, call: Callable[[], Answer]) -> list[tuple[str, str]]:
    """Event and detail of the records that ``call`` leaves; a clock that went far back begins a new chain."""

    def places() -> dict[tuple[str, int], tuple[str, str]]:
        return {(r["writer"], r["seq"]): (r["event"], r.get("detail", "")) for r in front.world.records()}

    known = places()
    outcome(call())
    return [record for place, record in places().items() if place not in known]


ISSUED = [("granted", ""), ("issued", "")]


def proved(front: Front, subject: str, kind: str) -> Iterator[Callable[[], Answer]]:
    """A token, then: ask, challenge, prove and serve. What is yielded is called after the clock has stepped."""
    world = front.world
    person: Any = world.add_key(subject) if kind == "webauthn" else world.add_app(subject)
    token, seen = world.token(subject), {}

    def ask() -> Answer:
        seen["asked"] = front.ask(token, "dev")
        return seen["asked"]

    def begin() -> Answer:
        seen["begun"] = front.challenge(token, seen["asked"].body["auth_session"])
        return seen["begun"]

    def prove() -> Answer:
        session = Secret(seen["asked"].body["auth_session"])
        if kind == "webauthn":
            options = seen["begun"].body["public_key"]
            seen["proof"] = WebAuthnProof(auth_session=session, assertion=person.answer(options))
        else:
            seen["proof"] = TotpProof(auth_session=session, otp=Secret(person.at(int(world.clock()))))
        seen["issued"] = front.ask(token, "dev", seen["proof"])
        return seen["issued"]

    def serve() -> Answer:
        earlier = FactorSessionProof(factor_session=Secret(seen["issued"].body["factor_session"]))
        return front.ask(world.token(subject), "dev", earlier)  # with an ID token of that moment

    yield ask
    if kind == "webauthn":
        yield begin
    yield prove
    yield serve


# by the step and what comes right after it; every other call must go as it goes without a step
FIRST_BAD = {
    ("ask", MINUTES): (403, "insufficient_authorization"),  # the step-up itself: the token is young enough
    ("ask", -MINUTES): STALE,
    ("ask", DAY): STALE,
    ("ask", -DAY): STALE,
    ("begin", MINUTES): NO,
    ("begin", -MINUTES): STALE,
    ("begin", DAY): STALE,
    ("begin", -DAY): STALE,
    ("prove", MINUTES): NO,
    ("prove", -MINUTES): STALE,
    ("prove", DAY): STALE,
    ("prove", -DAY): STALE,
    ("serve", MINUTES): (200, ""),
    ("serve", -MINUTES): NO,
    ("serve", DAY): NO,
    ("serve", -DAY): NO,
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["webauthn", "totp"])
@pytest.mark.parametrize("before", ["ask", "begin", "prove", "serve"])
def test_a_step_before(front: Front, before: str, kind: str, step: int) -> None:
    world = front.world
    issued = 0
    for call in proved(front, "alice", kind):
        if call.__name__ != before:
            issued += outcome(call())[0] == 200 and call.__name__ in ("prove", "serve")
            continue
        world.clock.pass_(step)
        assert outcome(call()) == FIRST_BAD[before, step]
        issued += FIRST_BAD[before, step][0] == 200
        break
    assert len(world.records("granted")) == len(world.records("issued")) == issued
    world.clock.pass_(-step)
    for call in proved(front, "bob", kind):  # right again, for others
        answer = outcome(call())
    assert answer == (200, "")
    app, token = world.add_app(name="later"), world.token()  # and for her
    session = Secret(front.ask(token, "dev").body["auth_session"])
    code = Secret(app.at(int(world.clock())))
    assert outcome(front.ask(token, "dev", TotpProof(auth_session=session, otp=code))) == (200, "")
    assert world.audit.verify(world.clock()) is None


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["webauthn", "totp"])
def test_a_used_proof_after_a_step_and_after_the_step_back(front: Front, kind: str, step: int) -> None:
    world = front.world
    person: Any = world.add_key() if kind == "webauthn" else world.add_app()
    token = world.token()
    asked = world.step_up(token, "dev")
    proof = world.touch(token, person, asked) if kind == "webauthn" else world.code(person, asked)
    assert outcome(front.ask(token, "dev", proof)) == (200, "")
    for move in (step, -step):
        world.clock.pass_(move)
        for bearer in (token, world.token()):
            assert outcome(front.ask(bearer, "dev", proof))[0] in (401, 403)
            if kind == "totp":  # the same digits in a new session, by whichever clock
                answer = front.ask(bearer, "dev")
                if answer.status == 403 and "auth_session" in answer.body:
                    session = Secret(answer.body["auth_session"])
                    again = TotpProof(auth_session=session, otp=proof.otp)  # type: ignore[union-attr]
                    assert outcome(front.ask(bearer, "dev", again))[0] in (401, 403)
    assert len(world.records("granted")) == 1


@pytest.mark.parametrize("step", [-MINUTES, -DAY])
def test_a_code_of_the_past_by_a_clock_that_was_set_back(front: Front, step: int) -> None:
    """Somebody noted the codes of the past: by the clock they are right again, by the memory they are not."""
    world = front.world
    app = world.add_app()
    then = int(world.clock()) + step
    token = world.token()
    assert outcome(front.ask(token, "dev", world.code(app, world.step_up(token, "dev")))) == (200, "")
    world.clock.pass_(step)
    token = world.token()
    old = TotpProof(auth_session=world.step_up(token, "dev").auth_session, otp=Secret(app.at(then)))
    ((event, why),) = recorded(front, lambda: front.ask(token, "dev", old))
    assert (event, why) == ("refused", "time step used before")
    world.clock.pass_(-step + 60)
    token = world.token()
    right = world.code(app, world.step_up(token, "dev"))
    assert recorded(front, lambda: front.ask(token, "dev", right)) == ISSUED


@pytest.mark.parametrize("step", STEPS)
def test_an_invitation_across_a_step(front: Front, step: int) -> None:
    world = front.world
    invitation = world.invite()
    world.clock.pass_(step)
    began = front.enrol(world.token(), "totp", invitation=invitation)
    if step == DAY:
        assert outcome(began) == (403, "access_denied")  # a day is over, by this clock
        world.clock.pass_(-step)
        began = front.enrol(world.token(), "totp", invitation=world.invite())
    assert began.status == 200
    token = world.token()
    world.clock.pass_(-step if step != DAY else step)  # between begin and complete
    code = pyotp.TOTP(began.body["secret"]).at(int(world.clock()))
    answer = front.complete(token, began.body["enrolment"], otp=code)
    assert outcome(answer)[0] in (400, 401, 403)  # the token, the invitation or the five minutes are over
    assert world.records("enrolled") == []
    world.clock.pass_(step if step != DAY else -step)
    app = world.add_app(name="at last")
    session = world.step_up(token := world.token(), "dev")
    assert recorded(front, lambda: front.ask(token, "dev", world.code(app, session))) == ISSUED


@pytest.mark.parametrize("step", STEPS)
def test_a_used_invitation_after_a_step(front: Front, step: int) -> None:
    world = front.world
    invitation, token = world.invite(), world.token()
    began = front.enrol(token, "totp", invitation=invitation)
    code = pyotp.TOTP(began.body["secret"]).at(int(world.clock()))
    assert front.complete(token, began.body["enrolment"], otp=code).status == 201
    for move in (step, -step):
        world.clock.pass_(move)
        answer = front.enrol(world.token(), "totp", name="more", invitation=invitation)
        assert outcome(answer) == (403, "access_denied")
        again = front.complete(world.token(), began.body["enrolment"], otp=code)
        assert outcome(again)[0] in (400, 401, 403)
    assert len(world.records("enrolled")) == 1


def test_guesses_by_a_clock_that_was_fast(front: Front) -> None:
    """They count by any clock, but nobody rests until that clock's tomorrow."""
    world = front.world
    app = world.add_app()
    world.clock.pass_(DAY)
    token = world.token()
    for _ in range(attempts.FREE):
        session = world.step_up(token, "dev").auth_session
        front.ask(token, "dev", TotpProof(auth_session=session, otp=Secret("000000")))
    front.refused(
        lambda: front.ask(token, "dev", world.code(app, world.step_up(token, "dev"))), cause="locked, 5"
    )
    world.clock.pass_(-DAY)
    token = world.token()
    bad = TotpProof(auth_session=world.step_up(token, "dev").auth_session, otp=Secret("000000"))
    ((_, why),) = recorded(front, lambda: front.ask(token, "dev", bad))
    assert why == "locked, 6 wrong codes"  # looked at, wrong, and counted
    world.clock.pass_(61)
    token = world.token()
    right = world.code(app, world.step_up(token, "dev"))
    assert recorded(front, lambda: front.ask(token, "dev", right)) == ISSUED


def test_refusals_by_a_clock_that_was_fast(front: Front) -> None:
    world = front.world
    world.clock.pass_(DAY)
    who = world.user_key()
    limits = pace.Pace()
    for _ in range(pace.BURST):
        limits.count(who, now=world.clock())
    assert not limits.allows(who, now=world.clock())
    world.clock.pass_(-DAY)
    assert limits.allows(who, now=world.clock())
