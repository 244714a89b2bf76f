"""How the inner rooms talk to a person: one protocol, implemented by ``cli``.

stdout is data and never used here. Prompts go to the controlling terminal, notes to stderr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from credx.model import Secret

# C0, DEL, C1, bidi embeddings, overrides and isolates, line and paragraph separators, zero-width marks
_UNSAFE = {
    *range(0x20),
    0x7F,
    *range(0x80, 0xA0),
    0x061C,
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xFFF9, 0xFFFC),
    *range(0xD800, 0xE000),
    *range(0xE0000, 0xE0080),
}
_CLEAN = dict.fromkeys(_UNSAFE, "\N{REPLACEMENT CHARACTER}")

SHOWN_LIMIT = 500  # characters of a foreign string that reach a screen
SKEW_WORTH_NAMING = 30  # seconds; half of jose.CLOCK_LEEWAY


def clean(text: object, limit: int = SHOWN_LIMIT) -> str:
    """A string from outside, made safe to print: no control, bidi or invisible characters, cut at ``limit``."""
    shown = str(text)[: limit + 1].translate(_CLEAN)
    return shown if len(shown) <= limit else shown[:limit] + "…"


def clock_apart(ahead: float, whose: str, *, worth: int = SKEW_WORTH_NAMING) -> str:
    """``the clock here is 400 seconds ahead of the broker's``; nothing below ``worth`` seconds either way."""
    seconds = round(ahead)
    if abs(seconds) < worth:
        return ""
    return f"the clock here is {abs(seconds)} seconds {'ahead of' if seconds > 0 else 'behind'} {whose}"


class UI(Protocol):
    """What a ceremony may ask of a person.

    ``interactive`` is False without a terminal, with ``--no-input`` and with ``CI=true``; then the two
    prompts raise the error of the room that asked instead of being called.
    """

    @property
    def interactive(self) -> bool: ...

    def patience(self, limit: float) -> float:
        """Seconds that a ceremony may take now: ``limit``, or less where the caller of credx is impatient."""

    def note(self, text: str) -> None:
        """One line on stderr, prefixed ``credx:``."""

    def prompt(self, text: str) -> str:
        """Ask for a line on the terminal, echoed."""

    def prompt_secret(self, text: str) -> Secret:
        """Ask for a line on the terminal, not echoed."""
