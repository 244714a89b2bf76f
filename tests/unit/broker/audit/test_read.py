import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from support.memory_store import MemoryStore

from credx.broker.audit import Audit, new_writer_id
from credx.broker.audit import chain as audit_chain
from credx.broker.audit.chain import first_since, head_key, record_key
from credx.broker.issuance import new_issuance
from credx.broker.signer import LocalSigner
from credx.broker.stores import Delete, Item, Key, Put

NOW = 1_800_000_000
SIGNER = LocalSigner(rsa.generate_private_key(65537, 2048))
KEY = hashlib.sha256(b"https://idp.example.com\0s|1").hexdigest()
GRANTED = {"event": "granted", "user": "ada-0123456789abcdef", "user_key": KEY, "role": "dev"}


class Counting(MemoryStore):
    """How much a reader takes out of it."""

    gets = 0
    items = 0

    def get(self, key: Key, *, now: float) -> Item | None:
        self.gets += 1
        return super().get(key, now=now)

    def query(self, partition: str, prefix: str = "", *, now: float, limit: int = 1000) -> Any:
        found = super().query(partition, prefix, now=now, limit=limit)
        self.items += len(found) if partition.startswith("audit#") else 0
        return found


@pytest.fixture
def store() -> Iterator[Counting]:
    opened = Counting()
    yield opened
    opened.close()


def writer(n: int, start: float = NOW) -> str:
    return new_writer_id(start, lambda length: n.to_bytes(length, "big"))


def open_audit(store: MemoryStore, n: int = 1, start: float = NOW) -> Audit:
    return Audit(store, writer(n, start), signer=SIGNER)


def ats(audit: Audit, **wanted: Any) -> list[int]:
    return [record["at"] - NOW for record in audit.read(NOW, **wanted)]


