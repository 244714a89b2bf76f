import copy
import hashlib
import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.memory_store import MemoryStore

from credx.broker.audit import MAX_HEADS, MAX_STEP_BACK, MAX_WRITES, Audit, new_writer_id
from credx.broker.audit.record import EVENTS, LISTS, MAX_NAME, MAX_TEXT, NAMES, NUMBERS, TEXTS
from credx.broker.security_log import BURST, MAX_EVENTS, SecurityLog
from credx.broker.signer import LocalSigner
from credx.broker.stores import (
    Check,
    ConflictError,
    Key,
    Put,
    StoreUnavailableError,
    Write,
)
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
    return open_audit(store)


def open_audit(store: MemoryStore, writer: str = WRITER, **more: Any) -> Audit:
    return Audit(store, writer, **{"signer": SIGNER} | more)


def fork(audit: Audit) -> Audit:
    """The same process twice, as after os.fork."""
    twin = copy.copy(audit)
    twin._lock = threading.Lock()
    return twin


class TestCommit:
    def test_the_callers_writes_and_the_record_are_one(self, store: MemoryStore, audit: Audit) -> None:
        audit.commit([CALLERS], GRANTED, now=NOW)
        assert store.get(CALLERS.key, now=NOW)
        item = store.get(Key(f"audit#{WRITER}", f"{2:020d}"), now=NOW)
        assert item
        assert item.value.items() >= {**GRANTED, "at": int(NOW), "writer": WRITER, "seq": 2}.items()

    def test_the_hash_can_be_recomputed_by_anybody(self, audit: Audit) -> None:
        audit.append({**GRANTED, "reason": "é\u2028", "resources": ["b", "a"]}, now=NOW)
        audit.append(GRANTED, now=NOW)
        started, first, second = audit.read(NOW, starts=True)
        for record in (started, first, second):
            rest = {n: v for n, v in record.items() if n not in ("hash", "signature", "mint_signature")}
            text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
            assert record["hash"] == hashlib.sha256(text.encode()).hexdigest()
        prevs = [record["prev"] for record in (started, first, second)]
        assert prevs == ["0" * 64, started["hash"], first["hash"]]

    def test_a_callers_conflict_passes_and_leaves_the_chain(self, audit: Audit) -> None:
        audit.commit([CALLERS], GRANTED, now=NOW)
        with pytest.raises(ConflictError):
            audit.commit([CALLERS], GRANTED, now=NOW)
        audit.append({"event": "refused"}, now=NOW)
        assert [record["event"] for record in audit.read(NOW)] == ["granted", "refused"]
        assert audit.verify(NOW) is None

    def test_a_callers_conflict_at_the_first_commit_writes_nothing(
        self, store: MemoryStore, audit: Audit
    ) -> None:
        with pytest.raises(ConflictError):
            audit.commit([Check(key=Key("p", "s"), expected=1)], GRANTED, now=NOW)
        assert list(audit.read(NOW, starts=True)) == []
        assert list(store.query("audit", now=NOW)) == []

    @pytest.mark.parametrize("warm", [False, True])
    def test_a_head_moved_by_a_fork_is_caught_up_with(self, audit: Audit, warm: bool) -> None:
        if warm:
            audit.append(GRANTED, now=NOW)
        twin = fork(audit)
        for n in range(6):
            (audit if n % 2 else twin).commit([], GRANTED, now=NOW + n)
        count = 7 + warm
        assert [record["seq"] for record in audit.read(NOW, starts=True)] == [*range(1, count + 1)]
        assert audit.verify(NOW) is None

    def test_a_callers_conflict_passes_although_the_head_moved_too(self, audit: Audit) -> None:
        audit.commit([CALLERS], GRANTED, now=NOW)
        fork(audit).append(GRANTED, now=NOW)
        with pytest.raises(ConflictError):
            audit.commit([CALLERS], GRANTED, now=NOW)
        assert len(list(audit.read(NOW))) == 2

    def test_64_threads_make_one_whole_chain(self) -> None:
        class Slow(MemoryStore):
            def apply(self, writes: Sequence[Write], *, now: float) -> None:
                time.sleep(0.001)  # lets another thread in between reading the head and moving it
                super().apply(writes, now=now)

        audit = open_audit(Slow())
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(lambda n: audit.append({**GRANTED, "issuance": str(n)}, now=NOW), range(256)))
        assert audit.verify(NOW) is None
        assert {record["issuance"] for record in audit.read(NOW)} == {str(n) for n in range(256)}

    def test_another_process_cannot_continue_a_chain(self, store: MemoryStore, audit: Audit) -> None:
        """It has another key; what it wrote would not hold."""
        audit.append(GRANTED, now=NOW)
        with pytest.raises(StoreUnavailableError):
            open_audit(store).commit([CALLERS], GRANTED, now=NOW)
        assert store.get(CALLERS.key, now=NOW) is None
        assert audit.verify(NOW) is None

    def test_the_caller_may_use_the_rest_of_the_stores_100_writes(self, audit: Audit) -> None:
        writes = [Put(key=Key("p", str(n)), value={}, expected=0) for n in range(MAX_WRITES + 1)]
        with pytest.raises(ValueError, match="97"):
            audit.commit(writes, GRANTED, now=NOW)
        audit.commit(writes[:MAX_WRITES], GRANTED, now=NOW)


