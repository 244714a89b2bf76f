"""The finger on the software key: what it is asked for, what it does, how long it is waited for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from fido2.ctap import STATUS, CtapError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

ERR = CtapError.ERR


class Touch(Enum):
    """What the finger does."""

    GIVEN = "given"
    REFUSED = "refused"
    NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the finger is asked for. ``purpose``: ``register``, ``sign``, ``select`` or ``reset``."""

    purpose: str
    rp_id: str = ""


@dataclass(frozen=True)
class Finger:
    """The wait for a touch: keepalive, cancel, refusal and a limit in seconds."""

    touch: Callable[[Prompt], Touch]
    limit: float
    event: threading.Event
    on_keepalive: Callable[[STATUS], None] | None

    def wait(self, prompt: Prompt) -> None:
        if self.event.is_set():
            raise CtapError(ERR.KEEPALIVE_CANCEL)
        if self.on_keepalive is not None:
            self.on_keepalive(STATUS.UPNEEDED)
        match self.touch(prompt):
            case Touch.GIVEN:
                return
            case Touch.REFUSED:
                raise CtapError(ERR.OPERATION_DENIED)
            case Touch.NEVER:
                cancelled = self.event.wait(self.limit)
                raise CtapError(ERR.KEEPALIVE_CANCEL if cancelled else ERR.USER_ACTION_TIMEOUT)
