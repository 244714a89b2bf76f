from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.errors import FactorError
from credx.factors.totp import ask_code


def test_surrounding_space_is_dropped(ui: Any) -> None:
    ui.answers = [" 123456\n"]
    assert ask_code(ui, "code").reveal() == "123456"
    assert ui.asked == ["code: "]


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "12345",
        "1234567",
        "12 3456",
        "١٢٣٤٥٦",
        "\uff11\uff12\uff13\uff14\uff15\uff16",
        "12345a",
        "123\u200b456",
    ],
)
def test_what_is_not_six_ascii_digits_is_asked_again(ui: Any, typed: str) -> None:
    ui.answers = [typed, "123456"]
    assert ask_code(ui, "code").reveal() == "123456"
    assert ui.notes == ["a code is six digits"]


def test_three_tries_and_no_more(ui: Any) -> None:
    ui.answers = ["x", "y", "z", "123456"]
    with pytest.raises(FactorError, match="no code of six digits"):
        ask_code(ui, "code")
    assert ui.answers == ["123456"]


def test_nobody_is_asked_without_a_terminal(ui: Any) -> None:
    ui.interactive = False
    with pytest.raises(FactorError, match="would have asked for the code for dev"):
        ask_code(ui, "code for dev")
    assert ui.asked == []


@given(st.text(max_size=8))
def test_a_code_is_always_six_ascii_digits(typed: str) -> None:
    class UI:
        interactive = True

        def note(self, text: str) -> None: ...

        def prompt(self, text: str) -> str:
            return typed

    try:
        code = ask_code(UI(), "code").reveal()
    except FactorError:
        return
    assert len(code) == 6
    assert code.isascii()
    assert code.isdigit()
