"""No record, no token: whatever happens to the store, nothing is written without its audit record."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.memory_store import MemoryStore

from credx.broker.audit import Audit, new_writer_id
from credx.broker.signer import LocalSigner
from credx.broker.stores import ConflictError, Item, Key, Put, StoreUnavailableError, Write
from credx.broker.stores.sqlite import SqliteStore

NOW = 1_800_000_000.0
WRITER = new_writer_id(NOW, bytes)
SIGNER = LocalSigner(rsa.generate_private_key(65537, 2048))
CLAIM = Put(key=Key("user#k", "auth#1"), value={"used": True}, expected=0)
GRANTED = {"event": "granted", "issuance": "i-1"}


class Flaky(MemoryStore):
    """Fails when told to: before the write, or after it, as when an answer gets lost on the way."""

    fail: str = ""

    def get(self, key: Key, *, now: float) -> Item | None:
        if self.fail == "read":
            raise StoreUnavailableError("gone")
        return super().get(key, now=now)

    def query(self, partition: str, prefix: str = "", *, now: float, limit: int = 1000) -> Sequence[Item]:
        if self.fail == "read":
            raise StoreUnavailableError("gone")
        return super().query(partition, prefix, now=now, limit=limit)

    def apply(self, writes: Sequence[Write], *, now: float) -> None:
        if self.fail == "before":
            raise StoreUnavailableError("gone")
        super().apply(writes, now=now)
        if self.fail == "after":
            raise StoreUnavailableError("the answer got lost")
        if self.fail == "killed":
            raise KeyboardInterrupt


@pytest.fixture
def store() -> Flaky:
    return Flaky()


@pytest.fixture
def audit(store: Flaky) -> Audit:
    return Audit(store, WRITER, signer=SIGNER)


@pytest.mark.parametrize("when", ["before", "read"])
def test_a_store_that_is_down_means_nothing_written(store: Flaky, audit: Audit, when: str) -> None:
    store.fail = when
    with pytest.raises(StoreUnavailableError):
        audit.commit([CLAIM], GRANTED, now=NOW)
    store.fail = ""
    assert store.get(CLAIM.key, now=NOW) is None
    assert list(audit.read(NOW)) == []
    audit.commit([CLAIM], GRANTED, now=NOW)
    assert audit.verify(NOW) is None


@pytest.mark.parametrize("warm", [False, True])
def test_a_lost_answer_is_no_yes_and_the_chain_goes_on(store: Flaky, audit: Audit, warm: bool) -> None:
    if warm:
        audit.append({"event": "refused"}, now=NOW)
    store.fail = "after"
    with pytest.raises(StoreUnavailableError):
        audit.commit([CLAIM], GRANTED, now=NOW)
    store.fail = ""
    with pytest.raises(ConflictError):  # the claim was made: the proof is spent, and its record is there
        audit.commit([CLAIM], GRANTED, now=NOW)
    audit.append({"event": "failed", "issuance": "i-1"}, now=NOW)
    assert [record["event"] for record in audit.read(NOW)][-2:] == ["granted", "failed"]
    assert audit.verify(NOW) is None


def test_an_interrupt_in_the_middle_does_not_fork_the_chain(store: Flaky, audit: Audit) -> None:
    store.fail = "killed"
    with pytest.raises(KeyboardInterrupt):
        audit.append(GRANTED, now=NOW)
    store.fail = ""
    audit.append(GRANTED, now=NOW)
    assert [record["seq"] for record in audit.read(NOW)] == [2, 3]
    assert audit.verify(NOW) is None


def test_a_copy_gets_nothing_that_is_not_durable(store: Flaky) -> None:
    copies: list[object] = []
    audit = Audit(store, WRITER, signer=SIGNER, copy=copies.append)
    store.fail = "after"
    with pytest.raises(StoreUnavailableError):
        audit.append(GRANTED, now=NOW)
    assert copies == []


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "store.db", busy_timeout=0.1)
    yield opened
    opened.close()


def test_sqlite_locked_by_another_process(sqlite: SqliteStore, tmp_path: Path) -> None:
    audit = Audit(sqlite, WRITER, signer=SIGNER)
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError):
        audit.commit([CLAIM], GRANTED, now=NOW)
    other.execute("ROLLBACK")
    other.close()
    assert sqlite.get(CLAIM.key, now=NOW) is None
    audit.commit([CLAIM], GRANTED, now=NOW)
    assert audit.verify(NOW) is None


def test_sqlite_full_disk(sqlite: SqliteStore) -> None:
    audit = Audit(sqlite, WRITER, signer=SIGNER)
    audit.append(GRANTED, now=NOW)
    (pages,) = sqlite._db.execute("PRAGMA page_count").fetchone()
    sqlite._db.execute(f"PRAGMA max_page_count = {pages}")
    claims = [Put(key=Key("user#k", f"auth#{n}"), value={"x": "x" * 3000}, expected=0) for n in range(9)]
    with pytest.raises(StoreUnavailableError):
        audit.commit(claims, GRANTED, now=NOW)
    sqlite._db.execute("PRAGMA max_page_count = 100000")
    assert list(sqlite.query("user#k", now=NOW)) == []
    audit.commit(claims, GRANTED, now=NOW)
    assert [record["seq"] for record in audit.read(NOW)] == [2, 3]
    assert audit.verify(NOW) is None


LIFE = """
import itertools, os, pathlib, sys
from credx.broker.audit import Audit, new_writer_id
from credx.broker.signer import LocalSigner
from credx.broker.stores import Key, Put
from credx.broker.stores.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
audit = Audit(store, new_writer_id(0, os.urandom), signer=LocalSigner.open(pathlib.Path(sys.argv[2])))
for n in itertools.count(1):
    claim = Put(key=Key("claim", f"{n}"), value={}, expected=0)
    audit.commit([claim], {"event": "granted", "issuance": f"{n}"}, now=0)
    print(n, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_chain_and_no_claim_without_its_record(tmp_path: Path) -> None:
    key = tmp_path / "signing-key.pem"
    signer = LocalSigner.open(key)
    for turn in range(3):
        path = tmp_path / f"{turn}.db"
        command = [sys.executable, "-c", LIFE, str(path), str(key)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        for _ in range(40 + turn):
            told = int(process.stdout.readline())
        process.kill()
        told = max([told, *(int(line) for line in process.stdout if line.endswith("\n"))])
        process.stdout.close()
        process.wait(30)
        store = SqliteStore(path)
        audit = Audit(store, WRITER, signer=signer)
        recorded = {record["issuance"] for record in audit.read(NOW)}
        claims = {str(n) for n in range(1, told + 2) if store.get(Key("claim", str(n)), now=NOW)}
        assert claims == recorded >= {str(n) for n in range(1, told + 1)}
        assert audit.verify(NOW) is None
        store.close()
