"""Proofs: what is bound to what, what serves once, what is counted, what a library leaves to the broker."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from typing import Any

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.memory_store import MemoryStore

from credx.broker import attempts, auth_session, totp
from credx.broker.auth_session import Demand, binding
from credx.errors import Refusal
from credx.model import Secret
from credx.protocol import Ask, Issued, StepUp, TotpProof, WebAuthnProof

ORIGIN = "https://credx.example.com"
TARGET = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0123456789abcdef"
UP, UV, BE, BS = 0x01, 0x04, 0x08, 0x10


def wrong(world: Any, answer: Any, cause: str) -> None:
    """The proof was refused: a record with the cause, nothing granted; the answer tells nothing of the cause."""
    assert isinstance(answer, StepUp)
    assert answer.retry
    record = world.records()[-1]
    assert record["event"] == "refused"
    assert cause in record["detail"]
    assert world.records("granted") == []


def closed(world: Any, call: Any, cause: str) -> None:
    with pytest.raises(Refusal) as caught:
        call()
    assert caught.value.code == "insufficient_authorization"
    record = world.records()[-1]
    assert record["event"] == "refused"
    assert cause in record["detail"]


# -- bound


@pytest.mark.parametrize(
    "other",
    [
        {"role": "dev"},
        {"scopes": ("read", "write")},
        {"reason": "because"},
        {"duration": 900},
        {"resources": (TARGET + "1",)},
        {"operation": "run"},
    ],
)
def test_a_proof_is_good_for_what_was_asked_and_nothing_else(world: Any, other: dict[str, Any]) -> None:
    world.change_policy(
        'operations = ["shell"]\ntargets = ["arn:aws:ec2:eu-central-1:111122223333:instance/*"]',
        'operations = ["shell", "run"]\ntargets = ["arn:aws:ec2:eu-central-1:111122223333:instance/*"]\n'
        '[roles.shell.scopes.read]\ndescription = "read"\ntags = { logs = "read" }\n'
        '[roles.shell.scopes.write]\ndescription = "write"\ntags = { disk = "write" }',
    )
    key, token = world.add_key(), world.token()
    asked: dict[str, Any] = {
        "role": "shell",
        "resources": (TARGET + "0",),
        "operation": "shell",
        "scopes": ("read",),
    }
    proof = world.touch(token, key, world.step_up(token, **asked))
    other = {**asked, **other} if "role" not in other else other
    closed(world, lambda: world.ask(token, proof=proof, **other), "bound to another request")
    assert isinstance(world.ask(token, proof=proof, **asked), Issued)  # it was not used up by the attempt


def test_a_proof_is_good_with_the_same_id_token_only(world: Any) -> None:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    closed(world, lambda: world.ask(world.token(jti="x"), proof=proof), "bound to another request")
    with pytest.raises(Refusal):
        world.broker.begin_proof(world.token(jti="x"), proof.auth_session, "10.0.0.1")


def test_nobody_elses_session_can_be_used(world: Any) -> None:
    key, token, other = world.add_key(), world.token(), world.token("mallory")
    mallory = world.add_key("mallory")
    step_up = world.step_up(token)
    options = world.broker.begin_proof(token, step_up.auth_session, "10.0.0.1")
    for device in (key, mallory):
        proof = WebAuthnProof(auth_session=step_up.auth_session, assertion=device.answer(options))
        closed(world, lambda proof=proof: world.ask(other, proof=proof), "not known")
    with pytest.raises(Refusal):
        world.broker.begin_proof(other, step_up.auth_session, "10.0.0.1")


@given(
    st.lists(st.text(max_size=8), min_size=3, max_size=3),
    st.lists(st.text(max_size=8), min_size=3, max_size=3),
)
def test_two_demands_never_share_a_binding(one: list[str], two: list[str]) -> None:
    bound = [
        binding(
            Demand(purpose=purpose, kinds=("webauthn",), user_verification=True),
            user_key=user,
            token_hash=token,
        )
        for user, token, purpose in (one, two)
    ]
    assert (bound[0] == bound[1]) == (one == two)


def test_an_ask_can_not_pass_for_an_enrolment() -> None:
    assert not f"token {Ask(role='a').canonical()}".startswith(("enrol", "remove"))


# -- WebAuthn: used once, in time


def test_an_assertion_serves_once(world: Any) -> None:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    assert isinstance(world.ask(token, proof=proof), Issued)
    with pytest.raises(Refusal):
        world.ask(token, proof=proof)
    step_up = world.step_up(token)  # nor in another session
    world.broker.begin_proof(token, step_up.auth_session, "10.0.0.1")
    again = WebAuthnProof(auth_session=step_up.auth_session, assertion=proof.assertion)
    assert isinstance(world.ask(token, proof=again), StepUp)
    assert len(world.records("granted")) == 1


def test_a_challenge_lives_120_seconds_and_a_session_300(world: Any) -> None:
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    proof = world.touch(token, key, step_up)
    world.clock.pass_(121)
    wrong(world, world.ask(token, proof=proof), "no live challenge")
    assert isinstance(world.ask(token, proof=world.touch(token, key, step_up)), Issued)
    step_up = world.step_up(token)
    world.clock.pass_(200)
    proof = world.touch(token, key, step_up)
    world.clock.pass_(101)
    closed(world, lambda: world.ask(token, proof=proof), "not known")


def test_a_challenge_is_void_after_a_wrong_answer_and_after_a_new_one(world: Any) -> None:
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    good = world.touch(token, key, step_up)
    options = {"challenge": "AAAA" * 10, "rpId": "credx.example.com"}
    bad = WebAuthnProof(auth_session=step_up.auth_session, assertion=key.answer(options))
    wrong(world, world.ask(token, proof=bad), "Wrong challenge")
    wrong(world, world.ask(token, proof=good), "no live challenge")
    first = world.touch(token, key, step_up)
    second = world.touch(token, key, step_up)
    wrong(world, world.ask(token, proof=first), "Wrong challenge")
    wrong(world, world.ask(token, proof=second), "no live challenge")


def test_a_session_ends_with_its_fifth_wrong_answer(world: Any) -> None:
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    for _ in range(4):
        bad = world.touch(token, key, step_up, origin="https://evil.example.com")
        wrong(world, world.ask(token, proof=bad), "origin")
    bad = world.touch(token, key, step_up, origin="https://evil.example.com")
    closed(world, lambda: world.ask(token, proof=bad), "origin")
    with pytest.raises(Refusal):
        world.broker.begin_proof(token, step_up.auth_session, "10.0.0.1")


@pytest.mark.parametrize(
    ("bend", "cause"),
    [
        ({"origin": "https://credx.example.com.evil.com"}, "origin"),
        ({"origin": "https://sub.credx.example.com"}, "origin"),
        ({"origin": "http://credx.example.com"}, "origin"),
        ({"origin": "https://credx.example.com/"}, "origin"),
        ({"rp_id": "example.com"}, "RP ID"),
        ({"type": "webauthn.create"}, "type"),
        ({"credential_type": "password"}, "type of the credential"),
        ({"flags": UV}, "User Present"),
        ({"flags": UP}, "user verified flag"),
        ({"flags": UP | UV | BS}, "not eligible"),
        ({"flags": UP | UV | BE}, "eligibility changed"),
        ({"counter": 0}, "counter"),
        ({"counter": 1}, "counter"),
        ({"user_handle": b"somebody else"}, "user handle"),
        ({"client_extra": {"crossOrigin": True}}, "frame"),
        ({"client_extra": {"crossOrigin": "false"}}, "frame"),
        ({"client_extra": {"topOrigin": ORIGIN}}, "frame"),
        ({"credential_id": b"x" * 32}, "not a credential of this person"),
        ({"response": {"signature": "AAAA"}}, "ignature"),
        ({"response": {"authenticatorData": "AAAA"}}, ""),
        ({"response": {"clientDataJSON": "!!"}}, ""),
        ({"response": {}, "client_data": b'{"type":"webauthn.get"}'}, ""),
        ({"client_data": b"[" * 30_000}, ""),
    ],
)
def test_a_bent_assertion_is_refused(world: Any, bend: dict[str, Any], cause: str) -> None:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token), **bend)
    wrong(world, world.ask(token, proof=proof), cause)


@pytest.mark.parametrize("junk", [{}, {"id": 1}, {"rawId": "AA", "response": []}, {"a": {"b": {"c": None}}}])
def test_any_junk_for_an_assertion_is_a_refusal(world: Any, junk: dict[str, Any]) -> None:
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    world.touch(token, key, step_up)
    proof = WebAuthnProof(auth_session=step_up.auth_session, assertion=junk)
    wrong(world, world.ask(token, proof=proof), "")


def test_the_last_of_two_members_does_not_count(world: Any) -> None:
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    options = world.broker.begin_proof(token, step_up.auth_session, "10.0.0.1")
    twins = json.dumps({"type": "webauthn.get", "challenge": options["challenge"], "origin": ORIGIN})
    twins = twins.replace('"type"', '"crossOrigin":true,"crossOrigin":false,"type"', 1)
    proof = WebAuthnProof(
        auth_session=step_up.auth_session, assertion=key.answer(options, client_data=twins.encode())
    )
    wrong(world, world.ask(token, proof=proof), "")


def test_a_credential_of_somebody_else_is_not_looked_at(world: Any) -> None:  # GHSA-f66q-9rf6-8795
    world.add_key()
    mallory, token = world.add_key("mallory"), world.token()
    proof = world.touch(token, mallory, world.step_up(token))
    wrong(world, world.ask(token, proof=proof), "not a credential of this person")
    proof = world.touch(token, mallory, world.step_up(token), user_handle=None)
    wrong(world, world.ask(token, proof=proof), "not a credential of this person")


def test_a_counter_only_goes_up_or_is_not_there(world: Any) -> None:
    key, token = world.add_key(), world.token()
    copy = world.touch(token, key, world.step_up(token), counter=5)
    assert isinstance(world.ask(token, proof=copy), Issued)
    step_up = world.step_up(token)
    answer = world.ask(token, proof=world.touch(token, key, step_up, counter=5))
    assert isinstance(answer, StepUp)
    assert "signature counter 5 after 5" in world.records()[-1]["detail"]
    without = world.add_key("bob", key={"counts": False})
    bob = world.token("bob")
    for _ in range(2):
        proof = world.touch(bob, without, world.step_up(bob))
        assert isinstance(world.ask(bob, proof=proof), Issued)


def test_only_own_accepted_credentials_are_offered(world: Any) -> None:
    key, token = world.add_key(), world.token()
    world.add_key("bob")
    app = world.add_app()
    step_up = world.step_up(token)
    assert [f["kind"] for f in step_up.factors] == ["webauthn"]
    options = world.broker.begin_proof(token, step_up.auth_session, "10.0.0.1")
    assert [c["id"] for c in options["allowCredentials"]] == [
        __import__("base64").urlsafe_b64encode(key.credential_id).rstrip(b"=").decode()
    ]
    assert options["userVerification"] == "required"
    assert len(options["challenge"]) == 43
    closed(world, lambda: world.ask(token, proof=world.code(app, step_up)), "not accepted")


def test_pending_sessions_are_bounded(world: Any) -> None:
    world.add_key()
    token = world.token()
    sessions = []
    for _ in range(25):
        world.clock.pass_(1)
        sessions.append(world.step_up(token).auth_session)
    stored = world.store.query(f"user#{world.user_key()}", "auth#", now=world.clock())
    assert len(stored) == auth_session.MAX_OPEN
    world.broker.begin_proof(token, sessions[-1], "10.0.0.1")
    with pytest.raises(Refusal):
        world.broker.begin_proof(token, sessions[0], "10.0.0.1")


# -- TOTP


def test_a_code_serves_once_and_so_does_its_step(world: Any) -> None:  # CVE-2025-6014
    app, token = world.add_app(), world.token()
    first, second = world.step_up(token, "dev"), world.step_up(token, "dev")
    assert isinstance(world.ask(token, "dev", world.code(app, first)), Issued)
    answer = world.ask(token, "dev", world.code(app, second))
    assert isinstance(answer, StepUp)
    assert "already used" in (answer.retry or "")
    earlier = world.code(app, second, steps=-1)
    assert "already used" in (world.ask(token, "dev", earlier).retry or "")
    assert isinstance(world.ask(token, "dev", world.code(app, second, steps=1)), Issued)


def test_one_step_of_drift_and_no_more(world: Any) -> None:
    app, token = world.add_app(), world.token()
    step_up = world.step_up(token, "dev")
    for steps in (-2, 2, 3):
        wrong(world, world.ask(token, "dev", world.code(app, step_up, steps=steps)), "wrong code")
    assert isinstance(world.ask(token, "dev", world.code(app, step_up, steps=-1)), Issued)


@pytest.mark.parametrize(
    "fold", [lambda c: chr(0xFF10 + int(c)), lambda c: chr(0x1D7CE + int(c)), lambda c: c + " "]
)
def test_digits_that_only_look_like_digits_are_none(world: Any, fold: Any) -> None:  # past faults 1, 3
    app, token = world.add_app(), world.token()
    step_up = world.step_up(token, "dev")
    typed = "".join(fold(c) for c in app.at(int(world.clock())))
    proof = TotpProof(auth_session=step_up.auth_session, otp=Secret(typed))
    wrong(world, world.ask(token, "dev", proof), "wrong code")


def fail(world: Any, token: Secret, times: int) -> None:
    for _ in range(times):
        bad = TotpProof(auth_session=world.step_up(token, "dev").auth_session, otp=Secret("000000"))
        try:
            world.ask(token, "dev", bad)
        except Refusal as refusal:
            assert refusal.code == "insufficient_authorization"  # noqa: PT017


def counter(world: Any) -> dict[str, int]:
    tallies = attempts.load(world.store, world.user_key(), now=world.clock())
    return {name: tally.failures for name, tally in tallies.of.items()}


def test_wrong_codes_lock_for_longer_and_longer_and_a_right_one_forgets_them(world: Any) -> None:
    app, token = world.add_app(), world.token()
    fail(world, token, 5)
    right = world.code(app, world.step_up(token, "dev"))
    with pytest.raises(Refusal) as caught:
        world.ask(token, "dev", right)
    assert "30 seconds" in caught.value.public
    assert counter(world)[attempts.PERSON] == 5  # an attempt while locked is neither looked at nor counted
    world.clock.pass_(31)
    fail(world, token, 1)
    with pytest.raises(Refusal) as caught:
        world.ask(token, "dev", world.code(app, world.step_up(token, "dev")))
    assert "60 seconds" in caught.value.public
    world.clock.pass_(61)
    assert isinstance(world.ask(token, "dev", world.code(app, world.step_up(token, "dev"))), Issued)
    assert counter(world) == {}


def test_never_more_than_a_hundred_wrong_codes(world: Any) -> None:  # NIST SP 800-63B-4 3.2.2
    app = world.add_app()
    for _ in range(150):
        world.clock.pass_(3601)
        fail(world, world.token(), 1)
    assert counter(world)[attempts.PERSON] == 100
    world.clock.pass_(30 * 24 * 3600)
    token = world.token()
    with pytest.raises(Refusal) as caught:
        world.ask(token, "dev", world.code(app, world.step_up(token, "dev")))
    assert "administrator" in caught.value.public
    world.store.apply([attempts.cleared(world.user_key())], now=world.clock())
    assert isinstance(world.ask(token, "dev", world.code(app, world.step_up(token, "dev"))), Issued)


def test_a_burst_of_guesses_gets_no_more_than_five_looked_at(
    world: Any, monkeypatch: Any
) -> None:  # CVE-2026-27801
    world.add_app()
    token, looked_at, lock = world.token(), [], threading.Lock()
    original = totp.matched_step

    def counted(*args: Any, **named: Any) -> Any:
        with lock:
            looked_at.append(1)
        return original(*args, **named)

    monkeypatch.setattr(totp, "matched_step", counted)
    sessions = [world.step_up(token, "dev").auth_session for _ in range(16)]
    start = threading.Barrier(16)

    def guess(session: Secret) -> None:
        start.wait()
        with contextlib.suppress(Refusal):
            world.ask(token, "dev", TotpProof(auth_session=session, otp=Secret("000000")))

    threads = [threading.Thread(target=guess, args=(session,)) for session in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(looked_at) <= attempts.FREE
    assert counter(world)[attempts.PERSON] == attempts.FREE


def test_a_count_is_durable_before_the_code_is_looked_at(
    world: Any, monkeypatch: Any
) -> None:  # CVE-2026-35597
    world.add_app()
    token = world.token()

    def crash(*_: Any, **__: Any) -> Any:
        raise RuntimeError

    monkeypatch.setattr(totp, "matched_step", crash)
    proof = TotpProof(auth_session=world.step_up(token, "dev").auth_session, otp=Secret("000000"))
    with pytest.raises(RuntimeError):
        world.ask(token, "dev", proof)
    assert counter(world)[attempts.PERSON] == 1


def test_nobody_can_lock_somebody_else_out(world: Any) -> None:  # AliasVault 2330
    world.add_app()
    token = world.token()
    session = world.step_up(token, "dev").auth_session
    for bad in (world.token("mallory"), Secret(token.reveal()[:-4] + "AAAA"), world.token(iat=1)):
        for _ in range(3):
            with pytest.raises(Refusal):
                world.ask(bad, "dev", TotpProof(auth_session=session, otp=Secret("000000")))
    assert counter(world) == {}


def test_a_second_app_gives_no_second_set_of_guesses(world: Any) -> None:
    one, two, token = world.add_app(name="one"), world.add_app(name="two"), world.token()
    fail(world, token, 5)
    world.clock.pass_(31)
    for app in (one, two):
        assert isinstance(world.ask(token, "dev", world.code(app, world.step_up(token, "dev"))), Issued)


def test_a_replay_is_not_counted_as_a_guess(world: Any) -> None:
    app, token = world.add_app(), world.token()
    code = app.at(int(world.clock()))
    sessions = [world.step_up(token, "dev").auth_session for _ in range(10)]
    answers = [
        world.ask(token, "dev", TotpProof(auth_session=session, otp=Secret(code))) for session in sessions
    ]
    assert [isinstance(answer, Issued) for answer in answers] == [True] + [False] * 9
    assert counter(world) == {}


@given(st.text(max_size=8))
def test_no_text_but_six_ascii_digits_is_ever_a_code(text: str) -> None:
    secret = Secret(pyotp.random_base32())
    if totp.matched_step(secret, Secret(text), now=1_800_000_000) is not None:
        assert text.isascii()
        assert text.isdecimal()
        assert len(text) == 6


def test_the_store_holds_nothing_that_could_be_presented(world: Any) -> None:
    app, key, token = world.add_app(), world.add_key(), world.token()
    step_up = world.step_up(token, "dev")
    issued = world.ask(token, "dev", world.touch(token, key, step_up))
    assert isinstance(world.store, MemoryStore)
    stored = repr([(k, row.value) for k, row in world.store._rows.items()])
    for secret in (token, step_up.auth_session, issued.factor_session, Secret(app.secret), issued.token):
        assert secret.reveal() not in stored
    assert hashlib.sha256(issued.factor_session.reveal().encode()).hexdigest() in stored
