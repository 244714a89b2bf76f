"""Who is counted as one, and how many are remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.broker import pace
from credx.broker.pace import Pace, neighbourhood


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("2001:db8:1:2::1", "2001:DB8:1:2:0::7", True),
        ("::c000:201", "192.0.2.1", False),
        ("", "nonsense", False),
    ],
)
def test_who_is_one(one: str, other: str, same: bool) -> None:
    assert (neighbourhood(one) == neighbourhood(other)) is same


@given(st.text(max_size=300))
def test_any_text_is_somebody(text: str) -> None:
    hash(neighbourhood(text))
    if isinstance(neighbourhood(text), str):
        assert len(str(neighbourhood(text))) <= 64


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "MAX_PEOPLE", 100)
    buckets = Pace(2, 1)
    for n in range(1000):
        buckets.count(n, now=0)
    assert len(buckets._buckets) == 100


def test_burst_then_rate() -> None:
    buckets = Pace(3, 0.5)
    for _ in range(3):
        assert buckets.allows("a", now=0)
        buckets.count("a", now=0)
    assert not buckets.allows("a", now=0)
    assert buckets.allows("b", now=0)
    assert not buckets.allows("a", now=1.9)
    assert buckets.allows("a", now=2)
    assert not buckets.allows("a", now=-1.9)  # a clock that goes back counts as time, no more
