"""A broker out of a file and a directory: what is made, for whom, and that it answers."""

from __future__ import annotations

import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest

from credx.broker.api import Api, Request
from credx.broker.assemble import open_broker
from credx.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

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
