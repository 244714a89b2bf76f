"""One suite over every backend of ``Store``."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from support.dynamo import Dynamo, set_credentials
from support.memory_store import MemoryStore

from credx.broker.stores import (
    Check,
    ConflictError,
    Delete,
    Item,
    Key,
    Put,
    Store,
    StoreUnavailableError,
    Write,
)
from credx.broker.stores.rules import MAX_VALUE, MAX_WRITES
from credx.broker.stores.sqlite import SqliteStore
from credx.model import Secret

NOW = 1_800_000_000.0
A, B = Key("user#a", "profile"), Key("user#a", "factor#1")


@pytest.fixture(scope="module")
def dynamo() -> Iterator[Dynamo]:
    with Dynamo() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    set_credentials(monkeypatch)
    make: dict[str, Callable[[], Store]] = {
        "memory": MemoryStore,
        "sqlite": lambda: SqliteStore(tmp_path / "store.db"),
        "dynamodb": dynamo.new,
    }
    opened = make[request.param]()
    yield opened
    opened.close()


def put(
    key: Key,
    value: dict[str, Any] | None = None,
    *,
    expected: int | None = None,
    expires_at: int | None = None,
) -> Put:
    return Put(key=key, value=value or {"v": 1}, expected=expected, expires_at=expires_at)


def got(store: Store, key: Key, now: float = NOW) -> Item:
    item = store.get(key, now=now)
    assert item is not None
    return item


def test_what_was_put_is_got(store: Store) -> None:
    value = {"text": "é\u202e\ud800\n", "n": 2**53, "list": [1, None, True], "deep": {"x": 1.5}}
    store.apply([put(A, value, expected=0, expires_at=int(NOW) + 5)], now=NOW)
    item = got(store, A)
    assert item == Item(key=A, value=value, version=item.version, expires_at=int(NOW) + 5)
    assert item.version >= 1


def test_nothing_is_none(store: Store) -> None:
    assert store.get(A, now=NOW) is None
    assert list(store.query("user#a", now=NOW)) == []


def test_a_later_change_of_the_callers_mapping_changes_nothing(store: Store) -> None:
    value = {"list": [1]}
    store.apply([put(A, value)], now=NOW)
    value["list"].append(2)
    got(store, A).value["list"].append(3)
    assert got(store, A).value == {"list": [1]}


def test_query_is_one_partition_by_prefix_in_order_and_limited(store: Store) -> None:
    keys = ["b#2", "b#10", "b", "a#1", "b~", "c#1", "b#1"]
    store.apply([put(Key("p", sort)) for sort in keys], now=NOW)
    store.apply([put(Key("p2", "b#0")), put(Key("o", "b#0"))], now=NOW)
    assert [item.key.sort for item in store.query("p", "b#", now=NOW)] == ["b#1", "b#10", "b#2"]
    assert [item.key.sort for item in store.query("p", "b#", now=NOW, limit=2)] == ["b#1", "b#10"]
    assert [item.key.sort for item in store.query("p", now=NOW)] == sorted(keys)


@pytest.mark.parametrize("mark", ["%", "_", "*", "?", "["])
def test_a_prefix_is_no_pattern(store: Store, mark: str) -> None:
    store.apply([put(Key("p", "abc")), put(Key("p", mark + "bc"))], now=NOW)
    assert [item.key.sort for item in store.query("p", mark, now=NOW)] == [mark + "bc"]


class TestExpectations:
    def test_zero_means_must_not_exist(self, store: Store) -> None:
        store.apply([put(A, expected=0)], now=NOW)
        with pytest.raises(ConflictError):
            store.apply([put(A, {"v": 2}, expected=0)], now=NOW)
        assert got(store, A).value == {"v": 1}

    def test_a_version_must_still_be_that_one(self, store: Store) -> None:
        store.apply([put(A)], now=NOW)
        read = got(store, A)
        store.apply([put(A, {"v": 2}, expected=read.version)], now=NOW)
        for write in (
            put(A, expected=read.version),
            Delete(key=A, expected=read.version),
            Check(key=A, expected=read.version),
        ):
            with pytest.raises(ConflictError):
                store.apply([write], now=NOW)
        assert got(store, A).value == {"v": 2}

    def test_a_check_for_nothing_meets_something(self, store: Store) -> None:
        store.apply([put(A)], now=NOW)
        with pytest.raises(ConflictError):
            store.apply([Check(key=A, expected=0), put(B)], now=NOW)
        assert store.get(B, now=NOW) is None

    def test_none_means_either(self, store: Store) -> None:
        store.apply([Delete(key=A, expected=None)], now=NOW)
        store.apply([put(A)], now=NOW)
        store.apply([put(A, {"v": 2})], now=NOW)
        store.apply([Delete(key=A, expected=None)], now=NOW)
        assert store.get(A, now=NOW) is None

    def test_one_conflict_and_nothing_is_written(self, store: Store) -> None:
        store.apply([put(A)], now=NOW)
        writes: list[Write] = [put(B), Delete(key=A, expected=None), Check(key=Key("p", "s"), expected=7)]
        with pytest.raises(ConflictError):
            store.apply(writes, now=NOW)
        assert store.get(A, now=NOW) is not None
        assert store.get(B, now=NOW) is None

    def test_a_check_writes_nothing(self, store: Store) -> None:
        store.apply([put(A)], now=NOW)
        before = got(store, A)
        store.apply(
            [Check(key=A, expected=before.version), Check(key=B, expected=0), put(Key("p", "s"))], now=NOW
        )
        assert store.get(A, now=NOW) == before
        assert store.get(B, now=NOW) is None

    @pytest.mark.parametrize("how", ["delete", "expire", "replace"])
    def test_a_version_never_comes_back(self, store: Store, how: str) -> None:
        """ABA: a stale ``expected`` must not meet a new item of the same name."""
        store.apply([put(A, expires_at=int(NOW) + 1)], now=NOW)
        stale = got(store, A).version
        seen = {stale}
        later = NOW
        for _ in range(5):
            if how == "delete":
                store.apply([Delete(key=A, expected=None)], now=later)
            if how == "expire":
                later += 10_000  # past any grace: the sweep has removed it
                store.apply([put(B)], now=later)
            store.apply([put(A, expires_at=int(later) + 1)], now=later)
            version = got(store, A, later).version
            assert version not in seen
            seen.add(version)
            with pytest.raises(ConflictError):
                store.apply([Delete(key=A, expected=stale)], now=later)


class TestExpiry:
    def test_an_expired_item_is_absent_at_its_very_second(self, store: Store) -> None:
        store.apply([put(A, expires_at=int(NOW) + 10)], now=NOW)
        version = got(store, A, NOW + 9.99).version
        assert store.get(A, now=NOW + 10) is None
        assert list(store.query("user#a", now=NOW + 10)) == []
        with pytest.raises(ConflictError):
            store.apply([Check(key=A, expected=version)], now=NOW + 10)
        with pytest.raises(ConflictError):
            store.apply([Delete(key=A, expected=version)], now=NOW + 10)

    def test_zero_holds_on_an_expired_item(self, store: Store) -> None:
        store.apply([put(A, expires_at=int(NOW) + 10)], now=NOW)
        store.apply([Check(key=A, expected=0)], now=NOW + 10)
        store.apply([put(A, {"v": 2}, expected=0)], now=NOW + 10)
        assert got(store, A, NOW + 10).value == {"v": 2}

    def test_expired_items_do_not_count_against_the_limit(self, store: Store) -> None:
        store.apply([put(Key("p", f"{n}"), expires_at=int(NOW) + n) for n in range(5)], now=NOW - 10)
        assert [item.key.sort for item in store.query("p", now=NOW + 2, limit=2)] == ["3", "4"]

    def test_more_than_a_page_of_expired_items_hides_no_live_one(self, store: Store) -> None:
        for part in range(3):
            dead = [put(Key("p", f"a{part}{n:03d}"), expires_at=int(NOW)) for n in range(90)]
            store.apply(dead, now=NOW - 1)
        store.apply([put(Key("p", "z"))], now=NOW)
        assert [item.key.sort for item in store.query("p", now=NOW, limit=20)] == ["z"]


class TestFaultsOfTheProgram:
    @pytest.mark.parametrize(
        "writes",
        [
            [],
            [put(Key("p", str(n))) for n in range(MAX_WRITES + 1)],
            [put(A), Delete(key=A, expected=None)],
            [Delete(key=A, expected=0)],
            [put(A, expected=-1)],
            [put(A, expires_at=2**64)],
            [put(Key("", "s"))],
            [put(Key("p", ""))],
            [put(Key("p", "s\x7f"))],
            [put(Key("p", "s\x00"))],
            [put(Key("p", "é"))],
            [put(Key("p", "s" * 513))],
            [put(A, {"v": float("nan")})],
            [put(A, {"v": "x" * MAX_VALUE})],
        ],
    )
    def test_are_refused(self, store: Store, writes: list[Write]) -> None:
        with pytest.raises(ValueError):
            store.apply(writes, now=NOW)

    def test_a_secret_cannot_be_stored(self, store: Store) -> None:
        with pytest.raises(TypeError):
            store.apply([put(A, {"otp": Secret("123456")})], now=NOW)

    def test_a_key_to_read_is_held_to_the_same_bounds(self, store: Store) -> None:
        with pytest.raises(ValueError):
            store.get(Key("p", "é"), now=NOW)
        with pytest.raises(ValueError):
            store.query("p", "\x7f", now=NOW)


def test_a_closed_store_is_unavailable(store: Store) -> None:
    store.close()
    with pytest.raises(StoreUnavailableError):
        store.get(A, now=NOW)
    with pytest.raises(StoreUnavailableError):
        store.query("p", now=NOW)
    with pytest.raises(StoreUnavailableError):
        store.apply([put(A)], now=NOW)


@pytest.mark.parametrize("one_use", ["claim", "take"])
def test_of_64_threads_exactly_one_wins(store: Store, one_use: str) -> None:
    """``claim``: a used-marker that must not exist. ``take``: an item that must still be as it was read."""
    store.apply([put(A)], now=NOW)
    version = got(store, A).version
    start = threading.Barrier(64)

    def take(n: int) -> bool:
        own = put(Key("winner", str(n)))
        start.wait()
        try:
            if one_use == "claim":
                store.apply([put(B, {"by": n}, expected=0), own], now=NOW)
            else:
                store.apply([Delete(key=A, expected=version), own], now=NOW)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(64) as pool:
        won = sum(pool.map(take, range(64)))
    assert won == 1
    assert len(store.query("winner", now=NOW)) == 1


KEYS = st.builds(Key, st.sampled_from(["p", "q"]), st.sampled_from(["a", "a#1", "a#2", "b"]))
PICKS = st.sampled_from(["none", "zero", "now", "old"])


class SameAsMemory(RuleBasedStateMachine):
    """Whatever is asked of a backend, memory gives the same answer."""

    other: Store  # with what an earlier run left in it

    @initialize()
    def open(self) -> None:
        self.memory, self.now = MemoryStore(), NOW
        for partition in "pq":
            for item in self.other.query(partition, now=0):
                self.other.apply([Delete(key=item.key, expected=None)], now=0)
        self.history: dict[Key, tuple[int, ...]] = {}

    def write(self, pair: int, key: Key, kind: str, pick: str, ttl: int | None) -> Write:
        def version(store: Store) -> int:
            item = store.get(key, now=self.now)
            return item.version if item else 1

        old = self.history.get(key)
        expected = {
            "none": (None, None), "zero": (0, 0), "old": old or (1, 1),
            "now": (version(self.memory), version(self.other)),
        }[pick][pair]  # fmt: skip
        if kind == "put":
            expires_at = None if ttl is None else int(self.now) + ttl
            return Put(key=key, value={"k": list(key), "t": ttl}, expected=expected, expires_at=expires_at)
        if kind == "delete":
            return Delete(key=key, expected=expected or None)
        return Check(key=key, expected=expected or 0)

    @rule(
        asks=st.lists(
            st.tuples(KEYS, st.sampled_from(["put", "delete", "check"]), PICKS, st.none() | st.integers(0, 50)),
            min_size=1, max_size=4, unique_by=lambda ask: ask[0],
        )
    )  # fmt: skip
    def apply(self, asks: list[tuple[Key, str, str, int | None]]) -> None:
        writes = [[self.write(pair, *ask) for ask in asks] for pair in (0, 1)]
        conflicts = []
        for store, batch in zip((self.memory, self.other), writes, strict=True):
            try:
                store.apply(batch, now=self.now)
            except ConflictError:
                conflicts.append(store)
        assert len(conflicts) in (0, 2)
        for key, *_ in asks:
            pair = [store.get(key, now=self.now) for store in (self.memory, self.other)]
            if all(pair):
                self.history.setdefault(key, tuple(item.version for item in pair if item))

    @rule(seconds=st.integers(1, 5000) | st.floats(0.1, 60))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "memory"):
            return
        for partition, prefix, limit in (("p", "", 9), ("p", "a#", 1), ("q", "", 9), ("q", "a", 2)):
            memory, other = (
                [
                    (item.key, item.value, item.expires_at)
                    for item in store.query(partition, prefix, now=self.now, limit=limit)
                ]
                for store in (self.memory, self.other)
            )
            assert memory == other


@pytest.mark.parametrize("store", ["sqlite", "dynamodb"], indirect=True)
def test_a_backend_is_the_same_as_memory(store: Store) -> None:
    examples = 40 if isinstance(store, SqliteStore) else 10  # moto copies its table for every transaction
    machine = type("Machine", (SameAsMemory,), {"other": store})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
