"""What a security key's failure means to a person."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from fido2.client import ClientError, PinRequiredError
from fido2.ctap import CtapError

from credx.errors import FactorError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLUG_IN: Final = {
    "linux": "plug it in; Linux needs libfido2's udev rules for it, WSL also `usbipd attach`",
    "win32": "plug it in; on Windows the terminal has to run as administrator to reach it",
}


def explain(causes: Sequence[Exception], seconds: float) -> FactorError:
    """Of several keys' failures the one that helps most."""
    return min((_explained(cause, seconds) for cause in causes), key=lambda ranked: ranked[0])[1]


def _explained(cause: Exception, seconds: float) -> tuple[int, FactorError]:
    """What to tell, and its rank: lower tells more."""
    code = cause.code if isinstance(cause, ClientError) else None
    below = cause.cause if isinstance(cause, ClientError) else None
    ctap = below.code if isinstance(below, CtapError) else None
    match (code, ctap):
        case _ if isinstance(cause, PinRequiredError):
            found = 0, FactorError("the security key wants its PIN", hint="run the command in a terminal")
        case (_, CtapError.ERR.PIN_INVALID | CtapError.ERR.PIN_AUTH_INVALID):
            found = 0, FactorError("the PIN is wrong", hint="try again; the key locks after eight wrong PINs")
        case (_, CtapError.ERR.PIN_BLOCKED | CtapError.ERR.PIN_AUTH_BLOCKED | CtapError.ERR.UV_BLOCKED):
            found = 0, FactorError("the security key is blocked", hint="plug it out and in, then try again")
        case (ClientError.ERR.BAD_REQUEST, None):
            found = (
                0,
                FactorError(
                    "the challenge is for another site than the broker",
                    hint="credx init URL with the broker's address",
                ),
            )
        case (_, CtapError.ERR.OPERATION_DENIED):
            found = 1, FactorError("the touch was refused on the security key", hint="try again")
        case (ClientError.ERR.TIMEOUT, _):
            found = 1, no_touch(seconds)
        case (_, CtapError.ERR.CREDENTIAL_EXCLUDED):
            found = 2, FactorError("this security key is enrolled already", hint="credx factor list")
        case (ClientError.ERR.DEVICE_INELIGIBLE, _):
            hint = "use another, see: credx factor list"
            found = 2, FactorError("this security key is not enrolled", hint=hint)
        case (ClientError.ERR.CONFIGURATION_UNSUPPORTED, _):
            hint = "set a PIN on the key"
            found = 3, FactorError("this security key has no PIN or fingerprint set", hint=hint)
        case _:
            what = type(cause).__name__
            found = 4, FactorError(f"the security key failed ({what})", hint="plug it out and in again")
    found[1].__cause__ = cause
    return found


def no_touch(seconds: float) -> FactorError:
    return FactorError(f"no touch within {seconds:g} s", hint="run the command again and touch the key")


def no_key() -> FactorError:
    return FactorError("no security key is plugged in", hint=plug_in())


def plug_in() -> str:
    return _PLUG_IN.get(sys.platform, "plug it in")
