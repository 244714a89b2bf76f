"""What an issuance cannot do without, and nothing else: the bare signatures, and the bare commits of the same
bytes in the same tables, durable as the broker's are. No HTTP, no parsing, no decision, nothing read.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import statistics
import time
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from credx.broker.stores import Delete, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from credx.broker.stores import Write

ID_TOKENS = 3  # one in each request
TOKEN_BYTES = 900  # of the signing input of a web-identity token


class Floor:
    """Args:
    path: a directory on the same disk as the broker's store.
    commits: what one issuance writes, see ``Inside.writes_of``.
    """

    def __init__(self, path: Path, id_token: str, commits: Sequence[Sequence[Write]]) -> None:
        self._rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._ec = ec.generate_private_key(ec.SECP256R1())
        self._signed = id_token.rpartition(".")[0].encode("ascii")
        self._asserted = os.urandom(37 + 32)
        self._rsa_signature = self._sign(self._signed)
        self._ec_signature = self._ec.sign(self._asserted, ec.ECDSA(SHA256()))
        self._commits = [[_statement(write) for write in writes] for writes in commits]
        self._records = 0
        self._db = sqlite3.connect(path / "floor.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(
            "CREATE TABLE items (partition TEXT, sort TEXT, value TEXT, version INTEGER, expires_at INTEGER,"
            " PRIMARY KEY (partition, sort)) WITHOUT ROWID"
        )
        self._db.execute("CREATE INDEX by_expiry ON items (expires_at) WHERE expires_at IS NOT NULL")

    def parts(self) -> dict[str, float]:
        """Milliseconds of one issuance by part, each the median of many."""
        return {
            f"{ID_TOKENS} x verify RS256": ID_TOKENS * _median(self._verify_rsa),
            "verify ES256": _median(self._verify_ec),
            "sign RS256": _median(lambda: self._sign(b"x" * TOKEN_BYTES)),
            f"{len(self._commits)} durable commits": _median(self._write),
        }

    def once(self) -> None:
        for _ in range(ID_TOKENS):
            self._verify_rsa()
        self._verify_ec()
        self._sign(b"x" * TOKEN_BYTES)
        self._write()

    def cost(self, seconds: float) -> tuple[float, float]:
        """One issuance after the other for so long: mean milliseconds of each, and of the core's work in it."""
        started, worked, count = time.perf_counter(), time.process_time(), 0
        while (taken := time.perf_counter() - started) < seconds:
            self.once()
            count += 1
        return taken / count * 1000, (time.process_time() - worked) / count * 1000

    def close(self) -> None:
        self._db.close()

    def _verify_rsa(self) -> None:
        self._rsa.public_key().verify(self._rsa_signature, self._signed, padding.PKCS1v15(), SHA256())

    def _verify_ec(self) -> None:
        self._ec.public_key().verify(self._ec_signature, self._asserted, ec.ECDSA(SHA256()))

    def _sign(self, message: bytes) -> bytes:
        return self._rsa.sign(message, padding.PKCS1v15(), SHA256())

    def _write(self) -> None:
        run = os.urandom(8).hex()
        for statements in self._commits:
            self._db.execute("BEGIN IMMEDIATE")
            for sql, partition, sort, *rest in statements:
                self._db.execute(sql, (self._other(partition, run), self._other(sort, run), *rest))
            self._db.execute("COMMIT")

    def _other(self, name: str, run: str) -> str:
        """As the broker's next issuance: the next record of the same chain, everything else of somebody else."""
        if name.isdigit():
            self._records += 1
            return f"{self._records:0{len(name)}d}"
        kind, mark, rest = name.rpartition("#")
        if not mark or kind == "audit":
            return name
        return f"{kind}#{hashlib.sha256((rest + run).encode()).hexdigest()[: len(rest)]}"


def _statement(write: Write) -> tuple[object, ...]:
    match write:
        case Put():
            text = json.dumps(write.value, separators=(",", ":"))
            sql = "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?)"
            return (sql, *write.key, text, 1, write.expires_at)
        case Delete():
            return ("DELETE FROM items WHERE partition = ? AND sort = ?", *write.key)
        case _:
            return ("SELECT version FROM items WHERE partition = ? AND sort = ?", *write.key)


def _median(call: Callable[[], object], runs: int = 200) -> float:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000
