import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from credx.broker.audit import Audit, new_writer_id
from credx.broker.audit_chain import Broken
from credx.broker.audit_record import MAX_NAME, MAX_TEXT, digest, signed_part
from credx.broker.security_log import BURST, MAX_EVENTS, SecurityLog
from credx.broker.signer import LocalSigner
from credx.broker.stores import (
    Check,
    ConflictError,
    Delete,
    Key,
    Put,
    Write,
)
from credx.broker.stores.memory import MemoryStore
from credx.model import Secret
from credx.protocol import MAX_RESOURCES

NOW = 1_800_000_000.0
WRITER = new_writer_id(NOW, lambda n: b"\xaa" * n)
OTHER = new_writer_id(NOW + 1, lambda n: b"\xbb" * n)
SIGNER = LocalSigner(rsa.generate_private_key(65537, 2048))
GRANTED = {"event": "granted", "issuance": "i-1", "user": "ada-12345678", "user_key": "k1", "role": "dev"}
CALLERS = Put(key=Key("user#k1", "auth#1"), value={"used": True}, expected=0)


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    opened = MemoryStore()
    yield opened
    opened.close()


@pytest.fixture
def audit(store: MemoryStore) -> Audit:
    return Audit(store, WRITER)


def chain(seq: int | str, writer: str = WRITER) -> Key:
    return Key(f"audit#{writer}", seq if isinstance(seq, str) else f"{seq:020d}")


def rewrite(store: MemoryStore, key: Key, **changes: Any) -> None:
    item = store.get(key, now=NOW)
    assert item
    store.apply([Put(key=key, value={**item.value, **changes}, expected=None)], now=NOW)


class TestCommit:
    def test_the_callers_writes_and_the_record_are_one(self, store: MemoryStore, audit: Audit) -> None:
        audit.commit([CALLERS], GRANTED, now=NOW)
        assert store.get(CALLERS.key, now=NOW)
        item = store.get(chain(1), now=NOW)
        assert item
        assert item.value.items() >= {**GRANTED, "at": int(NOW), "writer": WRITER, "seq": 1}.items()

    def test_the_hash_can_be_recomputed_by_anybody(self, store: MemoryStore, audit: Audit) -> None:
        audit.append({**GRANTED, "reason": "é\u2028", "resources": ["b", "a"]}, now=NOW)
        audit.append(GRANTED, now=NOW)
        first, second = audit.read(NOW)
        rest = {name: value for name, value in first.items() if name != "hash"}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
        assert first["hash"] == hashlib.sha256(text.encode()).hexdigest()
        assert (first["prev"], second["prev"]) == ("0" * 64, first["hash"])

    def test_a_callers_conflict_passes_and_leaves_the_chain(self, store: MemoryStore, audit: Audit) -> None:
        audit.commit([CALLERS], GRANTED, now=NOW)
        with pytest.raises(ConflictError):
            audit.commit([CALLERS], GRANTED, now=NOW)
        audit.append({"event": "refused"}, now=NOW)
        assert [record["event"] for record in audit.read(NOW)] == ["granted", "refused"]
        assert audit.verify(NOW) is None

    def test_a_head_moved_by_a_fork_is_caught_up_with(self, store: MemoryStore, audit: Audit) -> None:
        twin = Audit(store, WRITER)
        for n in range(6):
            (audit if n % 2 else twin).commit([], GRANTED, now=NOW + n)
        assert [record["seq"] for record in audit.read(NOW)] == [1, 2, 3, 4, 5, 6]
        assert audit.verify(NOW) is None

    def test_a_callers_conflict_passes_although_the_head_moved_too(
        self, store: MemoryStore, audit: Audit
    ) -> None:
        audit.commit([CALLERS], GRANTED, now=NOW)
        Audit(store, WRITER).append(GRANTED, now=NOW)
        with pytest.raises(ConflictError):
            audit.commit([CALLERS], GRANTED, now=NOW)
        assert len(list(audit.read(NOW))) == 2

    def test_64_threads_make_one_whole_chain(self) -> None:
        class Slow(MemoryStore):
            def apply(self, writes: Sequence[Write], *, now: float) -> None:
                time.sleep(0.001)  # lets another thread in between reading the head and moving it
                super().apply(writes, now=now)

        audit = Audit(Slow(), WRITER)
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(lambda n: audit.append({**GRANTED, "issuance": str(n)}, now=NOW), range(256)))
        assert audit.verify(NOW) is None
        assert {record["issuance"] for record in audit.read(NOW)} == {str(n) for n in range(256)}

    def test_a_process_that_starts_anew_under_one_id_continues(self, store: MemoryStore) -> None:
        Audit(store, WRITER).append(GRANTED, now=NOW)
        Audit(store, WRITER).append(GRANTED, now=NOW)
        assert Audit(store, OTHER).verify(NOW) is None

    def test_the_caller_may_use_the_rest_of_the_stores_100_writes(self, audit: Audit) -> None:
        writes = [Put(key=Key("p", str(n)), value={}, expected=0) for n in range(97)]
        audit.commit(writes, GRANTED, now=NOW)


