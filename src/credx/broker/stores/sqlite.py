"""The store in one SQLite file: for a broker on one host, in one process or several.

WAL with synchronous=FULL: what ``apply`` returned from survives a power cut. One connection under one lock:
SQLite writes one at a time anyway, and a connection per thread would have to be closed per thread. While a commit
waits for the disk, whoever else wants to write joins the next one.
"""
# ruff: noqa: S608 -- every statement is made of constants

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from credx.broker.stores import Check, ConflictError, Delete, Item, Key, Put, StoreUnavailableError
from credx.broker.stores.rules import (
    ABOVE_EVERY_KEY,
    check_key,
    check_prefix,
    check_writes,
    decode,
    encode,
)
from credx.broker.stores.sqlite_file import open_database, transaction, translated

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from credx.broker.stores import Write

BUSY_TIMEOUT = 5.0  # seconds that a call waits for another process's write; a write takes milliseconds
SWEEP_EVERY = 16  # commits; a sweep with nothing to do costs as much as a write
SWEEP_LIMIT = 320  # expired items removed by one sweep: more than come in between, so the file stays bounded
SWEEP_GRACE = 3600  # seconds; a clock that is somewhat wrong must not delete what another broker still sees

_HERE = "partition = ? AND sort = ?"
_LIVE = "(items.expires_at IS NULL OR items.expires_at > ?)"  # rules.expired
_SAME = f"{_HERE} AND version = ? AND {_LIVE}"
_SET = "value = excluded.value, version = excluded.version, expires_at = excluded.expires_at"
_SELECT = "SELECT partition, sort, value, version, expires_at FROM items"  # the fields of an Item
_GET = f"{_SELECT} WHERE {_HERE} AND {_LIVE}"
_QUERY = f"{_SELECT} WHERE partition = ? AND sort >= ? AND sort < ? AND {_LIVE} ORDER BY sort LIMIT ?"

# One statement for each kind of write and of expectation: it reaches one row if the expectation holds (as
# Store has it), or none.
_INSERT = "INSERT INTO items (partition, sort, value, version, expires_at) VALUES (?, ?, ?, ?, ?)"
_PUT = f"{_INSERT} ON CONFLICT DO UPDATE SET {_SET}"
_PUT_NEW = f"{_PUT} WHERE NOT {_LIVE}"
_PUT_SAME = f"UPDATE items SET value = ?, version = ?, expires_at = ? WHERE {_SAME}"
_DELETE = f"DELETE FROM items WHERE {_HERE}"
_DELETE_SAME = f"DELETE FROM items WHERE {_SAME}"
_CHECK_NEW = f"SELECT count(*) = 0 FROM items WHERE {_HERE} AND {_LIVE}"
_CHECK_SAME = f"SELECT count(*) FROM items WHERE {_SAME}"
_VERSIONS = "UPDATE last_version SET version = version + ? RETURNING version"
_SWEEP = (
    "DELETE FROM items WHERE (partition, sort) IN "
    "(SELECT partition, sort FROM items WHERE expires_at <= ? LIMIT ?)"
)


@dataclass(eq=False)
class _Job:
    """One ``apply``. ``refused``: an expectation did not hold, and nothing of it was written."""

    writes: Sequence[Write]
    texts: Mapping[Key, str]
    now: float
    refused: bool = False

    def do(self, db: sqlite3.Connection) -> None:
        """Raises ``ConflictError``; what was written until then has to be rolled back."""
        version = db.execute(_VERSIONS, (len(self.texts),)).fetchall()[0][0] if self.texts else 0
        for write in self.writes:
            match write:
                case Put():
                    done = _put(db, write, self.texts[write.key], version, self.now)
                    version -= 1
                case Delete():
                    done = _delete(db, write, self.now)
                case Check():
                    done = _check(db, write, self.now)
            if not done:
                self.refused = True
                raise ConflictError


@dataclass(eq=False)
class _Batch:
    """Who waits for one commit; the first of them makes it for all. ``failure``: why it was not made."""

    jobs: list[_Job] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    failure: str | None = "sqlite: interrupted"


