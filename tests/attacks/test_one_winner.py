"""One proof, presented everywhere at once: one winner, one ``granted``, and everybody else is told no.

From 64 threads of one broker, and from 8 processes, each with a broker of its own, on one store.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from support import broker_world
from support.broker_world import World
from support.dynamo import Dynamo, be_patient, set_credentials

from credx.broker.stores import Put
from credx.broker.stores.dynamodb import DynamoStore, Table
from credx.broker.stores.sqlite import SqliteStore
from credx.errors import Refusal
from credx.model import Secret
from credx.protocol import Issued, StepUp, TotpProof, WebAuthnProof

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from credx.broker.stores import Store, Write

THREADS, PROCESSES = 64, 8
HELD = 0.5  # seconds
PATIENCE = 60.0  # seconds; two cores and a DynamoDB in Python serve all of them

# What tells a loser why: used already, by a request of his own (a security key's counter shows that as well); or so
# many at once that codes are slowed down.
CLEAR = (
    "over or for something else",
    "already used",
    "counter went back",
    "too many",
    "the challenge has ended",
)


@pytest.fixture(scope="module")
def dynamo() -> Iterator[Dynamo]:
    with Dynamo() as server:
        yield server


@pytest.fixture(params=["sqlite", "dynamodb"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch
) -> str | Table:
    set_credentials(monkeypatch)
    if request.param == "sqlite":
        return str(tmp_path / "broker.db")
    with closing(dynamo.new()) as made:
        return dynamo.table(made._calls.table)


def opened(place: str | Table) -> Store:
    return SqliteStore(place, busy_timeout=PATIENCE) if isinstance(place, str) else DynamoStore(place)


def proof_of(world: World, kind: str) -> tuple[Secret, WebAuthnProof | TotpProof]:
    who = f"{kind}-owner"
    device: Any = world.add_key(who) if kind == "webauthn" else world.add_app(who)
    token = world.token(who)
    step_up = world.step_up(token, "dev")
    return token, (world.touch(token, device, step_up) if kind == "webauthn" else world.code(device, step_up))


def presented(world: World, token: Secret, proof: WebAuthnProof | TotpProof) -> str:
    """What came of it, in words."""
    try:
        answer = world.ask(token, "dev", proof)
    except Refusal as refusal:
        return f"{refusal.code}: {refusal.public}"
    match answer:
        case Issued():
            return "issued"
        case StepUp():
            return f"again: {answer.retry}"


def one_winner(world: World, told: list[str], kind: str, rivals: int) -> None:
    assert len(told) == rivals
    outcomes = Counter(told)
    assert outcomes.pop("issued", 0) == 1, outcomes
    assert all(any(word in said for word in CLEAR) for said in outcomes), outcomes
    mine = [record for record in world.records() if record.get("subject") == f"{kind}-owner"]
    events = Counter(record["event"] for record in mine)
    assert (events["granted"], events["issued"], events["failed"]) == (1, 1, 0)
    assert events["refused"] == rivals - 1
    assert world.audit.verify(world.clock()) is None


def hold_the_first_commit(store: Any) -> None:
    """Until the others have read what it is about to change: threads of one process hardly meet by themselves."""
    apply, once = store.apply, iter([HELD])

    def late(writes: Sequence[Write], *, now: float) -> None:
        if any(isinstance(write, Put) and write.value.get("event") == "granted" for write in writes):
            time.sleep(next(once, 0))
        apply(writes, now=now)

    store.apply = late


@pytest.mark.parametrize("kind", ["webauthn", "totp"])
def test_of_64_threads(place: str | Table, kind: str) -> None:
    with closing(opened(place)) as store:
        world = World(store)
        token, proof = proof_of(world, kind)
        hold_the_first_commit(store)
        start, told = threading.Barrier(THREADS), []

        def rival() -> None:
            start.wait()
            told.append(presented(world, token, proof))

        threads = [threading.Thread(target=rival) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        one_winner(world, told, kind, THREADS)


class Start(NamedTuple):
    """What a broker in another process gets; nothing that holds a secret can be pickled, so keys come as text."""

    place: str | Table
    idp_key: bytes
    mint_key: bytes
    at: float
    presents: list[dict[str, Any]]
    ready: Any
    results: Any


def rival_process(given: Start) -> None:
    be_patient()
    broker_world.IDP_KEY = load_pem_private_key(given.idp_key, None)
    broker_world.MINT_KEY = load_pem_private_key(given.mint_key, None)
    with closing(opened(given.place)) as store:
        world = World(store)
        world.clock.time = given.at
        for what in given.presents:
            session = Secret(what["session"])
            proof = (
                TotpProof(auth_session=session, otp=Secret(what["otp"]))
                if "otp" in what
                else WebAuthnProof(auth_session=session, assertion=json.loads(what["assertion"]))
            )
            given.ready.wait(PATIENCE)
            given.results.put((what["kind"], presented(world, Secret(what["token"]), proof)))


def pem(key: RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def as_text(kind: str, token: Secret, proof: WebAuthnProof | TotpProof) -> dict[str, Any]:
    answer = (
        {"otp": proof.otp.reveal()}
        if isinstance(proof, TotpProof)
        else {"assertion": json.dumps(proof.assertion)}
    )
    return {"kind": kind, "token": token.reveal(), "session": proof.auth_session.reveal(), **answer}


def test_of_8_processes(place: str | Table) -> None:
    with closing(opened(place)) as store:
        world = World(store)
        presents = [as_text(kind, *proof_of(world, kind)) for kind in ("totp", "webauthn")]
        spawn = multiprocessing.get_context("spawn")
        start = Start(
            place,
            pem(broker_world.IDP_KEY),
            pem(broker_world.MINT_KEY),
            world.clock(),
            presents,
            spawn.Barrier(PROCESSES),
            spawn.Queue(),
        )
        rivals = [spawn.Process(target=rival_process, args=(start,)) for _ in range(PROCESSES)]
        for rival in rivals:
            rival.start()
        told = [start.results.get(timeout=PATIENCE) for _ in range(PROCESSES * len(presents))]
        for rival in rivals:
            rival.join(PATIENCE)
            assert rival.exitcode == 0
        for kind in ("totp", "webauthn"):
            one_winner(world, [said for of, said in told if of == kind], kind, PROCESSES)
