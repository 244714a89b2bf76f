from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credx.broker.seal import MAX_PLAINTEXT, Sealer, SealError

SEALER = Sealer(bytes(range(32)))


@settings(deadline=None)
@given(st.binary(max_size=200), st.text(min_size=1, max_size=50).filter(str.isprintable))
def test_what_is_sealed_opens_in_its_context_alone(plaintext: bytes, context: str) -> None:
    sealed = SEALER.seal(plaintext, context)
    assert SEALER.open_(sealed, context) == plaintext
    with pytest.raises(SealError):
        SEALER.open_(sealed, context + "x")
    with pytest.raises(SealError):
        Sealer(bytes(32)).open_(sealed, context)


@settings(deadline=None)
@given(st.data())
def test_one_changed_character_and_it_does_not_open(data: st.DataObject) -> None:
    sealed = SEALER.seal(b"twenty bytes of seed", "totp/a/1")
    at = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.sampled_from("ABCXYZabcxyz019-_.é\x00=").filter(lambda c: c != sealed[at]))
    changed = sealed[:at] + other + sealed[at + 1 :]
    try:
        opened = SEALER.open_(changed, "totp/a/1")
    except SealError:
        return
    # the unused low bits of the last base64 digit carry nothing
    assert (opened, at) == (b"twenty bytes of seed", len(sealed) - 1)


@pytest.mark.parametrize(
    "sealed", ["", "v1.", "v2.AAAA", "v1.AAAA", "v1.====", "v1." + "A" * 38, "v1.\ud800"]
)
def test_garbage_does_not_open(sealed: str) -> None:
    with pytest.raises(SealError):
        SEALER.open_(sealed, "c")


def test_two_seals_of_one_value_differ() -> None:
    assert SEALER.seal(b"x", "c") != SEALER.seal(b"x", "c")


def test_a_known_answer_keeps_the_format() -> None:
    fixed = Sealer(bytes(32), bytes)
    assert fixed.seal(b"seed", "totp/u/f") == KNOWN


KNOWN = "v1.AAAAAAAAAAAAAAAAvcIlWQyFv8HUgsouB9t10ylJ4uE"


def test_no_context_or_too_much_is_a_fault_of_the_program() -> None:
    with pytest.raises(ValueError):
        SEALER.seal(b"x", "")
    with pytest.raises(ValueError):
        SEALER.seal(b"x" * (MAX_PLAINTEXT + 1), "c")
    with pytest.raises(ValueError):
        Sealer(bytes(31))


def test_the_key_stays(tmp_path: Path) -> None:
    sealed = Sealer.open(tmp_path / "seal.key").seal(b"seed", "c")
    assert Sealer.open(tmp_path / "seal.key").open_(sealed, "c") == b"seed"
