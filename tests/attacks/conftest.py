"""One broker per test behind its real front door: HTTP on loopback, SQLite, a clock in hand."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import SecurityKey
from support.front import Front, Lines

from credx.broker.stores.sqlite import SqliteStore
from credx.sandbox.broker_server import BrokerServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Behind:
    """The broker of the test that runs: to start and end a server for each takes longer than the test."""

    broker: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)


@pytest.fixture(scope="session")
def door() -> Iterator[tuple[Behind, int]]:
    behind: Any = Behind()
    server = BrokerServer(lambda _: behind)
    yield behind, int(server.url.rpartition(":")[2])
    server.stop()


@pytest.fixture
def front(tmp_path: Path, door: tuple[Behind, int]) -> Iterator[Front]:
    path = tmp_path / "data" / "broker.db"
    path.parent.mkdir(mode=0o700)
    store = SqliteStore(path)
    store._db.execute("PRAGMA synchronous = OFF")  # nobody cuts the power here
    front = Front(store, path)
    behind, front.port = door
    behind.broker = front.world.broker
    security, lines = logging.getLogger("credx.security"), Lines(front.lines)
    security.addHandler(lines)
    yield front
    security.removeHandler(lines)
    store.close()


@pytest.fixture
def new_key() -> type[SecurityKey]:
    return SecurityKey
