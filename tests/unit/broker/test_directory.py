"""Finding people by the names that administrators know, and listing all of them in pages."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.memory_store import MemoryStore

from credx.broker.directory import HEX, everybody, find, name_prefix, walk
from credx.broker.stores import Key, Put
from credx.broker.stores.sqlite import SqliteStore
from credx.broker.users import Profile, directory_key
from credx.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credx.broker.stores import Store

ISSUER = "https://idp.example.com"
NOW = 1_800_000_000.0


def key(subject: str, issuer: str = ISSUER) -> str:
    return hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()


def add(store: Store, subject: str, **more: Any) -> str:
    user_key = key(subject)
    value = {"user": f"{subject}-{user_key[:16]}", "issuer": ISSUER, "subject": subject, "had_factor": True}
    store.apply(Profile({}, 0).changed(user_key, **(value | more)), now=NOW)
    return user_key


@pytest.fixture(params=["memory", "sqlite"])
def store(request: Any, tmp_path: Path) -> Iterator[Store]:
    tmp_path.chmod(0o700)
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "broker.db")
    yield opened
    opened.close()


def test_three_names_of_one_person(store: Store) -> None:
    user_key = add(store, "alice")
    add(store, "bob")
    for name in (f"alice-{user_key[:16]}", user_key, f"{ISSUER}|alice"):
        found = find(store, name, now=NOW)
        assert (found.user_key, found.subject, found.known, found.enrolled) == (
            user_key, "alice", True, True,
        )  # fmt: skip


def test_the_hash_tells_who_and_the_readable_part_may_have_changed(store: Store) -> None:
    user_key = add(store, "alice")
    assert find(store, f"alice.smith@example.com-{user_key[:16]}", now=NOW).user == f"alice-{user_key[:16]}"


@pytest.mark.parametrize(
    "name",
    ["", "alice", "alice-1a2b3c4d", "alice-0123456789ABCDEF", f"{'a' * 39}-0123456789abcdef",
     "alice-0123456789abcdef ", "0123456789abcdef", "-0123456789abcdef", "a" * 63, "A" * 64,
     f"{ISSUER}|", "|alice", f"{ISSUER}|a\0b", f"{ISSUER}|a\u202eb", f"{ISSUER}|\ud800", f"{ISSUER}| alice",
     f"{ISSUER}|alice ", "al\nice-0123456789abcdef"],
)  # fmt: skip
def test_a_name_that_nobody_can_have(store: Store, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(store, name, now=NOW)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["alice-0123456789abcdef", "0" * 64])
def test_a_name_that_nobody_has(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="nobody is known"):
        find(store, name, now=NOW)


def test_whoever_never_came_is_found_by_issuer_and_subject_alone(store: Store) -> None:
    found = find(store, f"{ISSUER}|auth0|5f7c", now=NOW)
    assert (found.issuer, found.subject, found.known) == (ISSUER, "auth0|5f7c", False)
    assert found.user == f"user-{key('auth0|5f7c')[:16]}"


def test_two_people_of_one_shown_hash_are_told_apart_by_key(store: Store) -> None:
    one, two = "a" * 64, "a" * 16 + "b" * 48
    for user_key in (one, two):
        store.apply(Profile({}, 0).changed(user_key, user=f"x-{'a' * 16}"), now=NOW)
    with pytest.raises(UsageError, match="two people"):
        find(store, f"x-{'a' * 16}", now=NOW)
    assert find(store, two, now=NOW).user_key == two


def test_everybody_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("credx.broker.directory.PAGE", 5)
    keys = sorted(add(store, f"s{n}") for n in range(300))
    assert [who.user_key for who in everybody(store, now=NOW)] == keys
    for at in (0, 1, 150, 298, 299):
        assert [who.user_key for who in everybody(store, now=NOW, after=keys[at])] == keys[at + 1 :]
    assert len({directory_key(user_key).partition for user_key in keys}) == len(HEX)


@given(st.sets(st.text("0123456789abcdef", min_size=4, max_size=4), max_size=60),
       st.text("0123456789abcdef", max_size=5), st.integers(2, 8))  # fmt: skip
def test_a_walk_finds_each_once_and_in_order(names: set[str], after: str, page: int) -> None:
    from credx.broker import directory

    store, before = MemoryStore(), directory.PAGE
    for name in names:
        store.apply([Put(key=Key("p", name), value={}, expected=0)], now=NOW)
    directory.PAGE = page  # type: ignore[misc]
    try:
        found = [item.key.sort for item in walk(store, "p", now=NOW, after=after)]
    finally:
        directory.PAGE = before  # type: ignore[misc]
    assert found == sorted(name for name in names if name > after)


def test_a_query_reads_no_more_than_a_page() -> None:
    class Counting(MemoryStore):
        most = 0

        def query(self, partition: str, prefix: str = "", *, now: float, limit: int = 1000) -> Any:
            found = super().query(partition, prefix, now=now, limit=limit)
            self.most = max(self.most, len(found))
            return found

    store = Counting()
    for number in range(1200):
        store.apply([Put(key=Key("p", key(str(number))), value={}, expected=0)], now=NOW)
    assert len(list(walk(store, "p", now=NOW))) == 1200
    assert store.most == 500


def test_the_directory_goes_with_the_profile(world: Any) -> None:
    world.add_key()
    token = world.token(email="alice.smith@example.com")
    key_, step_up = world.add_key(name="two"), None
    (one,) = everybody(world.store, now=world.clock())
    assert one.user == f"alice@example.com-{world.user_key()[:16]}"
    assert (one.issuer, one.subject, one.enrolled, one.disabled) == (ISSUER, "alice", True, False)
    own = world.broker.own_factors
    factor_id = next(f["id"] for f in own.listing(token, "10.0.0.1") if f["name"] == "key")
    step_up = own.remove(token, "10.0.0.1", factor_id)
    assert own.remove(token, "10.0.0.1", factor_id, proof=world.touch(token, key_, step_up)) is None
    (one,) = everybody(world.store, now=world.clock())
    assert one.user == f"alice.smith@example.com-{world.user_key()[:16]}"


def test_a_name_means_a_prefix_without_any_store() -> None:
    user_key = key("alice")
    assert name_prefix(f"alice-{user_key[:16]}") == (user_key[:16], None)
    assert name_prefix(user_key) == (user_key, None)
    assert name_prefix(f"{ISSUER}|alice") == (user_key, (ISSUER, "alice"))
