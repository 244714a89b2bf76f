"""The audit trail: one hash chain per writer, in the store, written together with what it records.

Keys: ``audit / <writer>`` lists the writers; ``audit#<writer>`` holds ``head`` (the last sequence number and
hash) and the records under their 20-digit sequence numbers. A writer is one start of one broker process, so
two brokers on one store share no head and never wait for each other.

A changed, missing or cut-off record shows in ``verify``. Whoever can write to the store but has no mint key
cannot write a chain anew either: every record is signed. What he can do is delete a chain, or its end with
its head; the copies (``copy``) and the source identity in CloudTrail are out of his reach.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credx.broker import audit_record
from credx.broker.audit_chain import (
    WRITER_ALPHABET,
    WRITERS,
    Broken,
    head_key,
    record_key,
    records,
    verify_chain,
    writers,
)
from credx.broker.audit_record import GENESIS
from credx.broker.security_log import SecurityLog
from credx.broker.stores import ConflictError, Key, Put
from credx.strict import to_base64url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from credx.broker.audit_chain import PublicKeys
    from credx.broker.handles import Rng
    from credx.broker.stores import Store, Write
    from credx.jose import Signer

HEAD_RETRIES: Final = 3  # a head moves only by an answer that got lost, or by a fork of this process

_WRITER_LENGTH: Final = 29


class _Head(NamedTuple):
    seq: int
    hash: str


def new_writer_id(now: float, rng: Rng) -> str:
    """One per process start: 12 hex digits of milliseconds, so that ids sort by time, and 64 random bits."""
    return f"{int(now * 1000):012x}-{rng(8).hex()}"


class Audit:
    """Args:
    signer: the mint key; signs every record (0.2 ms with a local key).
    copy: receives every record once it is durable (stdout, a file). Its failure is logged, no more.
    """

    def __init__(
        self,
        store: Store,
        writer_id: str,
        *,
        signer: Signer | None = None,
        copy: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        if len(writer_id) != _WRITER_LENGTH or not set(writer_id) <= set(WRITER_ALPHABET):
            raise ValueError("a writer id comes from new_writer_id")
        self.writer = writer_id
        self.security_log = SecurityLog()  # for requests that fail before their ID token is verified
        self._store = store
        self._signer = signer
        self._copy = copy
        self._lock = threading.Lock()  # one link of the chain at a time
        self._head: _Head | None = None  # None: not read yet

    def commit(self, writes: Sequence[Write], record: Mapping[str, Any], *, now: float) -> None:
        """The caller's writes, at most 97, with the record and the chain head in one ``Store.apply`` of 100.

        Raises:
            ConflictError: an expectation of the caller's writes did not hold; nothing was written.
            StoreUnavailableError: nothing may be issued. Whether it was written is not known.
            ValueError, TypeError: the record has an unknown field, a Secret or a value out of bounds.
        """
        fields = audit_record.checked(record)
        with self._lock:
            sealed = self._commit(writes, fields, now)
        if self._copy is not None:
            try:
                self._copy(sealed)
            except Exception as exc:  # noqa: BLE001 -- the record is durable; a copy may be any code
                self.security_log("audit_copy_failed", error=type(exc).__name__, seq=sealed["seq"])

    def append(self, record: Mapping[str, Any], *, now: float) -> None:
        """A record that stands alone."""
        self.commit([], record, now=now)

    def _commit(self, writes: Sequence[Write], fields: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        # A head that is behind, because an answer got lost, meets a record where there must be none yet.
        for _ in range(HEAD_RETRIES):
            head = self._head = self._head or self._stored_head(now)
            seq = head.seq + 1
            record = self._sealed(
                audit_record.link(fields, at=int(now), writer=self.writer, seq=seq, prev=head.hash)
            )
            try:
                self._store.apply([*writes, *self._links(record)], now=now)
            except ConflictError:
                self._head = self._stored_head(now)
                if self._head == head:
                    raise  # the chain stands where we thought: it was the caller's expectation
                continue
            self._head = _Head(seq, record["hash"])
            return record
        raise ConflictError("the head of the audit chain keeps moving")

    def _sealed(self, record: dict[str, Any]) -> dict[str, Any]:
        if self._signer is not None:
            record["kid"] = self._signer.kid
            signature = self._signer.sign(audit_record.signed_part(record))
            record["signature"] = to_base64url(signature)
        return {**record, "hash": audit_record.digest(record)}

    def _links(self, record: Mapping[str, Any]) -> list[Write]:
        seq = record["seq"]
        links: list[Write] = [
            Put(key=record_key(self.writer, seq), value=record, expected=0),
            Put(key=head_key(self.writer), value={"seq": seq, "hash": record["hash"]}, expected=None),
        ]
        if seq == 1:
            links.append(Put(key=Key(WRITERS, self.writer), value={"at": record["at"]}, expected=None))
        return links

    def _stored_head(self, now: float) -> _Head:
        item = self._store.get(head_key(self.writer), now=now)
        return _Head(0, GENESIS) if item is None else _Head(item.value["seq"], item.value["hash"])

    def read(
        self,
        now: float,
        *,
        user: str | None = None,
        role: str | None = None,
        issuance: str | None = None,
        event: str | None = None,
        access_key_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Records of all writers in order of (at, writer, seq), as they are in the store: see ``verify``.

        ``user`` is the shown name or the user key; ``since <= at < until`` in seconds since 1970.
        """
        wanted = {"role": role, "issuance": issuance, "event": event, "access_key_id": access_key_id}
        wanted = {name: value for name, value in wanted.items() if value is not None}

        def matches(record: Mapping[str, Any]) -> bool:
            return (
                all(record.get(name) == value for name, value in wanted.items())
                and (user is None or user in (record.get("user"), record.get("user_key")))
                and (since is None or record.get("at", 0) >= since)
                and (until is None or record.get("at", 0) < until)
            )

        found = [
            (record.get("at", 0), writer, sort, record)
            for writer in writers(self._store, now)
            for sort, record in records(self._store, writer, now)
            if matches(record)
        ]
        return (record for *_, record in sorted(found, key=lambda entry: entry[:3]))

    def verify(self, now: float, keys: PublicKeys | None = None) -> Broken | None:
        """Recompute every chain; the first record that does not hold, or None.

        With ``keys`` (kid to public JWK) every record must be signed by one of them.
        """
        chains = writers(self._store, now)
        return next(filter(None, (verify_chain(self._store, writer, now, keys) for writer in chains)), None)
