"""One broker per test behind its real front door: HTTP on loopback, SQLite, a clock in hand."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from support.broker_world import SecurityKey
from support.front import Front, Lines

from credx.broker.stores.sqlite import SqliteStore
from credx.sandbox.broker_server import BrokerServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    path = tmp_path / "data" / "broker.db"
    path.parent.mkdir(mode=0o700)
    front = Front(SqliteStore(path), path)
    security, lines = logging.getLogger("credx.security"), Lines(front.lines)
    security.addHandler(lines)
    server = BrokerServer(lambda _: front.world.broker)
    front.port = int(server.url.rpartition(":")[2])
    yield front
    server.stop()
    security.removeHandler(lines)


@pytest.fixture
def new_key() -> type[SecurityKey]:
    return SecurityKey
