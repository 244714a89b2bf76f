from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.strict import MAX_DEPTH, base64url, json_object


@given(st.binary(min_size=1, max_size=100))
def test_base64url_round_trip(raw: bytes) -> None:
    assert base64url(base64.urlsafe_b64encode(raw).rstrip(b"=").decode()) == raw


@given(st.text(alphabet="AQgwB-_=+/\n é", max_size=12))
def test_every_base64url_that_is_accepted_is_the_only_spelling(text: str) -> None:
    try:
        raw = base64url(text)
    except ValueError:
        return
    assert base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == text


SAFE = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
NUMBERS = st.integers(-(2**63), 2**64) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | SAFE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SAFE, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(SAFE, VALUES, max_size=4), st.booleans())
def test_plain_json_passes_unchanged(value: dict[str, Any], ascii_only: bool) -> None:
    assert json_object(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_a_value_error(raw: bytes) -> None:
    try:
        value = json_object(raw)
    except ValueError:
        return
    assert isinstance(value, dict)


def test_depth_has_an_exact_bound() -> None:
    def nested(levels: int) -> bytes:
        return b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)

    assert json_object(nested(MAX_DEPTH))
    for levels in (MAX_DEPTH + 1, 900, 100_000):
        with pytest.raises(ValueError, match="deep"):
            json_object(nested(levels))


@pytest.mark.parametrize("number", ["1" * 41, "1." + "1" * 40, "-1e999", "1e400"])
def test_numbers_are_bounded(number: str) -> None:
    with pytest.raises(ValueError, match="number"):
        json_object(b'{"a":' + number.encode() + b"}")
    assert math.isfinite(json_object(b'{"a":1.5e300}')["a"])
