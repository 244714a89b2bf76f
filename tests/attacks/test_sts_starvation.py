"""Requests that wait for a slow STS leave room for the key set that STS asks for meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.broker_world import World

from credx.broker.exchange import STS_CALLS
from credx.broker.front.wsgi import THREADS
from credx.errors import Refusal
from credx.protocol import Issued

WAIT = 20  # seconds, bound of the test


def test_sts_calls_never_take_every_thread() -> None:
    assert THREADS // 2 >= STS_CALLS


def test_one_call_too_many_is_turned_away_and_its_proof_stays_good() -> None:
    world = World()
    key, token = world.add_key(), world.token()
    slow, waiting, go = world.sts, threading.Semaphore(0), threading.Event()

    def hangs(**asked: Any) -> Any:
        waiting.release()
        assert go.wait(WAIT)
        return slow(**asked)

    world.broker._sts = hangs
    proofs = [world.touch(token, key, world.step_up(token, "brokered")) for _ in range(STS_CALLS + 1)]
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda proof=proof: answers.append(world.ask(token, "brokered", proof)))
        for proof in proofs[:STS_CALLS]
    ]
    for thread in threads:
        thread.start()
        assert waiting.acquire(timeout=WAIT)
    with pytest.raises(Refusal) as refused:
        world.ask(token, "brokered", proofs[-1])
    assert refused.value.code == "temporarily_unavailable"
    assert len(world.records("granted")) == STS_CALLS
    assert len(world.records("refused")) == 1
    go.set()
    for thread in threads:
        thread.join(WAIT)
    assert all(isinstance(answer, Issued) for answer in answers)
    assert isinstance(world.ask(token, "brokered", proofs[-1]), Issued)
    for _ in range(STS_CALLS + 1):  # every call gave its room back
        proof = world.touch(token, key, world.step_up(token, "brokered"))
        assert isinstance(world.ask(token, "brokered", proof), Issued)
