"""The file of the SQLite store: opening it, and what its errors and transactions are to ``Store``."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from credx.broker.ownfile import create_empty, lock, own_directory
from credx.broker.stores import StoreUnavailableError
from credx.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION_ID = 0x63726478  # "crdx": no other program's database is taken for ours
SCHEMA_VERSION = 1

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


def open_database(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """A connection for several threads, to be used by one at a time; the file is made on first use, mode 0600.

    Raises:
        ConfigError: the file or its directory is open to others, of another program or of a newer credx.
        StoreUnavailableError: SQLite cannot open it.
    """
    with own_directory(path) as directory:
        lock(directory)  # one first start at a time: SQLite does not wait for a change of journal mode
        create_empty(path, directory)
        with translated():
            db = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
        try:
            with translated():
                _prepare(db, path)
        except BaseException:
            db.close()
            raise
    return db


@contextmanager
def translated() -> Iterator[None]:
    """Locked beyond the busy timeout, disk full, read-only, corrupt, closed: the store cannot answer."""
    try:
        yield
    except sqlite3.Error as exc:
        raise StoreUnavailableError(f"sqlite: {exc}") from exc


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
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
    # of a new file alone. An audit record has about 1 KB, and what is longer than a quarter of a page goes into
    # pages of its own (sqlite.org/fileformat2.html 1.6): with 4096 a million of them take three times the room
    db.execute("PRAGMA page_size = 8192")
    if _pragma(db, "journal_mode = WAL") != "wal":
        raise ConfigError(f"{path} is on a file system without WAL", hint="use a local disk")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA fullfsync = ON")  # macOS: through the drive's cache; elsewhere it does nothing
    db.execute("PRAGMA trusted_schema = OFF")
    if tables == 0:
        with transaction(db):
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _pragma(db: sqlite3.Connection, text: str) -> object:
    return db.execute(f"PRAGMA {text}").fetchone()[0]
