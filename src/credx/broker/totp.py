"""Codes of an authenticator app: RFC 6238 with a memory, and a count of guesses.

``pyotp`` computes the codes. What it leaves open is closed here: a code is six ASCII digits (it folds other
digits), a time step is accepted once (it keeps none), and guesses are counted.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

import pyotp

from credx.broker.stores import ConflictError, Delete, Key, Put
from credx.broker.users import partition
from credx.errors import Refusal
from credx.model import Secret
from credx.protocol import OTP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.broker.audit import Audit
    from credx.broker.handles import Rng
    from credx.broker.seal import Sealer
    from credx.broker.stores import Store

SECRET_BYTES: Final = 20  # RFC 4226 4, R6: 160 bits
WINDOW: Final = 1  # RFC 6238 5.2: one step of delay; one step ahead for a clock that is fast

FREE_FAILURES: Final = 5  # consecutive wrong codes without a wait
FIRST_LOCK: Final = 30  # seconds, doubled with every further wrong code
LONGEST_LOCK: Final = 3600
MAX_FAILURES: Final = 100  # NIST SP 800-63B-4 3.2.2; an administrator has to unlock after that
TRIES: Final = 20  # of one count against others; at most FREE_FAILURES of them can win


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


def advanced(material: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The material after ``step`` was used: only a later step than any before is good.

    Raises:
        Refusal: the step was used already.
    """
    if step <= material["last_step"]:
        raise Refusal(
            "insufficient_authorization",
            "this code was already used: wait for the next one",
            "time step used before",
        )
    return dict(material) | {"last_step": step}


def _counter_key(user_key: str) -> Key:
    # One counter for a person, not one per app: a second app must not double the guesses
    return Key(partition(user_key), "totp")


def count_attempt(store: Store, user_key: str, *, now: float) -> None:
    """Count one attempt, durably, before it is looked at.

    Raises:
        Refusal: locked after too many wrong codes; the attempt must not be looked at.
    """
    key = _counter_key(user_key)
    for _ in range(TRIES):
        item = store.get(key, now=now)
        failures, last = (item.value["failures"], item.value["last"]) if item else (0, 0)
        refuse_if_locked(failures, last, now=now)
        value = {"failures": failures + 1, "last": int(now)}
        try:
            store.apply([Put(key=key, value=value, expected=item.version if item else 0)], now=now)
        except ConflictError:
            continue
        return
    raise Refusal("temporarily_unavailable", "too many attempts at once", "counter contended")


def refuse_if_locked(failures: int, last: int, *, now: float) -> None:
    if failures >= MAX_FAILURES:
        raise Refusal(
            "insufficient_authorization",
            "codes are locked after too many wrong ones: ask an administrator",
            f"locked, {failures} wrong codes",
        )
    if failures >= FREE_FAILURES:
        left = last + min(FIRST_LOCK * 2 ** (failures - FREE_FAILURES), LONGEST_LOCK) - int(now)
        if left > 0:
            raise Refusal(
                "insufficient_authorization",
                f"too many wrong codes: try again in {left} seconds",
                f"locked, {failures} wrong codes",
            )


def refuse_if_now_locked(store: Store, user_key: str, *, now: float) -> None:
    """Tell at once that the last wrong code was one too many. Raises ``Refusal``."""
    item = store.get(_counter_key(user_key), now=now)
    if item is not None:
        refuse_if_locked(item.value["failures"], item.value["last"], now=now)


def forgive_replay(store: Store, user_key: str, *, now: float) -> None:
    """Take one count back: a code that was right but used is no guess (parallel jobs share a step)."""
    key = _counter_key(user_key)
    item = store.get(key, now=now)
    if item is None or not item.value["failures"]:
        return
    value = dict(item.value) | {"failures": item.value["failures"] - 1}
    try:
        store.apply([Put(key=key, value=value, expected=item.version)], now=now)
    except ConflictError:
        return  # another attempt counts at this moment; one count too many does no harm


def cleared(user_key: str) -> Delete:
    """The write that forgets earlier failures, for the commit of a right code."""
    return Delete(key=_counter_key(user_key), expected=None)


def unlock(audit: Audit, user_key: str, *, administrator: str, now: float) -> None:
    """Forget a person's wrong codes, as an administrator. Recorded. Raises ``StoreUnavailableError``."""
    record = {"event": "unlocked", "user_key": user_key, "detail": f"by {administrator}"}
    audit.commit([cleared(user_key)], record, now=now)
