"""The store in one SQLite file: for a broker on one host, in one process or several.

WAL with synchronous=FULL: what ``apply`` returned from survives a power cut. One connection under one lock:
SQLite writes one at a time anyway, and a connection per thread would have to be closed per thread.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from credx.broker.ownfile import create_empty, lock, own_directory
from credx.broker.stores import ConflictError, Delete, Item, Key, Put, StoreUnavailableError
from credx.broker.stores.rules import (
    ABOVE_EVERY_KEY,
    check_key,
    check_prefix,
    check_writes,
    decode,
    encode,
    holds,
)
from credx.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from credx.broker.stores import Write

BUSY_TIMEOUT = 5.0  # seconds that a call waits for another process's write; a write takes milliseconds
APPLICATION_ID = 0x63726478  # "crdx": no other program's database is taken for ours
SCHEMA_VERSION = 1
SWEEP_LIMIT = 20  # expired items removed per apply: more than one apply adds, so the file stays bounded
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

_LIVE = "(expires_at IS NULL OR expires_at > ?)"


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
        rows = self._select("partition = ? AND sort = ?", (key.partition, key.sort), now=now, limit=1)
        return rows[0] if rows else None

    def query(self, partition: str, prefix: str = "", *, now: float, limit: int = 1000) -> Sequence[Item]:
        check_prefix(partition, prefix)
        span = (partition, prefix, prefix + ABOVE_EVERY_KEY)
        return self._select("partition = ? AND sort >= ? AND sort < ?", span, now=now, limit=limit)

    def apply(self, writes: Sequence[Write], *, now: float) -> None:
        check_writes(writes)
        texts = {write.key: encode(write.value) for write in writes if isinstance(write, Put)}
        with self._connection() as db, _transaction(db):
            for write in writes:
                row = db.execute(
                    "SELECT version, expires_at FROM items WHERE partition = ? AND sort = ?", write.key
                ).fetchone()
                version, expires_at = row or (0, None)
                if not holds(write, version, expires_at, now=now):
                    raise ConflictError
            for write in writes:
                if isinstance(write, Put):
                    _put(db, write, texts[write.key])
                elif isinstance(write, Delete):
                    db.execute("DELETE FROM items WHERE partition = ? AND sort = ?", write.key)
            _sweep(db, now)

    def close(self) -> None:
        with self._lock, _translated():
            self._db.close()

    def _select(self, where: str, values: tuple[str, ...], *, now: float, limit: int) -> list[Item]:
        statement = (
            "SELECT partition, sort, value, version, expires_at FROM items "  # noqa: S608 -- constants only
            f"WHERE {where} AND {_LIVE} ORDER BY partition, sort LIMIT ?"
        )
        with self._connection() as db:
            rows = db.execute(statement, (*values, now, limit)).fetchall()
        return [
            Item(key=Key(partition, sort), value=decode(value), version=version, expires_at=expires_at)
            for partition, sort, value, version, expires_at in rows
        ]

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if os.getpid() != self._process:  # sqlite.org/howtocorrupt.html 2.6: never across a fork
            raise StoreUnavailableError("the store was opened by another process")
        with self._lock, _translated():
            yield self._db


def _put(db: sqlite3.Connection, write: Put, text: str) -> None:
    db.execute("UPDATE last_version SET version = version + 1")
    (version,) = db.execute("SELECT version FROM last_version").fetchone()
    db.execute(
        "INSERT OR REPLACE INTO items (partition, sort, value, version, expires_at) VALUES (?, ?, ?, ?, ?)",
        (*write.key, text, version, write.expires_at),
    )


def _sweep(db: sqlite3.Connection, now: float) -> None:
    db.execute(
        "DELETE FROM items WHERE (partition, sort) IN "
        "(SELECT partition, sort FROM items WHERE expires_at <= ? LIMIT ?)",
        (now - SWEEP_GRACE, SWEEP_LIMIT),
    )


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
