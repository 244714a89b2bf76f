import os

from hypothesis import given
from hypothesis import strategies as st

from credx.broker.issuance import begun_at, new_issuance
from credx.broker.mint import _ISSUANCE

NOW = 1_800_000_000.125


def test_an_id_says_when_and_sorts_by_it() -> None:
    one, other = new_issuance(NOW, os.urandom), new_issuance(NOW, os.urandom)
    assert one != other
    assert one[:12] == other[:12] < new_issuance(NOW + 0.001, os.urandom)[:12]
    assert begun_at(one) == 1_800_000_000.125


@given(st.floats(0, 2**33), st.binary(min_size=10, max_size=10))
def test_every_id_is_one_that_a_token_takes(now: float, random: bytes) -> None:
    issuance = new_issuance(now, lambda length: random[:length])
    assert len(issuance) == 32
    assert _ISSUANCE.fullmatch(issuance)
    begun = begun_at(issuance)
    assert begun is not None
    assert abs(begun - now) <= 0.001


def test_what_is_no_id_has_no_time() -> None:
    for text in ("", "i-1", "0" * 31, "0" * 33, "G" * 32, "é" * 32):
        assert begun_at(text) is None