def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten to a page, as a thousand are otherwise."""
    monkeypatch.setattr(audit_chain, "PAGE", 10)
    query = MemoryStore.query

    def wider(
        self: MemoryStore, partition: str, prefix: str = "", *, now: float, limit: int = 1000
    ) -> list[Item]:
        if not partition.startswith("audit#"):
            return list(query(self, partition, prefix, now=now, limit=limit))
        assert len(prefix) == 17
        first = int(prefix) * 10
        items = query(self, partition, now=now)
        return [
            item for item in items if item.key.sort.isdigit() and first <= int(item.key.sort) < first + 10
        ]

    monkeypatch.setattr(MemoryStore, "query", wider)


def test_all_writers_in_order_of_time(store: Counting) -> None:
    audits = [open_audit(store, n) for n in range(2)]
    for n in range(6):
        audits[n % 2].append(GRANTED, now=NOW + n)
    assert ats(audits[0]) == [0, 1, 2, 3, 4, 5]
    assert ats(audits[0], newest_first=True) == [5, 4, 3, 2, 1, 0]


def test_every_filter(store: Counting) -> None:
    audit = open_audit(store)
    issuance = new_issuance(NOW, lambda length: b"\xab" * length)
    audit.append({**GRANTED, "issuance": issuance}, now=NOW)
    audit.append({"event": "issued", "issuance": issuance, "access_key_id": "ASIA1"}, now=NOW + 1)
    audit.append({**GRANTED, "user": "bob-1", "user_key": "k2", "role": "prod"}, now=NOW + 2)
    audit.append(
        {"event": "invited", "issuer": "https://idp.example.com", "subject": "s|1", "administrator": "root"},
        now=NOW + 3,
    )
    assert ats(audit) == [0, 1, 2, 3]
    assert ats(audit, starts=True) == [0, 0, 1, 2, 3]
    assert ats(audit, event="started") == [0]
    assert ats(audit, user=GRANTED["user"]) == [0]
    assert ats(audit, user=KEY) == ats(audit, user="https://idp.example.com|s|1") == [0, 3]
    another_day = f"ada.lovelace-{KEY[:16]}"  # a person may have a hand in the readable part
    audit.append({**GRANTED, "user": another_day}, now=NOW + 4)
    assert ats(audit, user=f"ada-{KEY[:16]}") == ats(audit, user=another_day) == [0, 3, 4]
    assert ats(audit, user=f"ada-{KEY[1:17]}") == ats(audit, user=KEY[:16]) == []
    assert ats(audit, user="nobody") == ats(audit, user="https://idp.example.com|s") == []
    assert ats(audit, role="prod") == [2]
    assert ats(audit, issuance=issuance) == ats(audit, issuance=issuance[-8:]) == [0, 1]
    assert ats(audit, issuance=issuance, event="issued") == [1]
    assert ats(audit, issuance=issuance[-7:]) == ats(audit, issuance="0" * 32) == []
    assert ats(audit, access_key_id="ASIA1") == [1]
    assert ats(audit, since=NOW + 1) == [1, 2, 3, 4]
    assert ats(audit, since=NOW + 1, until=NOW + 2) == [1]


@given(
    chains=st.lists(
        st.tuples(st.integers(0, 30), st.lists(st.integers(0, 9), min_size=1, max_size=8)), max_size=5
    ),
    low=st.integers(-1, 60) | st.none(),
    high=st.integers(-1, 60) | st.none(),
)
def test_what_is_read_is_what_a_look_at_everything_finds(
    chains: list[tuple[int, list[int]]], low: int | None, high: int | None
) -> None:
    store = MemoryStore()
    all_: list[Mapping[str, Any]] = []
    for n, (start, steps) in enumerate(chains):
        audit, at = open_audit(store, n, NOW + start), NOW + start
        for step in steps:
            at += step
            audit.append(GRANTED, now=at)
    for n, (start, _) in enumerate(chains):
        items = store.query(f"audit#{writer(n, NOW + start)}", "0", now=NOW)
        all_.extend(item.value for item in items)
    since, until = (None if bound is None else NOW + bound for bound in (low, high))
    wanted = sorted(
        (record["at"], record["writer"], record["seq"])
        for record in all_
        if (since is None or record["at"] >= since) and (until is None or record["at"] < until)
    )
    reader = open_audit(store, 99)
    read = [(r["at"], r["writer"], r["seq"]) for r in reader.read(NOW, since=since, until=until, starts=True)]
    assert read == wanted
    back = [*reader.read(NOW, since=since, until=until, starts=True, newest_first=True)]
    assert [record["at"] for record in back] == [at for at, _, _ in reversed(wanted)]
    assert sorted((r["at"], r["writer"], r["seq"]) for r in back) == wanted


def test_more_writers_and_records_than_a_page(store: Counting) -> None:
    writers = [new_writer_id(NOW, n.to_bytes(2, "big").ljust) for n in range(1005)]
    for one in writers[1:]:
        store.apply(
            [
                Put(key=Key("audit", one), value={"at": NOW}, expected=0),
                Put(key=head_key(one), value={"seq": 1, "hash": "", "at": NOW}, expected=0),
                Put(key=record_key(one, 1), value={"event": "granted", "at": NOW, "writer": one}, expected=0),
            ],
            now=NOW,
        )
    first = Audit(store, writers[0], signer=SIGNER)
    for _ in range(2001):
        first.append(GRANTED, now=NOW)
    assert len(list(first.read(NOW))) == 1004 + 2001
    assert len(list(first.read(NOW, newest_first=True))) == 1004 + 2001
    newest = [*audit_chain.writers(store, NOW, newest_first=True)]
    assert newest == sorted(writers, reverse=True)


class TestAnyLength:
    """What is not asked for is not read."""

    @pytest.fixture
    def long(self, store: Counting, monkeypatch: pytest.MonkeyPatch) -> Audit:
        small_pages(monkeypatch)
        audit = open_audit(store)
        for n in range(300):
            audit.append({**GRANTED, "issuance": self.issuance(n)}, now=NOW + n * 60)
        for n in range(2, 22):
            open_audit(store, n, NOW + n * 60).append(GRANTED, now=NOW + n * 60)
        store.gets = store.items = 0
        return audit

    def issuance(self, n: int) -> str:
        return new_issuance(NOW + n * 60, lambda length: n.to_bytes(length, "big"))

    def test_a_window_is_found_by_halving(self, store: Counting, long: Audit) -> None:
        assert ats(long, since=NOW + 200 * 60, until=NOW + 203 * 60) == [12000, 12060, 12120]
        assert store.items <= 20
        assert store.gets <= 21 + 10 + 10  # a head per chain, and one chain that is halved

    def test_newest_first_too(self, store: Counting, long: Audit) -> None:
        window = {"since": NOW + 200 * 60, "until": NOW + 203 * 60}
        assert ats(long, newest_first=True, **window) == [12120, 12060, 12000]
        assert store.items <= 20

    @pytest.mark.parametrize("newest_first", [False, True])
    def test_so_is_an_issuance(self, store: Counting, long: Audit, newest_first: bool) -> None:
        assert ats(long, issuance=self.issuance(150), newest_first=newest_first) == [9000]
        assert store.items <= 50  # 21 minutes hold 21 records

    def test_the_newest_come_first_from_the_end(self, store: Counting, long: Audit) -> None:
        newest = long.read(NOW, newest_first=True)
        assert next(newest)["at"] == NOW + 299 * 60
        assert store.items <= 20

    def test_later_writers_are_left_out(self, store: Counting, long: Audit) -> None:
        assert ats(long, until=NOW + 60) == [0]
        assert store.gets <= 1 + 3

    def test_a_chain_is_opened_when_its_time_has_come(self, store: Counting, long: Audit) -> None:
        stream = long.read(NOW)
        next(stream)
        assert store.items <= 10 + 1


class TestDamage:
    """``verify`` says what is wrong; a reader shows what there is, and comes to its end."""

    @pytest.fixture
    def three(self, store: Counting) -> Audit:
        audit = open_audit(store)
        for n in range(3):
            audit.append(GRANTED, now=NOW + n)
        return audit

    @pytest.mark.parametrize("newest_first", [False, True])
    @pytest.mark.parametrize("head", [None, {}, {"seq": "x"}, {"seq": 10**18, "hash": "", "at": NOW + 2}])
    def test_a_spoilt_head(
        self, store: Counting, three: Audit, head: dict[str, Any] | None, newest_first: bool
    ) -> None:
        key = head_key(writer(1))
        store.apply(
            [Delete(key=key, expected=None) if head is None else Put(key=key, value=head, expected=None)],
            now=NOW,
        )
        assert len(ats(three, newest_first=newest_first)) == 3
        assert len(ats(three, newest_first=newest_first, since=NOW + 1)) == 2

    @pytest.mark.parametrize("newest_first", [False, True])
    @pytest.mark.parametrize("value", [{}, {"at": "x"}, {"at": None, "seq": [], "writer": {}}])
    def test_a_spoilt_record(
        self, store: Counting, three: Audit, value: dict[str, Any], newest_first: bool
    ) -> None:
        store.apply([Put(key=record_key(writer(1), 3), value=value, expected=None)], now=NOW)
        read = list(three.read(NOW, since=NOW, newest_first=newest_first))
        assert len(read) == 3
        assert value in read

    def test_a_chain_whose_name_is_none(self, store: Counting, three: Audit) -> None:
        store.apply([Put(key=Key("audit", "zz"), value={}, expected=0)], now=NOW)
        assert len(ats(three)) == 3

    def test_a_gap_does_not_hide_what_follows(self, store: Counting, three: Audit) -> None:
        assert first_since(store, writer(1), NOW + 2, NOW) == 4
        store.apply([Delete(key=record_key(writer(1), 2), expected=None)], now=NOW)
        assert ats(three, since=NOW + 2) == [2]
