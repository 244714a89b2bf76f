"""Prompts and notes on a real pseudo-terminal."""

from __future__ import annotations

import os
import pty
import sys
import threading
import time

import pytest

from credx.cli.terminal import PROCESS_PROMPT_SECONDS, PosixDevice, Terminal, forbids_prompts
from credx.errors import CredxError, FactorError
from credx.model import Secret

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")


class Pty:
    def __init__(self) -> None:
        self.person, self.program = pty.openpty()
        self.notes = ""
        self.seen = ""
        self.terminal = Terminal(
            environ={},
            open_device=lambda: PosixDevice(self.program),
            write_note=self._note,
            notes_visible=lambda: False,
        )

    def _note(self, text: str) -> None:
        self.notes += text

    def type_after(self, question: str, answer: bytes) -> threading.Thread:
        def person() -> None:
            while question not in self.seen:
                self.seen += os.read(self.person, 1000).decode()
            os.write(self.person, answer)

        thread = threading.Thread(target=person, daemon=True)
        thread.start()
        return thread

    def rest(self) -> str:
        os.set_blocking(self.person, False)
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            try:
                self.seen += os.read(self.person, 1000).decode()
            except BlockingIOError:
                time.sleep(0.01)
        return self.seen


def test_a_line_comes_back_and_the_question_is_prefixed() -> None:
    at = Pty()
    thread = at.type_after("name: ", b"blue key\n")
    assert at.terminal.prompt("name") == "blue key"
    thread.join()
    assert "credx: name: " in at.rest()


def test_a_secret_is_not_echoed_and_echo_comes_back() -> None:
    import termios

    at = Pty()
    before = termios.tcgetattr(at.program)
    thread = at.type_after("code: ", b"123456\n")
    assert at.terminal.prompt_secret("code") == Secret("123456")
    thread.join()
    assert "123456" not in at.rest()
    assert termios.tcgetattr(at.program)[3] == before[3]


def test_a_prompt_has_an_end() -> None:
    at = Pty()
    at.terminal.prompt_seconds = 0.1
    with pytest.raises(FactorError, match="no answer"):
        at.terminal.prompt_secret("code")


def test_the_end_of_input_is_an_interruption() -> None:
    at = Pty()
    thread = at.type_after("code: ", b"\x04")
    with pytest.raises(KeyboardInterrupt):
        at.terminal.prompt("code")
    thread.join()


def test_questions_from_outside_carry_no_escapes() -> None:
    at = Pty()
    thread = at.type_after(": ", b"n\n")
    assert at.terminal.confirm("trust \x1b]0;evil\x07") is False
    thread.join()
    assert "\x1b" not in at.rest()


def test_notes_go_to_stderr_and_to_the_terminal_only_for_process() -> None:
    at = Pty()
    at.terminal.note("one")
    at.terminal.mirror_notes = True
    at.terminal.note("two")
    assert at.notes == "credx: one\ncredx: two\n"
    assert "two" in at.rest()
    assert "one" not in at.seen


def test_without_a_terminal_nothing_is_asked() -> None:
    nobody = Terminal(
        environ={}, open_device=lambda: None, write_note=lambda _: None, notes_visible=lambda: True
    )
    assert not nobody.interactive
    with pytest.raises(CredxError, match="no terminal"):
        nobody.prompt("code")
    with pytest.raises(FactorError):
        nobody.show("secret")


@pytest.mark.parametrize(
    ("value", "forbidden"), [("true", True), ("1", True), ("", False), ("false", False), ("0", False)]
)
def test_ci(value: str, forbidden: bool) -> None:
    assert forbids_prompts({"CI": value}) is forbidden
    at = Pty()
    at.terminal._environ = {"CI": value}
    assert at.terminal.interactive is not forbidden


def test_no_input_wins_over_a_terminal() -> None:
    at = Pty()
    at.terminal.allowed = False
    assert not at.terminal.interactive


def test_everything_that_waits_for_a_person_shares_the_time_of_an_impatient_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    ui = Terminal(environ={}, open_device=lambda: None, write_note=lambda _: None, notes_visible=lambda: True)
    assert ui.patience(180.0) == 180.0
    ui.prompt_seconds = PROCESS_PROMPT_SECONDS
    assert ui.patience(180.0) == 50.0
    clock[0] += 45
    assert ui.patience(50.0) == 5.0
    clock[0] += 45
    assert ui.patience(50.0) == 0.0
