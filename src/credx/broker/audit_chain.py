"""The audit chains as they are in the store: listing, reading, verifying. The other half writes: ``audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credx.broker.audit_record import GENESIS, digest, signed_part
from credx.broker.signer import verifies
from credx.broker.stores import Key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from credx.broker.stores import Store

    PublicKeys = Mapping[str, Mapping[str, str]]  # kid -> public JWK

WRITERS: Final = "audit"
PAGE: Final = 1000  # records that share all but the last three digits of their sequence number
WRITER_ALPHABET: Final = "-0123456789abcdef"


class Broken(NamedTuple):
    """The first record that does not hold. ``seq`` 0: the chain as a whole."""

    writer: str
    seq: int
    why: str


def head_key(writer: str) -> Key:
    return Key(f"audit#{writer}", "head")


def record_key(writer: str, seq: int) -> Key:
    return Key(f"audit#{writer}", f"{seq:020d}")


def writers(store: Store, now: float, prefix: str = "") -> Iterator[str]:
    """All of them, however many: a full page is asked for again in parts."""
    page = store.query(WRITERS, prefix, now=now, limit=PAGE)
    if len(page) < PAGE:
        yield from (item.key.sort for item in page)
    else:
        for letter in WRITER_ALPHABET:
            yield from writers(store, now, prefix + letter)


def records(store: Store, writer: str, now: float) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(sort key, record), page by page up to the head; past it too, as long as pages hold something."""
    head = store.get(head_key(writer), now=now)
    last = head.value.get("seq", 0) if head else 0
    page = 0
    while True:
        items = store.query(head_key(writer).partition, f"{page:017d}", now=now, limit=PAGE)
        yield from ((item.key.sort, item.value) for item in items)
        page += 1
        if not items and page * PAGE > (last if isinstance(last, int) else 0):
            return


def verify_chain(store: Store, writer: str, now: float, keys: PublicKeys | None) -> Broken | None:
    """Recompute one chain; with ``keys`` its records must be signed by one of them."""
    seq, prev = 0, GENESIS
    for sort, record in records(store, writer, now):
        seq += 1
        why = _fault(sort, record, writer=writer, seq=seq, prev=prev)
        if why is None and keys is not None:
            why = _forged(record, keys)
        if why:
            return Broken(writer, seq, why)
        prev = record["hash"]
    head = store.get(head_key(writer), now=now)
    if head is None:
        return Broken(writer, 0, "the chain has no head")
    if head.value.get("seq") != seq:
        return Broken(writer, seq + 1, "records are missing from here on, or the head was set back")
    if head.value.get("hash") != prev:
        return Broken(writer, seq, "the head is of another record")
    return None


def _fault(sort: str, record: Mapping[str, Any], *, writer: str, seq: int, prev: str) -> str | None:
    if sort != record_key(writer, seq).sort:
        return "the record is missing"
    if record.get("hash") != digest(record):
        return "the record was changed"
    if record.get("writer") != writer or record.get("seq") != seq:
        return "the record is of another place"
    if record.get("prev") != prev:
        return "the record does not follow the one before"
    return None


def _forged(record: Mapping[str, Any], keys: PublicKeys) -> str | None:
    """Whoever has the store but no mint key can make a chain of whole hashes, but not these signatures."""
    key = keys.get(str(record.get("kid")))
    if key is None:
        return "the record is not signed by a known key"
    if not verifies(key, signed_part(record), str(record.get("signature"))):
        return "the signature of the record is wrong"
    return None
