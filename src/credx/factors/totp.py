"""A code from an authenticator app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from credx.errors import FactorError
from credx.model import Secret
from credx.protocol import OTP

if TYPE_CHECKING:
    from credx.ui import UI

TRIES: Final = 3  # mistyped shapes; a well-formed wrong code is counted by the broker


def ask_code(ui: UI, note: str) -> Secret:
    """Ask on the terminal for six ASCII digits.

    Args:
        ui: the person.
        note: what the code is for, such as ``code of 'phone' for prod-ops``.

    Raises:
        FactorError: nobody can be asked, or no well-formed code was typed.
    """
    if not ui.interactive:
        raise FactorError(f"would have asked for the {note}", hint="run the command in a terminal")
    for _ in range(TRIES):
        # only the edges are trimmed: folding anything inside makes two spellings of one code
        # (CVE-2025-6014), and that is the broker's business to refuse
        typed = ui.prompt(f"{note}: ").strip()
        if OTP.fullmatch(typed):
            return Secret(typed)
        ui.note("a code is six digits")
    raise FactorError("no code of six digits was typed", hint="open the authenticator app and try again")
