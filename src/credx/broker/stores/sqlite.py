"""The store in one SQLite file: for a broker on one host, in one process or several.

WAL with synchronous=FULL: what ``apply`` returned from survives a power cut. One connection under one lock:
SQLite writes one at a time anyway, and a connection per thread would have to be closed per thread.
"""
# ruff: noqa: S608 -- every statement is made of constants

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from credx.broker.ownfile import create_empty, lock, own_directory
from credx.broker.stores import Check, ConflictError, Delete, Item, Key, Put, StoreUnavailableError
from credx.broker.stores.rules import (
    ABOVE_EVERY_KEY,
    check_key,
    check_prefix,
    check_writes,
    decode,
    encode,
)
from credx.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from credx.broker.stores import Write

BUSY_TIMEOUT = 5.0  # seconds that a call waits for another process's write; a write takes milliseconds
APPLICATION_ID = 0x63726478  # "crdx": no other program's database is taken for ours
SCHEMA_VERSION = 1
SWEEP_EVERY = 16  # applies; a sweep with nothing to do costs as much as a write
SWEEP_LIMIT = (
    320  # expired items removed by one sweep: more than so many applies add, so the file stays bounded
)
SWEEP_GRACE = 3600  # seconds; a clock that is somewhat wrong must not delete what another broker still sees

# One counter for all keys: a version never comes back, not even after a delete or a sweep, so a stale
# ``expected`` cannot meet a namesake of the item it was read from (ABA).
_SCHEMA = """
CREATE TABLE items (
  partition TEXT NOT NULL,
  sort TEXT NOT NULL,
  value TEXT NOT NULL,
  version INTEGER NOT NULL,
  expires_at INTEGER,
  PRIMARY KEY (partition, sort)
) WITHOUT ROWID;
CREATE INDEX items_by_expiry ON items (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE last_version (version INTEGER NOT NULL);
INSERT INTO last_version VALUES (0);
"""

_HERE = "partition = ? AND sort = ?"
_LIVE = "(items.expires_at IS NULL OR items.expires_at > ?)"  # rules.expired
_SAME = f"{_HERE} AND version = ? AND {_LIVE}"
_SET = "value = excluded.value, version = excluded.version, expires_at = excluded.expires_at"
_SELECT = "SELECT partition, sort, value, version, expires_at FROM items"  # the fields of an Item
_GET = f"{_SELECT} WHERE {_HERE} AND {_LIVE}"
_QUERY = f"{_SELECT} WHERE partition = ? AND sort >= ? AND sort < ? AND {_LIVE} ORDER BY sort LIMIT ?"

# One statement for each kind of write and of expectation: it reaches one row if the expectation holds (as
# rules.holds has it), or none.
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


class SqliteStore:
    """``Store`` in the file ``path``, made on first use with mode 0600.

    Raises:
        ConfigError: the file or its directory is open to others, of another program or of a newer credx.
        StoreUnavailableError: SQLite cannot open it.
    """

    def __init__(self, path: Path | str, *, busy_timeout: float = BUSY_TIMEOUT) -> None:
        path = Path(path)
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._until_sweep = 0
        with own_directory(path) as directory:
            lock(directory)  # one first start at a time: SQLite does not wait for a change of journal mode
            create_empty(path, directory)
            with _translated():
                self._db = sqlite3.connect(
                    path, timeout=busy_timeout, isolation_level=None, check_same_thread=False
                )
            try:
                with _translated():
                    _prepare(self._db, path)
            except BaseException:
                self._db.close()
                raise

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
        with self._connection() as db, _transaction(db):
            version = db.execute(_VERSIONS, (len(texts),)).fetchall()[0][0] if texts else 0
            for write in writes:
                match write:
                    case Put():
                        done = _put(db, write, texts[write.key], version, now)
                        version -= 1
                    case Delete():
                        done = _delete(db, write, now)
                    case Check():
                        done = _check(db, write, now)
                if not done:
                    raise ConflictError
            self._until_sweep -= 1
            if self._until_sweep <= 0:
                self._until_sweep = SWEEP_EVERY
                db.execute(_SWEEP, (now - SWEEP_GRACE, SWEEP_LIMIT))

    def close(self) -> None:
        with self._lock, _translated():
            self._db.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if os.getpid() != self._process:  # sqlite.org/howtocorrupt.html 2.6: never across a fork
            raise StoreUnavailableError("the store was opened by another process")
        with self._lock, _translated():
            yield self._db


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


@contextmanager
def _translated() -> Iterator[None]:
    """Locked beyond the busy timeout, disk full, read-only, corrupt, closed: the store cannot answer."""
    try:
        yield
    except sqlite3.Error as exc:
        raise StoreUnavailableError(f"sqlite: {exc}") from exc


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")  # takes the write lock before anything is read
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite itself rolls back after a full disk
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    application = _pragma(db, "application_id")
    schema = _pragma(db, "user_version")
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if (application, schema, tables) != (0, 0, 0):
        if application != APPLICATION_ID:
            raise ConfigError(f"{path} is not a credx store", hint="name another data directory")
        if schema != SCHEMA_VERSION:
            raise ConfigError(
                f"{path} has schema {schema}, this credx knows {SCHEMA_VERSION}",
                hint="run the credx version that wrote it, or a newer one",
            )
    if _pragma(db, "journal_mode = WAL") != "wal":
        raise ConfigError(f"{path} is on a file system without WAL", hint="use a local disk")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA fullfsync = ON")  # macOS: through the drive's cache; elsewhere it does nothing
    db.execute("PRAGMA trusted_schema = OFF")
    if tables == 0:
        with _transaction(db):
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _pragma(db: sqlite3.Connection, text: str) -> object:
    return db.execute(f"PRAGMA {text}").fetchone()[0]