class TestStart:
    def test_a_start_by_itself_writes_nothing(self, store: MemoryStore, audit: Audit) -> None:
        assert list(audit.read(NOW, starts=True)) == []
        assert audit.verify(NOW) is None
        assert list(store.query("audit", now=NOW)) == []

    def test_the_mint_key_signs_once_and_is_not_needed_any_more(self, store: MemoryStore) -> None:
        class Counting(LocalSigner):
            calls = 0

            def sign(self, message: bytes) -> bytes:
                self.calls += 1
                return super().sign(message)

        signer = Counting(rsa.generate_private_key(65537, 2048))
        audit = open_audit(store, signer=signer)
        for n in range(5):
            audit.append(GRANTED, now=NOW + n)
        assert signer.calls == 1
        assert audit.verify(NOW) is None

    def test_without_the_mint_key_there_is_no_first_record(self, store: MemoryStore) -> None:
        class Down(LocalSigner):
            def sign(self, message: bytes) -> bytes:
                raise OSError("kms is down")

        audit = open_audit(store, signer=Down(rsa.generate_private_key(65537, 2048)))
        with pytest.raises(OSError, match="kms"):
            audit.commit([CALLERS], GRANTED, now=NOW)
        assert store.get(CALLERS.key, now=NOW) is None

    def test_it_names_the_heads_of_the_chains_before(self, store: MemoryStore, audit: Audit) -> None:
        audit.append(GRANTED, now=NOW)
        audit.append(GRANTED, now=NOW)
        open_audit(store, OTHER).append(GRANTED, now=NOW + 1)
        _, last, started, _ = list(audit.read(NOW, starts=True))[1:]
        assert started["heads"] == [{"writer": WRITER, "seq": 3, "hash": last["hash"]}]

    def test_a_chain_that_lives_long_is_handed_on_from_start_to_start(
        self, store: MemoryStore, audit: Audit
    ) -> None:
        audit.append(GRANTED, now=NOW)
        for n in range(2 * MAX_HEADS):
            writer = new_writer_id(NOW + n, n.to_bytes(2, "big").ljust)
            open_audit(store, writer).append(GRANTED, now=NOW + n)
            audit.append(GRANTED, now=NOW + n)
        started = [*audit.read(NOW, event="started")][-1]
        assert len(started["heads"]) == MAX_HEADS
        assert {"writer": WRITER, "seq": n + 2} in [
            {"writer": head["writer"], "seq": head["seq"]} for head in started["heads"]
        ]


class TestClock:
    def times(self, audit: Audit) -> list[tuple[int, int]]:
        return [(record["seq"], record["at"] - int(NOW)) for record in audit.read(NOW)]

    def test_requests_out_of_order_and_small_corrections_stay_in_one_chain(self, audit: Audit) -> None:
        for step in (0, 5, 3, 5 - MAX_STEP_BACK, 6):
            audit.append(GRANTED, now=NOW + step)
        assert self.times(audit) == [(2, 0), (3, 5), (4, 5), (5, 5), (6, 6)]
        assert audit.verify(NOW) is None

    def test_a_clock_set_back_starts_another_chain_and_no_time_is_made_up(self, audit: Audit) -> None:
        day = 25 * 3600
        for step in (0, day, 0, 1, day, 0):
            audit.append(GRANTED, now=NOW + step)
        assert sorted(at for _, at in self.times(audit)) == [0, 0, 0, 1, day, day]
        assert audit.verify(NOW) is None

    def test_a_clock_that_went_back_before_the_first_record(self, audit: Audit) -> None:
        audit.append(GRANTED, now=NOW - 3600)
        assert self.times(audit) == [(2, -3600)]
        assert len([*audit.read(NOW, until=NOW - 3599)]) == 1


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
        assert list(audit.read(NOW, starts=True)) == []

    def test_a_long_text_is_cut_so_that_the_record_is_not_lost(self, audit: Audit) -> None:
        audit.append({"event": "failed", "error": "x" * 5000}, now=NOW)
        assert next(audit.read(NOW))["error"] == "x" * MAX_TEXT + "…"

    def test_none_is_left_out(self, audit: Audit) -> None:
        audit.append({**GRANTED, "factor_id": None}, now=NOW)
        assert "factor_id" not in next(audit.read(NOW))


class TestCopy:
    def test_it_receives_what_is_durable(self, store: MemoryStore) -> None:
        copies: list[Mapping[str, Any]] = []
        audit = open_audit(store, copy=copies.append)
        audit.append(GRANTED, now=NOW)
        with pytest.raises(ConflictError):
            audit.commit([Check(key=Key("p", "s"), expected=1)], GRANTED, now=NOW)
        assert copies == list(audit.read(NOW, starts=True))

    def test_its_failure_is_logged_and_no_more(
        self, store: MemoryStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(record: Mapping[str, Any]) -> None:
            raise OSError("disk full")

        audit = open_audit(store, copy=full)
        audit.append(GRANTED, now=NOW)
        assert len(list(audit.read(NOW))) == 1
        assert "audit_copy_failed" in caplog.text


class TestWriterId:
    def test_ids_sort_by_time_and_differ(self) -> None:
        early, late = (new_writer_id(NOW + n, bytes) for n in (0, 0.001))
        assert early < late
        assert WRITER[:12] == new_writer_id(NOW, bytes)[:12]

    @pytest.mark.parametrize(
        "writer", ["", "a/b", "A" * 29, WRITER + "0", "-" * 29, WRITER.replace("-", "0")]
    )
    def test_another_shape_is_refused(self, store: MemoryStore, writer: str) -> None:
        with pytest.raises(ValueError):
            open_audit(store, writer)


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


def test_the_page_about_the_audit_names_every_field_and_event(store: MemoryStore, audit: Audit) -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "audit.md").read_text(encoding="utf-8")
    audit.append(GRANTED, now=NOW)
    written = {name for record in audit.read(NOW, starts=True) for name in record}
    named = set(re.findall(r"`(\w+)`", page))
    assert written | EVENTS | NAMES | TEXTS | LISTS | NUMBERS <= named
