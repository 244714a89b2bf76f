"""What every backend of ``Store`` does alike: bounds on writes, and values as JSON text."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from credx.broker.stores import Check, Put, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from credx.broker.stores import Key, Write

MAX_WRITES = 100  # DynamoDB TransactWriteItems
MAX_VALUE = 350_000  # bytes of JSON text; a DynamoDB item holds 400 KB with its keys
MAX_TIME = 2**53  # the largest integer that every JSON reader keeps whole

# Printable ASCII: then code points, UTF-8 bytes and SQLite's BINARY collation sort alike, and
# prefix + "\x7f" is above every key that starts with the prefix. 512: half of DynamoDB's sort key.
_KEY = re.compile(r"[\x20-\x7e]{1,512}")
_PREFIX = re.compile(r"[\x20-\x7e]{0,512}")
ABOVE_EVERY_KEY = "\x7f"


def check_writes(writes: Sequence[Write]) -> None:
    """Refuse what no caller can mean. Raises ``ValueError``: it is a fault in the program."""
    if not 1 <= len(writes) <= MAX_WRITES:
        raise ValueError(f"{len(writes)} writes in one apply")
    if len({write.key for write in writes}) != len(writes):
        raise ValueError("two writes on one key in one apply")
    for write in writes:
        check_key(write.key)
        lowest = 0 if isinstance(write, Put | Check) else 1  # a Delete of what must not exist says nothing
        if write.expected is not None and write.expected < lowest:
            raise ValueError("an expected version that no item can have")
        if isinstance(write, Put) and write.expires_at is not None and not 0 <= write.expires_at <= MAX_TIME:
            raise ValueError("expires_at out of range")


def check_key(key: Key) -> None:
    if not (_KEY.fullmatch(key.partition) and _KEY.fullmatch(key.sort)):
        raise ValueError("a key outside printable ASCII, empty or too long")


def check_prefix(partition: str, prefix: str) -> None:
    if not (_KEY.fullmatch(partition) and _PREFIX.fullmatch(prefix)):
        raise ValueError("a key outside printable ASCII, empty or too long")


def expired(expires_at: int | None, now: float) -> bool:
    return expires_at is not None and expires_at <= now


def encode(value: Mapping[str, Any]) -> str:
    """Raises ``TypeError`` or ``ValueError`` for what is not JSON (a Secret, NaN) or too large."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    if len(text) > MAX_VALUE:
        raise ValueError("a value too large to store")
    return text


def decode(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise StoreUnavailableError("the store holds a value that is no JSON") from exc
    if not isinstance(value, dict):
        raise StoreUnavailableError("the store holds a value of another shape")
    return value
