"""Administrators' acts over every store: found, shut out in the middle of a proof, reset, listed in pages."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import ISSUER, World
from support.dynamo import Dynamo, set_credentials
from support.memory_store import MemoryStore

from credx.broker.administration import reset_factors, set_disabled, unlock
from credx.broker.audit import Audit, new_writer_id
from credx.broker.directory import everybody, find
from credx.broker.invitation import open_invitations
from credx.broker.stores.sqlite import SqliteStore
from credx.errors import Refusal
from credx.protocol import Issued

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from credx.broker.stores import Store


@pytest.fixture(scope="module")
def dynamo() -> Iterator[Dynamo]:
    with Dynamo() as running:
        yield running


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
def world(
    request: pytest.FixtureRequest, tmp_path: Path, dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    set_credentials(monkeypatch)
    tmp_path.chmod(0o700)
    makers: dict[str, Callable[[], Store]] = {
        "memory": MemoryStore,
        "sqlite": lambda: SqliteStore(tmp_path / "broker.db"),
        "dynamodb": dynamo.new,
    }
    store = makers[request.param]()
    yield World(store)
    store.close()


def act(world: World, what: Callable[..., Any], **more: Any) -> Any:
    """As another process does it: with an audit chain of its own."""
    now = world.clock()
    who = find(world.store, f"{ISSUER}|alice", now=now)
    audit = Audit(world.store, new_writer_id(now, os.urandom), signer=world.broker.signer)
    return what(world.store, audit, who, administrator="root@host", now=now, **more)


def test_from_invitation_to_the_end(world: World) -> None:
    key, token = world.add_key(), world.token()
    world.invite()
    assert len(list(open_invitations(world.store, now=world.clock()))) == 1
    (one,) = everybody(world.store, now=world.clock())
    assert find(world.store, one.user, now=world.clock()) == one
    proof = world.touch(token, key, world.step_up(token))

    act(world, set_disabled, disabled=True)
    with pytest.raises(Refusal, match="access_denied"):
        world.ask(token, proof=proof)
    assert list(open_invitations(world.store, now=world.clock())) == []
    act(world, set_disabled, disabled=False)
    act(world, unlock)
    assert isinstance(world.ask(token, proof=world.touch(token, key, world.step_up(token))), Issued)

    assert act(world, reset_factors) == ["key"]
    with pytest.raises(Refusal, match="insufficient_authorization"):
        world.ask(token)
    (one,) = everybody(world.store, now=world.clock())
    assert (one.enrolled, one.disabled) == (True, False)


def test_a_proof_in_flight_meets_the_act(world: World) -> None:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token, "brokered"))
    commit = world.audit.commit

    def first(writes: Any, record: Any, *, now: float) -> None:
        if record["event"] == "granted":
            world.audit.commit = commit  # type: ignore[method-assign]
            act(world, set_disabled, disabled=True)
        commit(writes, record, now=now)

    world.audit.commit = first  # type: ignore[method-assign]
    with pytest.raises(Refusal, match="access_denied"):
        world.ask(token, "brokered", proof)
    assert world.sts.asked == []
    assert world.records("granted") == []
