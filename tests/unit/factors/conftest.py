from __future__ import annotations

import pytest

from credx.model import Secret


class FakeUI:
    def __init__(self) -> None:
        self.interactive = True
        self.notes: list[str] = []
        self.asked: list[str] = []
        self.answers: list[str] = []

    def patience(self, limit: float) -> float:
        return limit

    def note(self, text: str) -> None:
        self.notes.append(text)

    def prompt(self, text: str) -> str:
        self.asked.append(text)
        return self.answers.pop(0)

    def prompt_secret(self, text: str) -> Secret:
        return Secret(self.prompt(text))


@pytest.fixture
def ui() -> FakeUI:
    return FakeUI()
