"""Auth sessions and challenges: once, in time, and for nothing but what was asked."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import POLICY, ROLES, TARGET

from credx.broker.auth_session import CHALLENGE_LIFE, LIFE
from credx.broker.policy.file import parse_policy
from credx.model import Secret
from credx.protocol import WebAuthnProof

if TYPE_CHECKING:
    from support.front import Front

OTHER = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0123456789abcdef1"
RICH = (POLICY + ROLES).replace(
    'operations = ["shell"]\ntargets = ["arn:aws:ec2:eu-central-1:111122223333:instance/*"]',
    'operations = ["shell", "run"]\ntargets = ["arn:aws:ec2:eu-central-1:111122223333:instance/*"]\n'
    '[roles.shell.scopes.read]\ndescription = "read"\ntags = { logs = "read" }\n'
    '[roles.shell.scopes.write]\ndescription = "write"\ntags = { disk = "write" }',
)
ASKED: dict[str, Any] = {
    "role": "shell", "resources": (TARGET,), "operation": "shell", "scopes": ("read",), "reason": "disk full",
    "duration": 900,
}  # fmt: skip
CHANGED: dict[str, dict[str, Any]] = {
    "another role": {"role": "prod", "resources": (), "operation": "creds", "scopes": ()},
    "another target": {"resources": (OTHER,)},
    "a target more": {"resources": (TARGET, OTHER)},
    "a scope more": {"scopes": ("read", "write")},
    "another scope": {"scopes": ("write",)},
    "a longer time": {"duration": 3600},
    "the default time": {"duration": None},
    "another reason": {"reason": "curiosity"},
    "no reason": {"reason": ""},
    "another operation": {"operation": "run"},
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_proof_for_one_thing_used_for(front: Front, change: str) -> None:
    world = front.world
    world.policy = parse_policy(RICH)
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token, **ASKED))
    front.refused(
        lambda: front.ask(token, proof=proof, **(ASKED | CHANGED[change])), cause="bound to another request"
    )
    front.issued(lambda: front.ask(token, proof=proof, **ASKED))  # and the attempt did not use it up


def test_a_proof_used_by_another_person(front: Front) -> None:
    world = front.world
    key, token, mallory = world.add_key(), world.token(), world.token("mallory")
    own = world.add_key("mallory")
    step_up = world.step_up(token)
    options = world.broker.begin_proof(token, step_up.auth_session, "10.0.0.1")
    for device in (key, own):
        proof = WebAuthnProof(auth_session=step_up.auth_session, assertion=device.answer(options))
        front.refused(lambda proof=proof: front.ask(mallory, proof=proof), cause="not known")
    front.refused(lambda: front.challenge(mallory, step_up.auth_session.reveal()), cause="not known")


def test_a_proof_used_with_a_renewed_id_token(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    world.clock.pass_(1)
    renewed = world.token()
    front.refused(lambda: front.ask(renewed, proof=proof), cause="bound to another request")
    front.refused(lambda: front.challenge(renewed, proof.auth_session.reveal()), cause="of another ID token")


def test_a_proof_used_twice(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    front.issued(lambda: front.ask(token, proof=proof))
    front.refused(lambda: front.ask(token, proof=proof), cause="ended or used")
    front.refused(lambda: front.challenge(token, proof.auth_session.reveal()), cause="ended")
    fresh = world.touch(token, key, world.step_up(token))  # and in a session with a challenge of its own
    again = WebAuthnProof(auth_session=fresh.auth_session, assertion=proof.assertion)
    front.refused(lambda: front.ask(token, proof=again), cause="Wrong challenge")


def test_an_answer_after_its_challenge_has_ended(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    proof = world.touch(token, key, step_up)
    world.clock.pass_(CHALLENGE_LIFE + 1)
    front.refused(lambda: front.ask(token, proof=proof), cause="no live challenge")
    assert CHALLENGE_LIFE == 120
    proof = world.touch(token, key, step_up)
    world.clock.pass_(CHALLENGE_LIFE)
    front.issued(lambda: front.ask(token, proof=proof))


def test_an_answer_after_its_session_has_ended(front: Front) -> None:
    world = front.world
    key, app, token = world.add_key(), world.add_app(), world.token()
    touched, typed = world.step_up(token), world.step_up(token, "dev")
    world.clock.pass_(LIFE - 10)
    proof = world.touch(token, key, touched)
    world.clock.pass_(10)
    front.refused(lambda: front.ask(token, proof=proof), cause="not known")
    front.refused(lambda: front.challenge(token, touched.auth_session.reveal()), cause="not known")
    front.refused(lambda: front.ask(token, "dev", world.code(app, typed)), cause="not known")
    assert LIFE == 300


def test_a_challenge_of_another_session(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    one, two = (world.touch(token, key, world.step_up(token)) for _ in range(2))
    crossed = WebAuthnProof(auth_session=two.auth_session, assertion=one.assertion)
    assert front.refused(lambda: front.ask(token, proof=crossed), cause="Wrong challenge").body["retry"]
    front.refused(
        lambda: front.ask(token, proof=two), cause="no live challenge"
    )  # burnt with the wrong answer
    front.issued(lambda: front.ask(token, proof=one))


def test_an_earlier_challenge_of_the_same_session(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    first = world.touch(token, key, step_up)
    world.touch(token, key, step_up)
    front.refused(lambda: front.ask(token, proof=first), cause="Wrong challenge")


def test_a_proof_without_a_challenge(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    for challenge in ("", "AAAA"):
        session = world.step_up(token).auth_session
        answer = key.answer({"challenge": challenge or "AA", "rpId": "credx.example.com"})
        proof = WebAuthnProof(auth_session=session, assertion=answer)
        front.refused(lambda proof=proof: front.ask(token, proof=proof), cause="no live challenge")


def test_a_sixth_answer_in_one_session(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    for _ in range(5):
        bad = world.touch(token, key, step_up, origin="https://evil.example.com")
        front.refused(lambda bad=bad: front.ask(token, proof=bad), cause="origin")
    front.refused(lambda: front.challenge(token, step_up.auth_session.reveal()), cause="ended")


@pytest.mark.parametrize("handle", ["x" * 43, "x" * 16, "../../profile-aaaa"])
def test_a_session_that_never_was(front: Front, handle: str) -> None:
    key, token = front.world.add_key(), front.world.token()
    answer = key.answer({"challenge": "AAAA", "rpId": "credx.example.com"})
    proof = WebAuthnProof(auth_session=Secret(handle), assertion=answer)
    known = "/" not in handle
    front.refused(lambda: front.ask(token, proof=proof), verified=known)
    front.refused(
        lambda: front.challenge(token, handle),
        "insufficient_authorization" if known else "invalid_request",
        verified=known,
    )


@pytest.mark.parametrize("kind", ["webauthn", "totp"])
def test_all_but_one_of_many_redemptions_at_once(front: Front, kind: str) -> None:
    world, many = front.world, 16
    key, app, token = world.add_key(), world.add_app(), world.token()
    step_up = world.step_up(token, "dev")
    proof = world.code(app, step_up) if kind == "totp" else world.touch(token, key, step_up)
    answers, start = [], threading.Barrier(many)

    def one() -> None:
        start.wait()
        answers.append(front.ask(token, "dev", proof))

    threads = [threading.Thread(target=one) for _ in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status == 200 for answer in answers) == [False] * (many - 1) + [True]
    assert len(world.records("granted")) == len(world.records("issued")) == 1
    assert len(world.records("refused")) == many - 1
    for answer in answers:
        if answer.status != 200:
            front.nothing_in(answer)
    assert world.audit.verify(world.clock()) is None


def test_one_code_redeemed_in_many_sessions_at_once(front: Front) -> None:
    world, many = front.world, 12
    app, token = world.add_app(), world.token()
    proofs = [world.code(app, world.step_up(token, "dev")) for _ in range(many)]
    statuses, start = [], threading.Barrier(many)

    def one(number: int) -> None:
        start.wait()
        statuses.append(front.ask(token, "dev", proofs[number]).status)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.count(200) == 1
    assert len(world.records("granted")) == len(world.records("issued")) == 1
    assert len(world.records("refused")) == many - 1
