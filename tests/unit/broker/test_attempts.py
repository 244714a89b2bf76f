"""What is counted of a person's codes: how long they rest, and whose count ends with what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.memory_store import MemoryStore

from credx.broker import attempts
from credx.broker.attempts import PERSON, Tally
from credx.broker.stores import Key, Put, StoreUnavailableError
from credx.errors import Refusal

WHO = "ab" * 32
NOW = 1_800_000_000
HOUR = 3600


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def failures(store: MemoryStore) -> dict[str, int]:
    return {n: t.failures for n, t in attempts.load(store, WHO, now=NOW).of.items()}


def test_a_code_counts_for_every_app_and_for_the_person(store: MemoryStore) -> None:
    assert attempts.count(store, WHO, ["one", "two"], now=NOW) == ["one", "two"]
    assert failures(store) == {PERSON: 1, "one": 1, "two": 1}
    attempts.take_back(store, WHO, ["one", "two"], now=NOW)
    assert failures(store) == {}
    attempts.take_back(store, WHO, ["one"], now=NOW)
    assert failures(store) == {}


def test_a_right_code_ends_the_count_of_its_app_and_the_person_alone(store: MemoryStore) -> None:
    for _ in range(2):
        attempts.count(store, WHO, ["one", "two"], now=NOW - 1)
    attempts.count(store, WHO, ["one", "two"], now=NOW)
    store.apply([attempts.passed(store, WHO, "one", now=NOW)], now=NOW)
    assert failures(store) == {"two": 2}  # the right code of the one was no guess at the other
    store.apply([attempts.passed(store, WHO, "two", now=NOW)], now=NOW)
    assert failures(store) == {}
    store.apply([attempts.passed(store, WHO, "two", now=NOW)], now=NOW)
    assert failures(store) == {}


def test_an_app_that_is_guessed_at_between_the_right_codes_of_another_locks_alone(store: MemoryStore) -> None:
    now, looked_at = NOW, 0
    for _ in range(200):
        now += HOUR
        looked_at += "spare" in attempts.count(store, WHO, ["daily", "spare"], now=now)
        attempts.count(store, WHO, ["daily"], now=now + 1)
        store.apply([attempts.passed(store, WHO, "daily", now=now + 1)], now=now)
    assert looked_at == attempts.MOST == 100
    assert attempts.count(store, WHO, ["daily", "spare"], now=now + 365 * 24 * HOUR) == ["daily"]
    with pytest.raises(Refusal, match="insufficient") as caught:
        attempts.count(store, WHO, ["spare"], now=now + 365 * 24 * HOUR)
    assert "administrator" in caught.value.public
    store.apply([attempts.cleared(WHO)], now=now)
    assert attempts.count(store, WHO, ["spare"], now=now) == ["spare"]


def test_nothing_is_counted_while_codes_rest(store: MemoryStore) -> None:
    for _ in range(attempts.FREE):
        attempts.count(store, WHO, ["one"], now=NOW)
    for after in (0, 29):
        with pytest.raises(Refusal) as caught:
            attempts.count(store, WHO, ["one"], now=NOW + after)
        assert f"{30 - after} seconds" in caught.value.public
    assert failures(store) == {PERSON: 5, "one": 5}
    with pytest.raises(Refusal):
        attempts.refuse_if_locked(store, WHO, ["one"], now=NOW)
    attempts.count(store, WHO, ["one"], now=NOW + 30)


def test_a_right_code_of_one_app_lets_no_other_rest(store: MemoryStore) -> None:
    for _ in range(attempts.FREE):
        attempts.count(store, WHO, ["one", "two"], now=NOW)
    attempts.count(store, WHO, ["one", "two"], now=NOW + 30)
    store.apply([attempts.passed(store, WHO, "one", now=NOW + 30)], now=NOW + 30)
    assert attempts.count(store, WHO, ["one", "two"], now=NOW + 30) == ["one", "two"]


def test_another_app_for_each_guess_gives_no_more_of_them(store: MemoryStore) -> None:
    """Apps can come and go between guesses: what the person has guessed in a row stays."""
    for number in range(attempts.FREE):
        attempts.count(store, WHO, [f"app{number}"], now=NOW)
    with pytest.raises(Refusal):
        attempts.count(store, WHO, ["another"], now=NOW)
    with pytest.raises(Refusal):
        attempts.refuse_if_locked(store, WHO, ["another"], now=NOW)


def test_no_more_than_a_hundred_in_a_row_at_the_pace_of_the_most_patient(store: MemoryStore) -> None:
    now, looked_at = NOW, 0
    for _ in range(150):
        now += 24 * HOUR
        try:
            attempts.count(store, WHO, ["one"], now=now)
        except Refusal:
            continue
        looked_at += 1
    assert looked_at == 100


@pytest.mark.parametrize("junk", [{"one": 1}, {"one": "x"}, {"one": [1]}, {"one": [1, None]}, {"one": None}])
def test_a_count_that_credx_did_not_write_lets_nobody_guess(
    store: MemoryStore, junk: dict[str, object]
) -> None:
    key = Key(f"user#{WHO}", "attempts")
    store.apply([Put(key=key, value=junk, expected=None)], now=NOW)
    with pytest.raises(StoreUnavailableError, match="malformed"):
        attempts.count(store, WHO, ["one"], now=NOW)


@given(st.integers(0, 150), st.integers(0, 10**6))
def test_more_failures_never_rest_for_less(failures: int, passed: int) -> None:
    fewer, more = Tally(failures, NOW), Tally(failures + 1, NOW)
    assert fewer.rest(NOW + passed) <= more.rest(NOW + passed)


def test_a_count_of_a_clock_that_was_fast_lets_nobody_rest_but_counts(store: MemoryStore) -> None:
    for _ in range(attempts.FREE):
        attempts.count(store, WHO, ["one"], now=NOW + 25 * HOUR)
    assert attempts.count(store, WHO, ["one"], now=NOW) == ["one"]
    assert failures(store)[PERSON] == 6
    with pytest.raises(Refusal):
        attempts.count(store, WHO, ["one"], now=NOW)
    assert Tally(attempts.MOST, NOW + 25 * HOUR).rest(NOW) == float("inf")
