"""The audit trail: one hash chain per writer, in the store, written together with what it records.

A writer is one start of one broker process, so two brokers on one store share no head and never wait for each
other. Its first record, ``started``, holds the public half of a key that lives in this process alone; the
mint key signs that record, the writer's key signs every record. ``started`` also names the newest heads of
other chains, so that a chain which loses its end, or all of itself, is missed by a later one.

Nothing is written for a start as such: ``started`` comes in the same write as the first record.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from typing import TYPE_CHECKING, Any, Final

from credx.broker.audit import record as audit_record
from credx.broker.audit.chain import (
    WRITERS,
    Head,
    Named,
    born,
    head_key,
    head_of,
    named_heads,
    record_key,
    record_of,
    well_formed,
    writers,
)
from credx.broker.audit.keys import WriterKey
from credx.broker.audit.read import Wanted, read
from credx.broker.audit.record import GENESIS, STARTED
from credx.broker.audit.verify import verify
from credx.broker.security_log import SecurityLog
from credx.broker.stores import ConflictError, Key, Put, StoreUnavailableError
from credx.strict import to_base64url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from credx.broker.audit.verify import Broken, PublicKeys
    from credx.broker.handles import Rng
    from credx.broker.stores import Store, Write
    from credx.jose import Signer

HEAD_RETRIES: Final = 3  # a head moves only by an answer that got lost, or by a fork of this process
MAX_WRITES: Final = 96  # of a caller in one commit: a chain's first record takes four of the store's 100
MAX_HEADS: Final = 32  # of other chains that a new one names
MAX_STEP_BACK: Final = (
    60  # seconds; requests in parallel come a little out of order, and clocks are corrected
)


def new_writer_id(now: float, rng: Rng) -> str:
    """One per process start: 12 hex digits of milliseconds, so that ids sort by time, and 64 random bits."""
    return f"{int(now * 1000):012x}-{rng(8).hex()}"


class Audit:
    """Args:
    signer: the mint key; signs the first record of a chain, and is not needed for the others.
    copy: receives every record once it is durable (stdout, a file). Its failure is logged, no more.
    """

    def __init__(
        self,
        store: Store,
        writer_id: str,
        *,
        signer: Signer,
        copy: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        if not well_formed(writer_id):
            raise ValueError("a writer id comes from new_writer_id")
        self.security_log = SecurityLog()  # for requests that fail before their ID token is verified
        self._store = store
        self._signer = signer
        self._copy = copy
        self._lock = threading.Lock()  # one link of the chain at a time
        self._key = WriterKey()
        self._writer = writer_id
        self._head = Head(0, GENESIS, born(writer_id))

    def commit(self, writes: Sequence[Write], record: Mapping[str, Any], *, now: float) -> None:
        """The caller's writes, at most ``MAX_WRITES``, with the record and the chain head in one apply.

        Raises:
            ConflictError: an expectation of the caller's writes did not hold; nothing was written.
            StoreUnavailableError: nothing may be issued. Whether it was written is not known.
            ValueError, TypeError: the record has an unknown field, a Secret or a value out of bounds.
        """
        if len(writes) > MAX_WRITES:
            raise ValueError(f"{len(writes)} writes in one commit")
        fields = audit_record.checked(record)
        with self._lock:
            written = self._commit(writes, fields, now)
        if self._copy is not None:
            try:
                for one in written:
                    self._copy(one)
            except Exception as exc:  # noqa: BLE001 -- the record is durable; a copy may be any code
                self.security_log("audit_copy_failed", error=type(exc).__name__, seq=written[-1]["seq"])

    def append(self, record: Mapping[str, Any], *, now: float) -> None:
        """A record that stands alone."""
        self.commit([], record, now=now)

    def _commit(
        self, writes: Sequence[Write], fields: Mapping[str, Any], now: float
    ) -> Sequence[Mapping[str, Any]]:
        # A head that is behind, because an answer got lost, meets a record where there must be none yet.
        for _ in range(HEAD_RETRIES):
            self._follow_the_clock(now)
            head = self._head
            at = max(int(now), head.at)
            records = [] if head.seq else [self._started(at, now)]
            before = records[0]["hash"] if records else head.hash
            records.append(self._signed(fields, at=at, seq=head.seq + len(records) + 1, prev=before))
            moved = Head(records[-1]["seq"], records[-1]["hash"], at)
            try:
                self._store.apply([*writes, *self._links(records, moved)], now=now)
            except ConflictError:
                self._head = self._stored_head(now)
                if self._head == head:
                    raise  # the chain stands where we thought: it was the caller's expectation
                continue
            self._head = moved
            return records
        raise ConflictError("the head of the audit chain keeps moving")

    def _follow_the_clock(self, now: float) -> None:
        """Within a chain time never goes back, so that a reader can find a moment by halving it.

        A clock that was set back starts another chain: no record shows a time that was not.
        """
        if now < self._head.at - MAX_STEP_BACK:
            other = hashlib.sha256(self._writer.encode("ascii")).digest()  # never the same id twice
            self._writer = new_writer_id(max(0.0, now), lambda length: other[:length])
            self._head = Head(0, GENESIS, born(self._writer))

    def _started(self, at: int, now: float) -> dict[str, Any]:
        fields = {
            "event": STARTED,
            "writer_key": self._key.jwk,
            "kid": self._signer.kid,
            "heads": newest_heads(self._store, self._writer, now),
        }
        record = self._signed(fields, at=at, seq=1, prev=GENESIS)
        signature = self._signer.sign(audit_record.mint_signed_part(record["hash"]))
        return {**record, "mint_signature": to_base64url(signature)}

    def _signed(self, fields: Mapping[str, Any], *, at: int, seq: int, prev: str) -> dict[str, Any]:
        record = audit_record.link(fields, at=at, writer=self._writer, seq=seq, prev=prev)
        return {**record, "signature": self._key.sign(audit_record.signed_part(record["hash"]))}

    def _links(self, records: Sequence[Mapping[str, Any]], head: Head) -> list[Write]:
        links: list[Write] = [
            Put(key=record_key(self._writer, record["seq"]), value=record, expected=0) for record in records
        ]
        links.append(Put(key=head_key(self._writer), value=head._asdict(), expected=None))
        if records[0]["seq"] == 1:
            links.append(Put(key=Key(WRITERS, self._writer), value={"at": head.at}, expected=None))
        return links

    def _stored_head(self, now: float) -> Head:
        """Where this process's chain stands in the store.

        Raises:
            StoreUnavailableError: the chain is another process's: our signatures would not hold in it.
        """
        head = head_of(self._store, self._writer, now)
        if head is None:
            return Head(0, GENESIS, born(self._writer))
        first = record_of(self._store, self._writer, 1, now) or {}
        if first.get("writer_key") != self._key.jwk:
            raise StoreUnavailableError("somebody else writes this audit chain")
        return head

    def read(self, now: float, *, newest_first: bool = False, **wanted: Any) -> Iterator[Mapping[str, Any]]:
        """Records of all writers, see ``read``; ``wanted`` as the fields of ``read.Wanted``."""
        return read(self._store, Wanted(**wanted), now, newest_first=newest_first)

    def verify(self, now: float, keys: PublicKeys | None = None) -> Broken | None:
        """The first record that does not hold, or None; ``keys`` are mint keys, only our own if not given."""
        return verify(self._store, self.own_keys() if keys is None else keys, now).broken

    def own_keys(self) -> PublicKeys:
        return {self._signer.kid: self._signer.public_jwk()}


def newest_heads(store: Store, writer: str, now: float) -> list[dict[str, Any]]:
    """The heads that a new chain names: of the chains that were written to last, as far as is known.

    Known are the chains that started last, and those that the newest of them named: a broker that has run for
    months is handed on from start to start.
    """
    newest = list(itertools.islice(writers(store, now, newest_first=True), MAX_HEADS))
    first = (record_of(store, newest[0], 1, now) if newest else None) or {}
    known = {*newest, *(one.writer for one in named_heads(first))} - {writer}
    heads = [(head_of(store, one, now), one) for one in sorted(known) if well_formed(one)]
    last = sorted(((head, one) for head, one in heads if head), key=lambda pair: -pair[0].at)
    return [Named(one, head.seq, head.hash)._asdict() for head, one in last[:MAX_HEADS]]
