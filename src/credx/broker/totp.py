"""Codes of an authenticator app: RFC 6238 with a memory.

``pyotp`` computes the codes. What it leaves open is closed here: a code is six ASCII digits (it folds other
digits), and a time step is accepted once (it keeps none). Guesses are counted in ``attempts``.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import pyotp

from credx.errors import Refusal
from credx.model import Secret
from credx.protocol import OTP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.broker.handles import Rng
    from credx.broker.seal import Sealer

SECRET_BYTES: Final = 20  # RFC 4226 4, R6: 160 bits
WINDOW: Final = 1  # RFC 6238 5.2: one step of delay; one step ahead for a clock that is fast


def new_secret(rng: Rng) -> Secret:
    """Base32, as authenticator apps take it."""
    return Secret(base64.b32encode(rng(SECRET_BYTES)).decode("ascii"))


def sealed(secret: Secret, sealer: Sealer, *, user_key: str, factor_id: str) -> str:
    """The secret as the store keeps it: it opens for this factor of this person alone."""
    return sealer.seal(secret.reveal().encode("ascii"), _context(user_key, factor_id))


def opened(text: str, sealer: Sealer, *, user_key: str, factor_id: str) -> Secret:
    """The secret behind ``sealed``. Raises ``SealError``."""
    return Secret(sealer.open_(text, _context(user_key, factor_id)).decode("ascii"))


def _context(user_key: str, factor_id: str) -> str:
    return f"totp/{user_key}/{factor_id}"


def uri(secret: Secret, *, account: str, issuer: str) -> Secret:
    """``otpauth://`` for a QR code (Key URI Format)."""
    return Secret(pyotp.TOTP(secret.reveal()).provisioning_uri(name=account, issuer_name=issuer))


def matched_step(secret: Secret, otp: Secret, *, now: float) -> int | None:
    """The time step that a code belongs to, or None when it is of no step that is near enough."""
    if not OTP.fullmatch(otp.reveal()):  # pyotp folds other digits: never rely on the caller (CVE-2025-6014)
        return None
    try:
        return pyotp.TOTP(secret.reveal()).verify_and_get_timecode(
            otp.reveal(), for_time=int(now), valid_window=WINDOW
        )
    except pyotp.OTPVerificationError:
        return None


def refuse_if_used(step: int, last_step: int) -> None:
    """Only a later step than any before is good. Raises ``Refusal``."""
    if step <= last_step:
        raise Refusal(
            "insufficient_authorization",
            "this code was already used: wait for the next one",
            "time step used before",
        )


def advanced(material: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The material after ``step`` was used. Raises ``Refusal`` when it was used already."""
    refuse_if_used(step, material["last_step"])
    return dict(material) | {"last_step": step}
