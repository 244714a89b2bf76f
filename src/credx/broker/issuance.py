"""The id of one issuance: when it was, and 80 random bits.

The time is in front, as in a UUIDv7 (RFC 9562 5.7): whoever holds an id, from a tag in CloudTrail, knows which
minutes of the audit trail to read, and no store needs an index for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from credx.broker.handles import Rng

SHORT: Final = 8  # hex digits: the end of an id, which goes into the name of the role session

_RANDOM_BYTES: Final = 10
_ISSUANCE = re.compile(r"([0-9a-f]{12})[0-9a-f]{20}")


def new_issuance(now: float, rng: Rng) -> str:
    """32 hex digits, of which the first 12 are milliseconds; ``now`` in seconds since 1970."""
    return f"{max(0, int(now * 1000)):012x}{rng(_RANDOM_BYTES).hex()}"


def begun_at(issuance: str) -> float | None:
    """Seconds since 1970; None for what is no whole id."""
    match = _ISSUANCE.fullmatch(issuance)
    return None if match is None else int(match[1], 16) / 1000
