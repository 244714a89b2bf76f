"""Ready or not, in one word each; whoever asks often costs the store nothing."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from support.broker_world import POLICY, ROLES

from credx.broker.front import readiness
from credx.broker.front.readiness import Readiness
from credx.broker.policy.source import PolicySource
from credx.broker.stores import StoreUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class Clock:
    time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_broker_that_can_work(world: Any) -> None:
    response, body = world.http("GET", "/readyz")
    assert (response.status, body) == (
        200,
        {"status": "ready", "checks": {"store": "ok", "policy": "ok", "signing_key": "ok"}},
    )
    assert response.headers["cache-control"] == "no-store"


def test_a_store_that_fails_says_no_more_than_that(world: Any) -> None:
    def gone(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("/var/lib/credx/broker.db is locked")

    world.store.get = gone
    response, body = world.http("GET", "/readyz")
    assert response.status == 503
    assert body["checks"] == {"store": "failed", "policy": "ok", "signing_key": "ok"}
    assert b"/var" not in response.body
    assert world.http("GET", "/healthz")[0].status == 200  # alive all the same


def test_a_policy_that_cannot_be_had(world: Any) -> None:
    world.broker.policy = lambda: 1 / 0
    assert world.http("GET", "/readyz")[1]["checks"]["policy"] == "failed"


def test_it_is_looked_at_once_a_second(world: Any) -> None:
    asked = []
    get = world.store.get

    def counted(*args: Any, **how: Any) -> Any:
        asked.append(args)
        return get(*args, **how)

    world.store.get = counted
    clock = Clock()
    ready = Readiness(world.broker, clock)
    for _ in range(100):
        assert ready()["store"] == "ok"
    assert len(asked) == 1
    clock.time += 1
    world.store.get = lambda *_, **__: 1 / 0
    assert ready()["store"] == "failed"


def test_nobody_waits_for_a_store_that_does_not_come_back(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "PATIENCE", 0.05)
    hanging, calls = threading.Event(), []

    def hangs(*_: Any, **__: Any) -> None:
        calls.append(1)
        hanging.wait(10)

    world.store.get = hangs
    clock = Clock()
    ready = Readiness(world.broker, clock)
    assert ready()["store"] == "failed"
    for _ in range(20):
        clock.time += 5
        started = time.monotonic()
        assert ready()["store"] == "failed"
        assert time.monotonic() - started < 1
    assert len(calls) == 1  # one thread waits, not twenty
    hanging.set()
    until = time.monotonic() + 5
    while ready()["store"] != "ok" and time.monotonic() < until:
        clock.time += 5
        time.sleep(0.01)
    assert ready()["store"] == "ok"


def test_a_policy_file_that_broke_is_told_and_the_broker_stays_ready(world: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY + ROLES, encoding="utf-8")
    world.broker.policy = PolicySource(path)
    clock = Clock()
    ready = Readiness(world.broker, clock)
    assert ready()["policy"] == "ok"
    path.write_text("garbage", encoding="utf-8")
    world.broker.policy.look_now()
    clock.time += 1
    assert ready()["policy"] == "stale"
    response, body = world.http("GET", "/readyz")
    assert (response.status, body["checks"]["policy"]) == (200, "stale")  # the earlier one holds
    assert b"garbage" not in response.body
