"""``--table``: the store in DynamoDB, for ``serve`` and for every command of the broker's administrators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import pytest
from support.dynamo import KEYS, REGION, Dynamo, set_credentials

from credx.broker import assemble
from credx.broker.stores.dynamodb import DynamoStore
from credx.cli.edges import Edges
from credx.cli.main import build
from credx.protocol import HANDLE
from credx.sandbox.scenario import policy_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Bench

ISSUER = "https://idp.example.com"


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        elif command is not None:
            yield (*path, name), command


def test_whoever_takes_a_directory_takes_a_table() -> None:
    root: Any = build(Edges())
    broker = root.get_command(click.Context(root), "broker")
    taking = {
        path: {option for param in command.params for option in param.opts}
        for path, command in commands(broker)
    }
    assert {("serve",), ("invite",)} <= {path for path, options in taking.items() if "--data" in options}
    for path, options in taking.items():
        assert ("--data" in options) == ("--table" in options) == ("--region" in options), path


@pytest.fixture
def where(tmp_path: Path) -> list[str]:
    policy = tmp_path / "policy.toml"
    text = policy_text(broker="https://credx.example.com", issuer=ISSUER, client_id="credx-cli")
    policy.write_text(text.replace('rp_id = "localhost"\n', ""), encoding="utf-8")
    return ["--policy", str(policy), "--data", str(tmp_path / "data")]


def test_an_invitation_goes_into_the_table(
    bare: Bench, where: list[str], data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data in where
    set_credentials(monkeypatch)
    with Dynamo() as dynamo:
        made = dynamo.new()
        name = made._calls.table
        monkeypatch.setattr(
            assemble, "DynamoStore", lambda table, *, ca_file=None: DynamoStore(dynamo.table(table.name))
        )
        result = bare.run("broker", "invite", *where, "--table", name, "--region", REGION, ISSUER, "s-1")
        assert result.code == 0, result.err
        assert HANDLE.fullmatch(result.out.strip())
        assert "TransactWriteItems" in dynamo.gate.asked
        dynamo.gate.trouble = lambda *_: (400, "AccessDeniedException")
        result = bare.run("broker", "invite", *where, "--table", name, "--region", REGION, ISSUER, "s-1")
        assert (result.code, result.out) == (7, "")
        assert "AccessDenied" in result.err
        made.close()


def test_a_table_without_a_region(bare: Bench, where: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    for command in (["serve"], ["invite", ISSUER, "s-1"]):
        result = bare.run("broker", command[0], *where, "--table", "credx", *command[1:])
        assert (result.code, result.out) == (2, ""), result.err
        assert "--region" in result.err


def test_a_table_without_credentials(bare: Bench, where: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name.upper(), raising=False)
    result = bare.run("broker", "serve", *where, "--table", "credx", "--region", "eu-central-1")
    assert (result.code, result.out) == (3, ""), result.err
    assert "no AWS credentials" in result.err
