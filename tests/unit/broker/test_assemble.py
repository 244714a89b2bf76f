"""A broker out of a file and a directory: what is made, for whom, and that it answers."""

from __future__ import annotations

import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support import broker_world
from support.broker_world import Clock, Keys, World
from support.dynamo import Dynamo, set_credentials

from credx.broker.assemble import open_broker, open_office
from credx.broker.front.answers import Request
from credx.broker.front.api import Api
from credx.broker.stores.dynamodb import DynamoStore
from credx.errors import ConfigError
from credx.protocol import Issued

if TYPE_CHECKING:
    from pathlib import Path

    from credx.broker.service import Broker
    from credx.broker.stores.dynamodb import Table

POLICY = """
version = 1
[broker]
issuer = "https://credx.example.com"
name = "Example Corp"
[[identity_providers]]
issuer = "https://idp.example.com"
client_id = "credx-cli"
groups_claim = "groups"
scopes = ["openid"]
[groups.sre]
claims = ["sre"]
[roles.prod]
description = "production"
arn = "arn:aws:iam::111122223333:role/prod"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
roles_claim = true
"""


def keys_of(broker: Any) -> bytes:
    request = Request(method="GET", path="/.well-known/jwks.json", headers={}, body=b"", client="")
    return Api(broker).handle(request).body


def test_keys_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    policy, data = tmp_path / "policy.toml", tmp_path / "data"
    policy.write_text(POLICY)
    first = open_broker(policy, data)
    served = keys_of(first)
    first.store.close()
    second = open_broker(policy, data)
    assert keys_of(second) == served
    second.store.close()
    if sys.platform != "win32":
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in data.iterdir()} == {0o600}


def test_a_policy_that_is_wrong_opens_nothing(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY.replace("sre", "nobody", 1))
    with pytest.raises(ConfigError):
        open_broker(policy, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def world_of(broker: Broker, clock: Clock) -> World:
    """The people of the tests around a broker that was opened as for serving; their keys come without a network."""
    world = World(broker.store)
    world.clock, world.broker, world.audit = clock, broker, broker.audit
    broker.admission._keys = Keys()
    return world


def test_a_whole_issuance_over_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two brokers, one after the other, and an administrator: all of them on one table, with the same keys."""
    set_credentials(monkeypatch)
    policy, data, clock = tmp_path / "policy.toml", tmp_path / "data", Clock()
    policy.write_text(broker_world.POLICY + broker_world.ROLES)
    with Dynamo() as dynamo:
        made = dynamo.new()
        table: Table = dynamo.table(made._calls.table)
        made.close()
        with pytest.raises(ConfigError, match="no signing key"):
            open_office(data, table=table, now=clock)
        broker = open_broker(policy, data, table=table, now=clock)
        assert isinstance(broker.store, DynamoStore)
        world = world_of(broker, clock)
        key, token = world.add_key(), world.token()
        asked = world.step_up(token)
        broker.store.close()
        broker = open_broker(policy, data, table=table, now=clock)
        world = world_of(broker, clock)
        assert isinstance(world.ask(token, proof=world.touch(token, key, asked)), Issued)
        broker.store.close()
        office = open_office(data, table=table, now=clock)
        events = [record["event"] for record in office.audit.read(clock() + 1)]
        assert {"invited", "enrolled", "granted", "issued"} <= set(events)
        assert office.audit.verify(clock() + 1) is None
        office.store.close()
    assert not (data / "broker.db").exists()
