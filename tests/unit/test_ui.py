from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from credx.ui import SHOWN_LIMIT, clean


@given(st.text(alphabet=st.characters(), max_size=800))
def test_nothing_that_steers_a_terminal_survives(text: str) -> None:
    shown = clean(text)
    assert len(shown) <= SHOWN_LIMIT + 1
    assert not [c for c in shown if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}]
    assert not [
        c
        for c in shown
        if unicodedata.bidirectional(c) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    ]


def test_an_escape_sequence_and_a_bidi_override_are_replaced() -> None:
    assert clean("\x1b]52;c;aGk=\x07 a\u202eb \x9b1m") == "\ufffd]52;c;aGk=\ufffd a\ufffdb \ufffd1m"
    assert clean("grün 漢字") == "grün 漢字"