class TestRecordShape:
    @pytest.mark.parametrize(
        ("extra", "error"),
        [
            ({"event": "made-up"}, ValueError),
            ({"event": None}, ValueError),
            ({"token": "x"}, ValueError),
            ({"at": 1}, ValueError),
            ({"seq": 1}, ValueError),
            ({"hash": "x"}, ValueError),
            ({"user": Secret("x")}, TypeError),
            ({"reason": Secret("x")}, TypeError),
            ({"scopes": [Secret("x")]}, TypeError),
            ({"detail": {"a": "b"}}, TypeError),
            ({"user": 1}, TypeError),
            ({"duration": "1h"}, TypeError),
            ({"duration": True}, TypeError),
            ({"duration": 1.5}, TypeError),
            ({"user": "x" * (MAX_NAME + 1)}, ValueError),
            ({"scopes": "a"}, ValueError),
            ({"scopes": ["a"] * (MAX_RESOURCES + 1)}, ValueError),
            ({"resources": ["x" * (MAX_NAME + 1)]}, ValueError),
        ],
    )
    def test_a_fault_of_the_program_writes_nothing(
        self, store: MemoryStore, audit: Audit, extra: dict[str, Any], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            audit.commit([CALLERS], {**GRANTED, **extra}, now=NOW)
        assert store.get(CALLERS.key, now=NOW) is None
        assert list(audit.read(NOW)) == []

    def test_a_long_text_is_cut_so_that_the_record_is_not_lost(self, audit: Audit) -> None:
        audit.append({"event": "failed", "error": "x" * 5000}, now=NOW)
        assert next(audit.read(NOW))["error"] == "x" * MAX_TEXT + "…"

    def test_none_is_left_out(self, audit: Audit) -> None:
        audit.append({**GRANTED, "factor_id": None}, now=NOW)
        assert "factor_id" not in next(audit.read(NOW))


class TestRead:
    def test_all_writers_in_order_of_time(self, store: MemoryStore) -> None:
        audits = [Audit(store, WRITER), Audit(store, OTHER)]
        for n in range(6):
            audits[n % 2].append({**GRANTED, "issuance": str(n)}, now=NOW + n)
        assert [record["issuance"] for record in audits[0].read(NOW)] == list("012345")

    def test_every_filter(self, audit: Audit) -> None:
        audit.append(GRANTED, now=NOW)
        audit.append({"event": "issued", "issuance": "i-1", "access_key_id": "ASIA1"}, now=NOW + 1)
        audit.append({**GRANTED, "user": "bob-1", "user_key": "k2", "role": "prod"}, now=NOW + 2)

        def seqs(**wanted: Any) -> list[int]:
            return [record["seq"] for record in audit.read(NOW, **wanted)]

        assert seqs() == [1, 2, 3]
        assert seqs(user="ada-12345678") == seqs(user="k1") == [1]
        assert seqs(user="nobody") == []
        assert seqs(role="prod") == [3]
        assert seqs(issuance="i-1", event="issued") == [2]
        assert seqs(access_key_id="ASIA1") == [2]
        assert seqs(since=NOW + 1) == [2, 3]
        assert seqs(since=NOW + 1, until=NOW + 2) == [2]

    def test_more_writers_and_records_than_a_page(
        self, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writers = [new_writer_id(NOW, n.to_bytes(2, "big").ljust) for n in range(1005)]
        for writer in writers[1:]:
            Audit(store, writer).append(GRANTED, now=NOW)
        first = Audit(store, writers[0])
        for _ in range(2001):
            first.append(GRANTED, now=NOW)
        assert len(list(first.read(NOW))) == 1004 + 2001
        assert first.verify(NOW) is None


class TestVerify:
    @pytest.fixture
    def three(self, store: MemoryStore, audit: Audit) -> Audit:
        for _ in range(3):
            audit.append(GRANTED, now=NOW)
        assert audit.verify(NOW) is None
        return audit

    def test_a_changed_record(self, store: MemoryStore, three: Audit) -> None:
        rewrite(store, chain(2), role="admin")
        assert three.verify(NOW) == Broken(WRITER, 2, "the record was changed")

    def test_a_changed_record_with_a_new_hash(self, store: MemoryStore, three: Audit) -> None:
        item = store.get(chain(2), now=NOW)
        assert item
        changed = {**item.value, "role": "admin"}
        rewrite(store, chain(2), role="admin", hash=digest(changed))
        broken = three.verify(NOW)
        assert broken
        assert broken[:2] == (WRITER, 3)

    def test_a_gap(self, store: MemoryStore, three: Audit) -> None:
        store.apply([Delete(key=chain(2), expected=None)], now=NOW)
        assert three.verify(NOW) == Broken(WRITER, 2, "the record is missing")

    def test_a_tail_cut_off(self, store: MemoryStore, three: Audit) -> None:
        store.apply([Delete(key=chain(3), expected=None)], now=NOW)
        broken = three.verify(NOW)
        assert broken
        assert broken[:2] == (WRITER, 3)

    def test_a_tail_cut_off_and_the_head_set_back_to_another_hash(
        self, store: MemoryStore, three: Audit
    ) -> None:
        store.apply([Delete(key=chain(3), expected=None)], now=NOW)
        rewrite(store, chain("head"), seq=2)
        assert three.verify(NOW) == Broken(WRITER, 2, "the head is of another record")

    def test_a_head_set_back_before_its_records(self, store: MemoryStore, three: Audit) -> None:
        rewrite(store, chain("head"), seq=1)
        broken = three.verify(NOW)
        assert broken
        assert "head" in broken.why

    def test_no_head(self, store: MemoryStore, three: Audit) -> None:
        store.apply([Delete(key=chain("head"), expected=None)], now=NOW)
        assert three.verify(NOW) == Broken(WRITER, 0, "the chain has no head")

    def test_no_record_left(self, store: MemoryStore, three: Audit) -> None:
        store.apply([Delete(key=chain(n), expected=None) for n in (1, 2, 3)], now=NOW)
        broken = three.verify(NOW)
        assert broken
        assert broken[:2] == (WRITER, 1)

    def test_a_record_moved_from_another_chain(self, store: MemoryStore, three: Audit) -> None:
        Audit(store, OTHER).append({**GRANTED, "role": "other"}, now=NOW)
        item = store.get(chain(1, OTHER), now=NOW)
        assert item
        store.apply([Put(key=chain(1), value=item.value, expected=None)], now=NOW)
        assert three.verify(NOW) == Broken(WRITER, 1, "the record is of another place")

    def test_garbage_is_a_finding_and_no_crash(self, store: MemoryStore, three: Audit) -> None:
        store.apply([Put(key=chain(2), value={}, expected=None)], now=NOW)
        rewrite(store, chain("head"), seq="x")
        assert three.verify(NOW) == Broken(WRITER, 2, "the record was changed")
        assert len(list(three.read(NOW))) == 3


class TestSignatures:
    """Who has the store but not the mint key can neither change nor invent."""

    KEYS: ClassVar = {SIGNER.kid: SIGNER.public_jwk()}

    @pytest.fixture
    def signed(self, store: MemoryStore) -> Audit:
        audit = Audit(store, WRITER, signer=SIGNER)
        for _ in range(3):
            audit.append(GRANTED, now=NOW)
        assert audit.verify(NOW, self.KEYS) is None
        return audit

    def test_a_chain_of_whole_hashes_made_without_the_key(self, store: MemoryStore, signed: Audit) -> None:
        Audit(store, OTHER).append(GRANTED, now=NOW)
        assert signed.verify(NOW) is None
        assert signed.verify(NOW, self.KEYS) == Broken(OTHER, 1, "the record is not signed by a known key")

    def test_or_with_a_key_of_ones_own(self, store: MemoryStore, signed: Audit) -> None:
        own = LocalSigner(rsa.generate_private_key(65537, 2048))
        Audit(store, OTHER, signer=own).append(GRANTED, now=NOW)
        assert signed.verify(NOW, self.KEYS) == Broken(OTHER, 1, "the record is not signed by a known key")
        assert signed.verify(NOW, {**self.KEYS, own.kid: own.public_jwk()}) is None

    @pytest.mark.parametrize("name", ["role", "at", "signature", "added"])
    def test_the_last_record_rewritten_with_its_hash_and_head(
        self, store: MemoryStore, signed: Audit, name: str
    ) -> None:
        item = store.get(chain(3), now=NOW)
        assert item
        changed = {**item.value, name: 7}
        rewrite(store, chain(3), **{name: 7}, hash=digest(changed))
        rewrite(store, chain("head"), hash=digest(changed))
        assert signed.verify(NOW) is None
        assert signed.verify(NOW, self.KEYS) == Broken(WRITER, 3, "the signature of the record is wrong")

    def test_a_signature_is_no_jwt(self, signed: Audit) -> None:
        """The mint key signs two kinds of things; neither can be taken for the other."""
        assert b" " in signed_part(next(signed.read(NOW)))

    def test_no_signature_no_record(self, store: MemoryStore) -> None:
        class Down(LocalSigner):
            def sign(self, message: bytes) -> bytes:
                raise OSError("kms is down")

        audit = Audit(store, WRITER, signer=Down(rsa.generate_private_key(65537, 2048)))
        with pytest.raises(OSError, match="kms"):
            audit.commit([CALLERS], GRANTED, now=NOW)
        assert store.get(CALLERS.key, now=NOW) is None


class TestCopy:
    def test_it_receives_what_is_durable(self, store: MemoryStore) -> None:
        copies: list[Mapping[str, Any]] = []
        audit = Audit(store, WRITER, copy=copies.append)
        audit.append(GRANTED, now=NOW)
        with pytest.raises(ConflictError):
            audit.commit([Check(key=Key("p", "s"), expected=1)], GRANTED, now=NOW)
        assert copies == list(audit.read(NOW))

    def test_its_failure_is_logged_and_no_more(
        self, store: MemoryStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(record: Mapping[str, Any]) -> None:
            raise OSError("disk full")

        audit = Audit(store, WRITER, copy=full)
        audit.append(GRANTED, now=NOW)
        assert len(list(audit.read(NOW))) == 1
        assert "audit_copy_failed" in caplog.text


class TestWriterId:
    def test_ids_sort_by_time_and_differ(self) -> None:
        early, late = (new_writer_id(NOW + n, bytes) for n in (0, 0.001))
        assert early < late
        assert WRITER[:12] == new_writer_id(NOW, bytes)[:12]

    @pytest.mark.parametrize("writer", ["", "a/b", "A" * 29, WRITER + "0"])
    def test_another_shape_is_refused(self, store: MemoryStore, writer: str) -> None:
        with pytest.raises(ValueError):
            Audit(store, writer)


class TestSecurityLog:
    def lines(self, caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
        return [
            json.loads(record.getMessage()) for record in caplog.records if record.name == "credx.security"
        ]

    def test_one_line_of_json_whatever_the_strings_hold(self, caplog: pytest.LogCaptureFixture) -> None:
        log = SecurityLog(lambda: NOW)
        log("bad_token", client="1.2.3.4", detail='a\n{"event":"x"}\u202e\x1b[2J', size=3, kid=None)
        (line,) = self.lines(caplog)
        assert line.keys() == {"event", "at", "client", "detail", "size", "kid"}
        assert "\n" not in caplog.records[0].getMessage()
        assert not {"\n", "\u202e", "\x1b"} & set(line["detail"])
        assert (line["at"], line["size"], line["kid"]) == (int(NOW), 3, None)

    def test_a_caller_cannot_overwrite_what_the_log_says_itself(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        SecurityLog(lambda: NOW)("bad_token", at=1)
        assert self.lines(caplog)[0]["at"] == int(NOW)

    def test_it_is_bounded(self, caplog: pytest.LogCaptureFixture) -> None:
        SecurityLog(lambda: NOW)("bad_token", **{f"f{n}": "x" * 100_000 for n in range(100)})
        assert len(caplog.records[0].getMessage()) < 10_000

    def test_a_flood_is_dropped_counted_and_told(self, caplog: pytest.LogCaptureFixture) -> None:
        now = [NOW]
        log = SecurityLog(lambda: now[0])
        for _ in range(1000):
            log("bad_token")
        log("other_event")
        assert len(self.lines(caplog)) == BURST + 1
        now[0] += 1
        log("bad_token")
        assert self.lines(caplog)[-1]["dropped"] == 1000 - BURST
        now[0] -= 3600  # a clock set back neither fills nor blocks for ever
        log("bad_token")
        now[0] += 1
        log("bad_token")
        assert self.lines(caplog)[-1]["dropped"] == 1

    def test_events_cannot_eat_memory(self, caplog: pytest.LogCaptureFixture) -> None:
        log = SecurityLog(lambda: NOW)
        for n in range(10_000):
            log(f"event{n}")
        assert len(log._buckets) <= MAX_EVENTS + 1
        assert len(caplog.records) == MAX_EVENTS + BURST

    def test_no_secret(self) -> None:
        with pytest.raises(TypeError):
            SecurityLog()("bad_token", token=Secret("x"))

    def test_the_audit_brings_one(self, audit: Audit, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        audit.security_log("bad_token", client="::1")
        assert self.lines(caplog)[0]["event"] == "bad_token"
