"""The audit trail over every kind of store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.memory_store import MemoryStore

from credx.broker.audit import MAX_WRITES, Audit, new_writer_id
from credx.broker.audit.chain import record_key
from credx.broker.audit.files import exported, imported
from credx.broker.audit.verify import verify, verify_export
from credx.broker.signer import LocalSigner
from credx.broker.stores import ConflictError, Key, Put
from credx.broker.stores.sqlite import SqliteStore
from tests.support.dynamo import Dynamo, set_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credx.broker.stores import Store

NOW = 1_800_000_000
SIGNER = LocalSigner(rsa.generate_private_key(65537, 2048))
KEYS = {SIGNER.kid: SIGNER.public_jwk()}
GRANTED = {"event": "granted", "user": "ada-1", "reason": "é\u2028", "scopes": ["b", "a"], "duration": 900}


@pytest.fixture(scope="module")
def dynamo() -> Iterator[Dynamo]:
    with Dynamo() as running:
        yield running


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    opened: Store
    if request.param == "dynamodb":
        set_credentials(monkeypatch)
        opened = request.getfixturevalue("dynamo").new()
    else:
        opened = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "store.db")
    yield opened
    opened.close()


def test_what_was_written_is_read_verified_and_exported(store: Store) -> None:
    audits = [Audit(store, new_writer_id(NOW + n, bytes), signer=SIGNER) for n in range(2)]
    for n in range(6):
        audits[n % 2].append(GRANTED, now=NOW + 2 + n)
    found = verify(store, KEYS, NOW)
    assert (found.broken, found.records) == (None, 8)
    assert verify(store, KEYS, NOW, against=found.heads).broken is None
    window = [record["at"] - NOW for record in audits[0].read(NOW, since=NOW + 4, until=NOW + 7)]
    assert window == [4, 5, 6]
    lines = [exported(record) for record in audits[0].read(NOW, starts=True)]
    assert json.loads(lines[1])["reason"] == GRANTED["reason"]
    assert verify_export(imported(lines), KEYS).broken is None


def test_the_first_commit_has_room_for_the_callers_writes(store: Store) -> None:
    audit = Audit(store, new_writer_id(NOW, bytes), signer=SIGNER)
    writes = [Put(key=Key("p", str(n)), value={}, expected=0) for n in range(MAX_WRITES)]
    audit.commit(writes, GRANTED, now=NOW)
    with pytest.raises(ConflictError):
        audit.commit(writes[:1], GRANTED, now=NOW)
    assert verify(store, KEYS, NOW).records == 2


def test_a_record_in_sqlite_takes_little_more_than_its_own_length(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    audit = Audit(store, new_writer_id(NOW, bytes), signer=SIGNER)
    writes = [
        Put(key=record_key("w", seq), value={"x": "x" * 1000}, expected=0) for seq in range(50 * MAX_WRITES)
    ]
    for first in range(0, len(writes), MAX_WRITES):
        audit.commit(writes[first : first + MAX_WRITES], GRANTED, now=NOW)
    store.close()
    assert (tmp_path / "store.db").stat().st_size < 1.5 * 1100 * len(writes)
