"""Does the audit trail hold? One pass, whatever its length: what is kept in memory is a line per chain.

What each finding rests on:

* a changed, added, moved or missing record: the hashes, and the signature of the chain's own key
* a chain made by somebody else: the mint key's signature on its first record
* an end cut off: the head; with the head set back, another chain that started later and names it
* a whole chain gone: a chain that started later and names it
* all of that for the chains that nobody named yet: heads that were saved elsewhere (``against``)
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credx.broker.audit.chain import (
    WRITERS,
    Head,
    Named,
    head_of,
    named_heads,
    record_key,
    record_of,
    records,
    well_formed,
    writers,
)
from credx.broker.audit.keys import verifier
from credx.broker.audit.record import GENESIS, STARTED, digest, mint_signed_part, signed_part
from credx.broker.signer import verifies
from credx.broker.stores import Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from credx.broker.audit.keys import Verifier
    from credx.broker.stores import Store

    PublicKeys = Mapping[str, Mapping[str, str]]  # kid -> public JWK
    Record = Mapping[str, Any]
    Progress = Callable[[int], None]  # how many records have been looked at

REPORT_EVERY: Final = 1000  # records
NAMED_IN_MEMORY: Final = 1024  # chains; a long one is named by every chain that starts while it lives


class Broken(NamedTuple):
    """The first record that does not hold. ``seq`` 0: the chain as a whole."""

    writer: str
    seq: int
    why: str


class Verified(NamedTuple):
    """``heads`` and ``kids``: of the chains that hold. ``begins_late``: chains of an export cut at its start."""

    broken: Broken | None
    records: int
    heads: Sequence[Named]
    kids: frozenset[str]
    begins_late: int = 0


class Chain:
    """One chain, record by record."""

    def __init__(self, writer: str, keys: PublicKeys) -> None:
        self.writer = writer
        self.seq, self.hash, self.at = 0, GENESIS, 0
        self.kid = ""
        self._keys = keys
        self._verifies: Verifier | None = None

    def fault(self, record: Record, *, after_gap: bool = False) -> str | None:
        """Why ``record`` is not the next one, or None. ``after_gap``: records in between are not at hand."""
        made, seq, at = _digest(record), record.get("seq"), record.get("at")
        if made is None or record.get("hash") != made:
            return "the record was changed"
        if record.get("writer") != self.writer or not isinstance(seq, int) or not isinstance(at, int):
            return "the record is of another place"
        if seq <= self.seq or (seq != self.seq + 1 and not after_gap):
            return "the record is of another place"
        if not after_gap and record.get("prev") != self.hash:
            return "the record does not follow the one before"
        if at < self.at:
            return "the record is earlier than the one before"
        why = self._forged(record, made, first=seq == 1)
        if why is None:
            self.seq, self.hash, self.at = seq, made, at
        return why

    def _forged(self, record: Record, made: str, *, first: bool) -> str | None:
        if first != (record.get("event") == STARTED):
            return "the chain does not begin with its key" if first else "the chain begins twice"
        if (
            not first and "mint_signature" in record
        ):  # outside of the hash, and looked at in a first record alone
            return "the record was changed"
        if first:
            why = self._begin(record, made)
            if why is not None:
                return why
        if self._verifies is None:
            return "the chain does not begin with its key"
        if not self._verifies(signed_part(made), str(record.get("signature"))):
            return "the signature of the record is wrong"
        return None

    def _begin(self, record: Record, made: str) -> str | None:
        """Whoever has the store but no mint key can make a chain of whole hashes, but not this signature."""
        self.kid = str(record.get("kid"))
        key = self._keys.get(self.kid)
        if key is None:
            return "the chain is not signed by a known mint key"
        if not verifies(key, mint_signed_part(made), str(record.get("mint_signature"))):
            return "the mint key's signature is wrong"
        jwk = record.get("writer_key")
        try:
            self._verifies = verifier(jwk if isinstance(jwk, dict) else {})
        except ValueError:
            return "the key of the chain is none"
        return None


def _digest(record: Record) -> str | None:
    try:
        return digest(record)
    except (ValueError, RecursionError):  # NaN, or brackets without end: nothing that we wrote
        return None


def verify(
    store: Store,
    keys: PublicKeys,
    now: float,
    *,
    against: Sequence[Named] = (),
    progress: Progress | None = None,
) -> Verified:
    """Recompute every chain, up to the first finding. A broker may go on writing meanwhile.

    ``keys`` are the mint keys by kid, retired ones too; ``against`` heads that were saved earlier: nothing up to
    them may be gone.

    Raises:
        StoreUnavailableError: the store does not answer, or holds what is no JSON.
    """
    heads: list[Named] = []
    kids: set[str] = set()
    count = 0

    def counted() -> None:
        nonlocal count
        count += 1
        if progress is not None and count % REPORT_EVERY == 0:
            progress(count)

    @functools.lru_cache(NAMED_IN_MEMORY)
    def missing(named: Named, by: str) -> Broken | None:
        return _missing(store, named, by, now)

    for writer in writers(store, now):
        chain = Chain(writer, keys)
        broken = _verify_chain(
            store, chain, now, counted, lambda named: missing(named, "a later chain names")
        )
        if broken:
            return Verified(broken, count, heads, frozenset(kids))
        heads.append(Named(writer, chain.seq, chain.hash))
        kids.add(chain.kid)
    gone = next(filter(None, (missing(named, "saved heads name") for named in against)), None)
    return Verified(gone, count, heads, frozenset(kids))


def _verify_chain(
    store: Store,
    chain: Chain,
    now: float,
    counted: Callable[[], None],
    missing: Callable[[Named], Broken | None],
) -> Broken | None:
    writer = chain.writer
    if not well_formed(writer):
        return Broken(writer, 0, "no chain is called so")
    while True:  # again for what was written meanwhile
        begun = chain.seq
        for sort, record in records(store, writer, now, begun + 1):
            seq = chain.seq + 1
            if sort != record_key(writer, seq).sort:
                return Broken(writer, seq, "the record is missing")
            why = chain.fault(record)
            if why:
                return Broken(writer, seq, why)
            counted()
            if seq == 1:
                gone = next(filter(None, map(missing, named_heads(record))), None)
                if gone:
                    return gone
        head = head_of(store, writer, now)
        if head is None:
            return Broken(writer, 0, "the chain has no head")
        if head.seq <= chain.seq or chain.seq == begun:
            return _wrong_head(chain, head)


def _wrong_head(chain: Chain, head: Head) -> Broken | None:
    if head.seq != chain.seq:
        return Broken(
            chain.writer, chain.seq + 1, "records are missing from here on, or the head was set back"
        )
    if (head.hash, head.at) != (chain.hash, chain.at):
        return Broken(chain.writer, chain.seq, "the head is of another record")
    return None


def _missing(store: Store, named: Named, by: str, now: float) -> Broken | None:
    """A head that somebody saw must still be there, with its chain in the list of chains."""
    if store.get(Key(WRITERS, named.writer), now=now) is None:
        return Broken(named.writer, 0, f"the chain is gone that {by}")
    record = record_of(store, named.writer, named.seq, now)
    if record is None:
        return Broken(named.writer, named.seq, f"from this record on the chain is gone, which {by}")
    if record.get("hash") != named.hash:
        return Broken(named.writer, named.seq, f"the record is not the one that {by}")
    return None


def verify_export(records: Iterable[Record], keys: PublicKeys, progress: Progress | None = None) -> Verified:
    """The same for the records of an export, without the store: in any order of chains, each in its own order.

    An export of some days holds, of a chain that began earlier, its first record and then a gap. What it
    cannot show is whether a chain, or the end of one, was left out: compare ``heads`` with saved ones.
    """
    chains: dict[str, Chain] = {}
    begins_late: set[str] = set()
    count = 0
    broken = None
    for count, record in enumerate(records, 1):
        writer = str(record.get("writer"))
        if not well_formed(writer):
            broken = Broken(writer, 0, f"line {count}: no chain is called so")
            break
        chain = chains.setdefault(writer, Chain(writer, keys))
        late = chain.seq == 1 and record.get("seq") != 2
        why = chain.fault(record, after_gap=late)
        if why:
            broken = Broken(writer, chain.seq + 1, f"line {count}: {why}")
            break
        if late:
            begins_late.add(writer)
        if progress is not None and count % REPORT_EVERY == 0:
            progress(count)
    whole = [Named(chain.writer, chain.seq, chain.hash) for chain in chains.values()]
    return Verified(broken, count, whole, frozenset(c.kid for c in chains.values()), len(begins_late))
