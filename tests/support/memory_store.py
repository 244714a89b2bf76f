"""A store that forgets with the process: the reference that the backends are held against, and quick."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, NamedTuple

from credx.broker.stores import ConflictError, Delete, Item, Key, Put, StoreUnavailableError
from credx.broker.stores.rules import (
    check_key,
    check_prefix,
    check_writes,
    decode,
    encode,
    expired,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credx.broker.stores import Write


class _Row(NamedTuple):
    value: str  # JSON text: a caller who changes his mapping later changes nothing here
    version: int
    expires_at: int | None


_NO_ROW = _Row("", 0, None)


class MemoryStore:
    """``Store`` in a dictionary under one lock."""

    def __init__(self) -> None:
        self._rows: dict[Key, _Row] = {}
        self._versions = itertools.count(1)  # one for all keys: a version never comes back (ABA)
        self._lock = threading.Lock()
        self._open = True

    def get(self, key: Key, *, now: float) -> Item | None:
        check_key(key)
        with self._lock:
            self._must_be_open()
            row = self._rows.get(key, _NO_ROW)
        return None if row is _NO_ROW or expired(row.expires_at, now) else _item(key, row)

    def query(self, partition: str, prefix: str = "", *, now: float, limit: int = 1000) -> Sequence[Item]:
        check_prefix(partition, prefix)
        with self._lock:
            self._must_be_open()
            found = [
                (key, row)
                for key, row in self._rows.items()
                if key.partition == partition
                and key.sort.startswith(prefix)
                and not expired(row.expires_at, now)
            ]
        return [_item(key, row) for key, row in sorted(found)[:limit]]

    def apply(self, writes: Sequence[Write], *, now: float) -> None:
        check_writes(writes)
        texts = {write.key: encode(write.value) for write in writes if isinstance(write, Put)}
        with self._lock:
            self._must_be_open()
            for write in writes:
                row = self._rows.get(write.key, _NO_ROW)
                if not holds(write, row.version, row.expires_at, now=now):
                    raise ConflictError
            for write in writes:
                if isinstance(write, Put):
                    self._rows[write.key] = _Row(texts[write.key], next(self._versions), write.expires_at)
                elif isinstance(write, Delete):
                    self._rows.pop(write.key, None)

    def close(self) -> None:
        self._open = False

    def _must_be_open(self) -> None:
        if not self._open:
            raise StoreUnavailableError("the store is closed")


def _item(key: Key, row: _Row) -> Item:
    return Item(key=key, value=decode(row.value), version=row.version, expires_at=row.expires_at)


def holds(write: Write, version: int, expires_at: int | None, *, now: float) -> bool:
    """Whether a write may go on, given the stored version (0: no item). An expired item is absent."""
    if write.expected is None:
        return True
    return write.expected == (0 if expired(expires_at, now) else version)
