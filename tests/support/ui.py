"""The person of the tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from credx.model import Secret


@dataclass
class FakeUI:
    """``credx.ui.UI``: answers from ``answers``, and whoever asks when there is none fails the test."""

    interactive: bool = True
    notes: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    def patience(self, limit: float) -> float:
        return limit

    def note(self, text: str) -> None:
        self.notes.append(text)

    def prompt(self, text: str) -> str:
        self.asked.append(text)
        assert self.answers, f"nobody expected to be asked: {text}"
        return self.answers.pop(0)

    def prompt_secret(self, text: str) -> Secret:
        return Secret(self.prompt(text))
