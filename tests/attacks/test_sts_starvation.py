"""Requests that wait for a slow STS leave room for the key set that STS asks for meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.broker_world import POLICY, ROLES, World, parse_policy

from credx.broker.attempts import FREE
from credx.broker.exchange import STS_CALLS, STS_CALLS_PERSON
from credx.broker.front.wsgi import THREADS
from credx.errors import Refusal
from credx.protocol import Issued

WAIT = 20  # seconds, bound of the test


def test_sts_calls_never_take_every_thread() -> None:
    assert THREADS // 2 >= STS_CALLS


class House:
    """A broker whose calls to STS hang until ``go``, and people who have touched their keys."""

    def __init__(self, *people: str) -> None:
        self.world = World()
        self.waiting, self.go = threading.Semaphore(0), threading.Event()
        self.answers: list[Any] = []
        self.threads: list[threading.Thread] = []
        self.tokens = {who: self.world.token(who) for who in people}
        self.keys = {who: self.world.add_key(who) for who in people}
        sts = self.world.sts

        def hangs(**asked: Any) -> Any:
            self.waiting.release()
            assert self.go.wait(WAIT)
            return sts(**asked)

        self.world.broker._sts = hangs

    def proof(self, who: str) -> Any:
        token = self.tokens[who]
        return self.world.touch(token, self.keys[who], self.world.step_up(token, "brokered"))

    def ask(self, who: str, proof: Any) -> Any:
        return self.world.ask(self.tokens[who], "brokered", proof)

    def hang(self, who: str) -> None:
        """One more call that does not come back."""
        proof = self.proof(who)
        thread = threading.Thread(daemon=True, target=lambda: self.answers.append(self.ask(who, proof)))
        thread.start()
        self.threads.append(thread)
        assert self.waiting.acquire(timeout=WAIT)

    def let_go(self) -> None:
        self.go.set()
        for thread in self.threads:
            thread.join(WAIT)
        assert all(isinstance(answer, Issued) for answer in self.answers)


def test_one_call_too_many_is_turned_away_and_its_proof_stays_good() -> None:
    people = [f"p{n}" for n in range(STS_CALLS)]
    house = House(*people, "late")
    proof = house.proof("late")
    for who in people:
        house.hang(who)
    with pytest.raises(Refusal) as refused:
        house.ask("late", proof)
    assert refused.value.code == "temporarily_unavailable"
    assert len(house.world.records("granted")) == STS_CALLS
    assert len(house.world.records("refused")) == 1
    house.let_go()
    assert isinstance(house.ask("late", proof), Issued)
    for _ in range(STS_CALLS + 1):  # every call gave its room back
        assert isinstance(house.ask("late", house.proof("late")), Issued)


def test_one_person_never_takes_every_call() -> None:
    house = House("mallory", "bob")
    more = house.proof("mallory")
    for _ in range(STS_CALLS_PERSON):
        house.hang("mallory")
    with pytest.raises(Refusal) as refused:
        house.ask("mallory", more)
    assert refused.value.code == "temporarily_unavailable"
    house.hang("bob")
    house.let_go()


def test_a_busy_broker_counts_no_code() -> None:
    people = [f"p{n}" for n in range(STS_CALLS)]
    house = House(*people)
    world = house.world
    world.policy = parse_policy(
        POLICY
        + ROLES.replace(
            'role/brokered"\nregion = "eu-central-1"\ngroups = ["sre"]\nfactors = ["webauthn"]',
            'role/brokered"\nregion = "eu-central-1"\ngroups = ["sre"]\nfactors = ["webauthn", "totp"]',
        )
    )
    app = world.add_app("late")
    token = world.token("late")
    code = world.code(app, world.step_up(token, "brokered"))
    for who in people:
        house.hang(who)
    for _ in range(FREE + 1):
        with pytest.raises(Refusal) as refused:
            world.ask(token, "brokered", code)
        assert refused.value.code == "temporarily_unavailable"
    house.let_go()
    assert isinstance(world.ask(token, "brokered", code), Issued)
