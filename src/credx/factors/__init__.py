"""The second factor, as the person meets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fido2.ctap import CtapDevice

    from credx.model import Secret

    Devices: TypeAlias = Callable[[], Sequence[CtapDevice]]
    """The security keys that are plugged in."""

    TotpCode: TypeAlias = Callable[[], Secret | None]
    """Answers a code without a terminal (a password manager, the sandbox); None means: ask the person."""