class SqliteStore:
    """``Store`` in the file ``path``, made on first use with mode 0600.

    Raises:
        ConfigError: the file or its directory is open to others, of another program or of a newer credx.
        StoreUnavailableError: SQLite cannot open it.
    """

    def __init__(self, path: Path | str, *, busy_timeout: float = BUSY_TIMEOUT) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._until_sweep = 0
        self._batch = _Batch()
        self._joining = threading.Lock()  # around ``_batch``; ``_lock`` is around the connection
        self._db = open_database(Path(path), busy_timeout)

    def get(self, key: Key, *, now: float) -> Item | None:
        check_key(key)
        with self._connection() as db:
            row = db.execute(_GET, (*key, now)).fetchone()
        return None if row is None else _item(row)

    def query(self, partition: str, prefix: str = "", *, now: float, limit: int = 1000) -> Sequence[Item]:
        check_prefix(partition, prefix)
        with self._connection() as db:
            rows = db.execute(_QUERY, (partition, prefix, prefix + ABOVE_EVERY_KEY, now, limit)).fetchall()
        return [_item(row) for row in rows]

    def apply(self, writes: Sequence[Write], *, now: float) -> None:
        check_writes(writes)
        texts = {write.key: encode(write.value) for write in writes if isinstance(write, Put)}
        job = _Job(writes, texts, now)
        with self._joining:
            batch = self._batch
            batch.jobs.append(job)
        if batch.jobs[0] is job:
            self._write(batch)
        else:
            batch.done.wait()
        if batch.failure is not None:
            raise StoreUnavailableError(batch.failure)
        if job.refused:
            raise ConflictError

    def _write(self, batch: _Batch) -> None:
        """One transaction and one sync for all who came while the one before was written."""
        try:
            with self._connection() as db:
                self._shut(batch)
                with transaction(db):
                    if len(batch.jobs) == 1:
                        batch.jobs[0].do(db)
                    else:
                        _each_by_itself(db, batch.jobs)
                    self._sweep(db, batch.jobs[-1].now)
            batch.failure = None
        except ConflictError:
            batch.failure = None  # it was the only job, and it was rolled back
        except StoreUnavailableError as exc:
            batch.failure = str(exc)
        finally:
            self._shut(batch)
            batch.done.set()

    def _shut(self, batch: _Batch) -> None:
        """Nobody joins it any more."""
        with self._joining:
            if self._batch is batch:
                self._batch = _Batch()

    def _sweep(self, db: sqlite3.Connection, now: float) -> None:
        self._until_sweep -= 1
        if self._until_sweep <= 0:
            self._until_sweep = SWEEP_EVERY
            db.execute(_SWEEP, (now - SWEEP_GRACE, SWEEP_LIMIT))

    def close(self) -> None:
        with self._lock, translated():
            self._db.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if os.getpid() != self._process:  # sqlite.org/howtocorrupt.html 2.6: never across a fork
            raise StoreUnavailableError("the store was opened by another process")
        with self._lock, translated():
            yield self._db


def _each_by_itself(db: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
    for job in jobs:
        db.execute("SAVEPOINT job")
        with suppress(ConflictError):
            job.do(db)
        if job.refused:
            db.execute("ROLLBACK TO job")
        db.execute("RELEASE job")


def _item(row: tuple[str, str, str, int, int | None]) -> Item:
    partition, sort, value, version, expires_at = row
    return Item(key=Key(partition, sort), value=decode(value), version=version, expires_at=expires_at)


def _put(db: sqlite3.Connection, write: Put, text: str, version: int, now: float) -> bool:
    if write.expected is None:
        done = db.execute(_PUT, (*write.key, text, version, write.expires_at))
    elif write.expected == 0:
        done = db.execute(_PUT_NEW, (*write.key, text, version, write.expires_at, now))
    else:
        done = db.execute(_PUT_SAME, (text, version, write.expires_at, *write.key, write.expected, now))
    return done.rowcount == 1


def _delete(db: sqlite3.Connection, write: Delete, now: float) -> bool:
    if write.expected is None:
        db.execute(_DELETE, write.key)
        return True
    return db.execute(_DELETE_SAME, (*write.key, write.expected, now)).rowcount == 1


def _check(db: sqlite3.Connection, write: Check, now: float) -> bool:
    if write.expected == 0:
        return bool(db.execute(_CHECK_NEW, (*write.key, now)).fetchall()[0][0])
    return bool(db.execute(_CHECK_SAME, (*write.key, write.expected, now)).fetchall()[0][0])
