"""``credx broker audit``: show, verify, export, verify-export."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from credx.broker.assemble import open_office
from credx.broker.audit.chain import head_key, record_key
from credx.broker.issuance import new_issuance
from credx.broker.signer import LocalSigner
from credx.broker.stores import Delete, Put
from credx.broker.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Bench, Outcome

NOW = 1_800_000_000  # the bench's clock; 2027-01-15 08:00:00 UTC
DAY = 86400
ISSUER = "https://idp.example.com"


def issuance(n: int) -> str:
    return new_issuance(NOW - n, lambda length: n.to_bytes(length, "big"))


class Broker:
    """A data directory in which a broker has been at work: a chain per start."""

    def __init__(self, directory: Path, run: Callable[..., Outcome]) -> None:
        self.directory = directory
        self._run = run
        self.writers: list[str] = []

    def audit(self, command: str, *args: str) -> Outcome:
        return self._run("broker", "audit", command, "--data", str(self.directory), *args)

    def rows(self, *args: str) -> list[dict[str, Any]]:
        result = self.audit("show", "--json", *args)
        assert result.code == 0, result.err
        rows: list[dict[str, Any]] = json.loads(result.out)
        return rows

    def write(self, at: int, *records: dict[str, Any]) -> None:
        office = open_office(self.directory, now=lambda: at)
        for record in records:
            office.audit.append(record, now=at)
        self.writers.append(office.audit._writer)
        office.store.close()

    @property
    def store(self) -> SqliteStore:
        return SqliteStore(self.directory / "broker.db")

    def change(self, *writes: Any) -> None:
        store = self.store
        store.apply(writes, now=NOW)
        store.close()

    def delete_last(self, of: int, last: int) -> None:
        """The end of a chain, with its head set back so that it fits."""
        store, writer = self.store, self.writers[of]
        before = store.get(record_key(writer, last - 1), now=NOW)
        assert before
        head = {name: before.value[name] for name in ("seq", "hash", "at")}
        store.apply(
            [
                Delete(key=record_key(writer, last), expected=None),
                Put(key=head_key(writer), value=head, expected=None),
            ],
            now=NOW,
        )
        store.close()


def about(n: int, **more: Any) -> dict[str, Any]:
    return {
        "event": "granted", "issuance": issuance(n), "user": "ada@example.com-0123456789abcdef",
        "user_key": "a" * 64, "role": "prod-logs", "scopes": ["read-logs"], "factor_kind": "webauthn",
        "factor_id": "f1", "reason": f"TICKET-{n}", **more,
    }  # fmt: skip


@pytest.fixture
def broker(bare: Bench, tmp_path: Path) -> Broker:
    made = Broker(tmp_path / "data", bare.run)
    made.write(NOW - 3 * DAY, about(3 * DAY), about(3 * DAY, event="issued", access_key_id="ASIAOLD"))
    made.write(
        NOW - 600,
        about(600),
        about(600, event="issued", access_key_id="ASIANEW"),
        {"event": "refused", "user": "bob-1", "user_key": "b" * 64, "role": "dev", "error": "access_denied"},
        {"event": "invited", "issuer": ISSUER, "subject": "s|1", "administrator": "root@host"},
    )
    return made


class TestShow:
    def test_a_table_of_the_last_day_the_newest_last(self, broker: Broker) -> None:
        result = broker.audit("show")
        assert result.code == 0, result.err
        header, *lines = result.out.splitlines()
        assert header.split()[:4] == ["time", "(UTC)", "event", "user"]
        assert [line.split()[2] for line in lines] == ["granted", "issued", "refused", "invited"]
        assert lines[0].startswith("2027-01-15 07:50:00")
        for word in (
            "ada@example.com-0123456789abcdef",
            "prod-logs",
            "read-logs",
            "webauthn f1",
            "TICKET-600",
        ):
            assert word in lines[0]
        assert "access_denied" in lines[2]
        assert "last 24 hours" in result.err

    def test_a_name_without_its_digits_is_a_mistake_and_not_nothing(self, broker: Broker) -> None:
        result = broker.audit("show", "--user", "ada@example.com")
        assert (result.code, result.out) == (2, "")
        assert "shown name" in result.err

    def test_json_has_every_field(self, broker: Broker) -> None:
        first = broker.rows()[0]
        assert first.items() >= {**about(600), "at": NOW - 600, "seq": 2}.items()
        assert first.keys() >= {"hash", "prev", "signature", "writer"}

    @pytest.mark.parametrize(
        ("args", "events"),
        [
            (["--user", f"bob-{'b' * 16}"], ["refused"]),
            (["--user", "b" * 64], ["refused"]),
            (["--user", f"{ISSUER}|s|1"], ["invited"]),
            (["--role", "dev"], ["refused"]),
            (["--event", "issued"], ["issued"]),
            (["--event", "issued", "--since", "7d"], ["issued", "issued"]),
            (["--event", "started"], ["started"]),
            (["--access-key", "ASIAOLD"], []),
            (["--access-key", "ASIAOLD", "--since", "1w"], ["issued"]),
            (["--issuance", issuance(3 * DAY)], ["granted", "issued"]),
            (["--issuance", issuance(600)[-8:].upper()], ["granted", "issued"]),
            (["--since", "9m"], []),
            (["--until", "2027-01-14"], ["granted", "issued"]),
            (["--since", "2027-01-15T07:50:00Z", "--until", "2027-01-15T09:50:01+02:00"], ["granted", "issued", "refused", "invited"]),
            (["--since", "2027-01-15 07:50:01"], []),
            (["--limit", "2"], ["refused", "invited"]),
        ],
    )  # fmt: skip
    def test_what_is_asked_for(self, broker: Broker, args: list[str], events: list[str]) -> None:
        assert [row["event"] for row in broker.rows(*args)] == events

    def test_a_limit_says_that_there_is_more(self, broker: Broker) -> None:
        assert "there are more" in broker.audit("show", "--limit", "2").err
        assert "there are more" not in broker.audit("show", "--limit", "4").err

    @pytest.mark.parametrize(
        "args",
        [
            ["--since", "yesterday"],
            ["--until", "7y"],
            ["--issuance", "abc"],
            ["--event", "x"],
            ["--limit", "0"],
        ],
    )
    def test_what_cannot_be_asked(self, broker: Broker, args: list[str]) -> None:
        result = broker.audit("show", *args)
        assert (result.code, result.out) == (2, "")

    def test_what_strangers_wrote_does_nothing_to_a_terminal(self, broker: Broker) -> None:
        broker.write(NOW, about(1, reason="x\x1b[2J\u202e", role="[red]dev"))
        result = broker.audit("show", "--since", "1m")
        assert "[red]dev" in result.out
        assert not {"\x1b", "\u202e"} & set(result.out)

    def test_a_spoilt_record_is_shown_as_it_is(self, broker: Broker) -> None:
        spoilt = {"at": NOW - 600, "resources": 5, "scopes": {}, "event": [], "user": 7}
        broker.change(Put(key=record_key(broker.writers[1], 3), value=spoilt, expected=None))
        assert broker.audit("show").code == 0
        assert spoilt in broker.rows()


class TestVerify:
    def test_a_whole_trail(self, broker: Broker) -> None:
        result = broker.audit("verify")
        assert (result.code, result.out) == (0, "")
        kid = LocalSigner.open(broker.directory / "signing-key.pem").kid
        assert f"ok: 8 records in 2 chains, begun by mint key {kid}" in result.err

    def test_a_changed_record_is_named(self, broker: Broker) -> None:
        store, key = broker.store, record_key(broker.writers[0], 2)
        item = store.get(key, now=NOW)
        store.close()
        assert item
        broker.change(Put(key=key, value={**item.value, "user": "eve"}, expected=None))
        result = broker.audit("verify")
        assert (result.code, result.out) == (1, "")
        assert f"chain {broker.writers[0]}, record 2: the record was changed" in result.err

    def test_an_end_cut_off_is_missed_by_the_chain_after_it(self, broker: Broker) -> None:
        broker.delete_last(0, 3)
        result = broker.audit("verify")
        assert result.code == 1
        assert f"chain {broker.writers[0]}, record 3" in result.err

    def test_the_last_end_is_missed_by_saved_heads(self, broker: Broker, tmp_path: Path) -> None:
        saved = tmp_path / "heads.json"
        assert broker.audit("verify", "--save", str(saved)).code == 0
        assert stat.S_IMODE(saved.stat().st_mode) == 0o600
        assert broker.audit("verify", "--against", str(saved)).code == 0
        before = saved.read_bytes()
        broker.delete_last(1, 5)
        assert broker.audit("verify").code == 0
        result = broker.audit("verify", "--against", str(saved), "--save", str(saved))
        assert result.code == 1
        assert f"chain {broker.writers[1]}, record 5" in result.err
        assert saved.read_bytes() == before
        assert [path for path in tmp_path.iterdir() if "heads" in path.name] == [saved]

    def test_saved_heads_that_are_none(self, broker: Broker, tmp_path: Path) -> None:
        saved = tmp_path / "heads.json"
        assert broker.audit("verify", "--save", str(saved)).code == 0
        whole = json.loads(saved.read_text())
        for spoilt in (
            {}, {**whole, "version": 2}, {**whole, "heads": None},
            {**whole, "heads": [*whole["heads"], {"writer": "x", "seq": 1, "hash": ""}]},
        ):  # fmt: skip
            saved.write_text(json.dumps(spoilt))
            assert broker.audit("verify", "--against", str(saved)).code == 3
        assert broker.audit("verify", "--save", str(tmp_path / "no" / "where")).code == 3

    def test_a_retired_mint_key(self, broker: Broker, tmp_path: Path) -> None:
        key, jwks = broker.directory / "signing-key.pem", tmp_path / "jwks.json"
        jwks.write_text(json.dumps({"keys": [LocalSigner.open(key).public_jwk()]}))
        key.unlink()
        broker.write(NOW, about(0))
        result = broker.audit("verify")
        assert result.code == 1
        assert "not signed by a known mint key" in result.err
        result = broker.audit("verify", "--jwks", str(jwks))
        assert result.code == 0, result.err
        assert (
            ", ".join(sorted([LocalSigner.open(key).kid, json.loads(jwks.read_text())["keys"][0]["kid"]]))
            in result.err
        )
        jwks.write_text("{}")
        assert broker.audit("verify", "--jwks", str(jwks)).code == 3


class TestExport:
    @pytest.fixture
    def jwks(self, broker: Broker, tmp_path: Path) -> str:
        path = tmp_path / "jwks.json"
        key = LocalSigner.open(broker.directory / "signing-key.pem").public_jwk()
        path.write_text(json.dumps({"keys": [key]}))
        return str(path)

    def verify(self, broker: Broker, lines: str, jwks: str, tmp_path: Path) -> Outcome:
        path = tmp_path / "export.jsonl"
        path.write_text(lines, encoding="utf-8")
        return broker._run("broker", "audit", "verify-export", str(path), "--jwks", jwks)

    def test_every_record_as_it_is_stored(self, broker: Broker, jwks: str, tmp_path: Path) -> None:
        result = broker.audit("export")
        assert result.code == 0
        records = [json.loads(line) for line in result.out.splitlines()]
        assert [record["at"] for record in records] == sorted(record["at"] for record in records)
        assert len(records) == 8
        assert "8 records" in result.err
        found = self.verify(broker, result.out, jwks, tmp_path)
        assert found.code == 0, found.err
        assert "ok: 8 records in 2 chains" in found.err

    def test_some_days_with_what_verifies_them(self, broker: Broker, jwks: str, tmp_path: Path) -> None:
        broker.write(NOW - 5, about(5))
        office = open_office(broker.directory, now=lambda: NOW - 5000)
        for at in (NOW - 5000, NOW - 4000, NOW - 3):
            office.audit.append(about(1), now=at)
        office.store.close()
        result = broker.audit("export", "--since", "1m")
        events = [json.loads(line)["event"] for line in result.out.splitlines()]
        assert events == ["started", "started", "granted", "granted"]
        found = self.verify(broker, result.out, jwks, tmp_path)
        assert found.code == 0, found.err
        assert "of 1 chain the export holds" in found.err

    def test_a_changed_line_is_named(self, broker: Broker, jwks: str, tmp_path: Path) -> None:
        lines = broker.audit("export").out
        for bad in (
            lines.replace("TICKET-600", "TICKET-601", 1),
            lines.replace('"at"', '"at":0,"at"', 1),
            "x" + lines,
            lines.replace("\n", "\n[]\n", 1),
        ):
            found = self.verify(broker, bad, jwks, tmp_path)
            assert (found.code, found.out) == (1, "")
            assert "line " in found.err

    def test_it_is_not_held_in_memory(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        from credx.cli.broker import audit

        monkeypatch.setattr(audit, "AT_ONCE", 3)
        result = broker.audit("export")
        assert [block.count(b"\n") for block in result.writes] == [3, 3, 2]


@pytest.mark.parametrize("command", ["show", "verify", "export"])
@pytest.mark.parametrize("made", ["nothing", "a directory", "other files", "keys without a store"])
def test_who_only_reads_makes_no_store(bare: Bench, tmp_path: Path, command: str, made: str) -> None:
    data = tmp_path / "data"
    if made != "nothing":
        data.mkdir(mode=0o700)
    if made == "other files":
        (data / "x").touch()
    if made == "keys without a store":  # of brokers on a table, and --table was forgotten
        LocalSigner.open(data / "signing-key.pem")
    before = sorted(tmp_path.rglob("*"))
    result = bare.run("broker", "audit", command, "--data", str(data))
    assert (result.code, result.out) == (3, "")
    assert "no broker's directory" in result.err
    assert sorted(tmp_path.rglob("*")) == before


def test_reading_writes_no_record(broker: Broker) -> None:
    before = (broker.audit("export").out, len(broker.writers))
    for command in ("show", "verify", "export"):
        broker.audit(command)
    assert (broker.audit("export").out, 2) == before


def test_a_store_that_does_not_answer(broker: Broker) -> None:
    broker.change(Put(key=record_key(broker.writers[0], 2), value={}, expected=None))
    path = broker.directory / "broker.db"
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096))
    result = broker.audit("verify")
    assert result.code == 7
    assert "store" in result.err
