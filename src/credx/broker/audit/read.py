"""Reading the audit trail: of every chain only the part that is asked for, in order of time, never all at once.

A record's time is never before the record in front of it, and never before its writer's start. So a reader
leaves out whole chains, finds its place in a long one by halving, and merges what is left.
"""

from __future__ import annotations

import heapq
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from credx.broker.audit.chain import (
    born,
    first_since,
    head_of,
    record_of,
    records,
    records_backwards,
    well_formed,
    writers,
)
from credx.broker.audit.record import STARTED
from credx.broker.issuance import SHORT, begun_at
from credx.broker.person import USER_HASH, hash_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from credx.broker.stores import Store

    Record = Mapping[str, Any]

# An issuance id holds the time at which its request came in: ``granted`` may bear a time up to a minute
# later (``audit.MAX_STEP_BACK``), and its outcome comes when STS has answered or been given up.
BEFORE: Final = 60  # seconds
AFTER: Final = 20 * 60
_SHOWN = re.compile(rf".+-([0-9a-f]{{{USER_HASH}}})")  # see ``person.shown_name``


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to look for; None matches everything.

    Attributes:
        user: the shown name, the user key, or ``ISSUER|SUBJECT``.
        issuance: a whole issuance id, or its last eight digits as a session name ends with.
        since, until: ``since <= at < until`` in seconds since 1970.
        starts: with the records ``started``, of which nobody did anything.
    """

    user: str | None = None
    role: str | None = None
    issuance: str | None = None
    event: str | None = None
    access_key_id: str | None = None
    since: float | None = None
    until: float | None = None
    starts: bool = False

    def span(self) -> tuple[float, float]:
        """The time that has to be read."""
        low = 0.0 if self.since is None else self.since
        high = float("inf") if self.until is None else self.until
        begun = begun_at(self.issuance) if self.issuance else None
        if begun is not None:
            low, high = max(low, begun - BEFORE), min(high, begun + AFTER)
        return low, high

    def matches(self, record: Record) -> bool:
        if record.get("event") == STARTED and not self.starts and self.event != STARTED:
            return False
        wanted = (self.role, self.event, self.access_key_id)
        found = (record.get("role"), record.get("event"), record.get("access_key_id"))
        return (
            all(want is None or want == is_ for want, is_ in zip(wanted, found, strict=True))
            and (self.issuance is None or self._is_issuance(record.get("issuance")))
            and (self.user is None or self._is_user(record))
        )

    def _is_issuance(self, found: object) -> bool:
        wanted = self.issuance or ""
        return found == wanted or (
            len(wanted) == SHORT and isinstance(found, str) and found[-SHORT:] == wanted
        )

    def _is_user(self, record: Record) -> bool:
        key = record.get("user_key")
        issuer, subject = record.get("issuer"), record.get("subject")
        if key is None and isinstance(issuer, str) and isinstance(subject, str):
            key = hash_of(issuer, subject)  # of somebody who was invited and has not come yet
        names = {self.user}
        if self.user is not None and "|" in self.user:
            names.add(hash_of(*self.user.split("|", 1)))
        # the readable part of a shown name is a claim of its day, and people may have a hand in it
        shown = _SHOWN.fullmatch(self.user or "")
        if shown and isinstance(key, str) and key.startswith(shown[1]):
            return True
        return record.get("user") in names or key in names


def read(store: Store, wanted: Wanted, now: float, *, newest_first: bool = False) -> Iterator[Record]:
    """Records of all writers in order of (at, writer, seq), as they are in the store: see ``verify``.

    ``newest_first`` turns the order of time round. At any time one page of each chain that was alive at the
    moment that the reader has come to is in memory.

    Raises:
        StoreUnavailableError: also in the middle.
    """
    span = wanted.span()
    return _read(store, wanted, _alive(store, span, now), now, newest_first=newest_first)


def read_with_starts(store: Store, wanted: Wanted, now: float) -> Iterator[Record]:
    """The same, and before it the first record of every chain that is read from its middle.

    It holds the key with which the others are verified.
    """
    low, high = wanted.span()
    alive = _alive(store, (low, high), now)
    for writer, _ in alive:
        first = record_of(store, writer, 1, now) if born(writer) < low else None
        if first is not None and (_at(first) or 0) < low:
            yield first
    yield from _read(store, wanted, alive, now)


def _alive(store: Store, span: tuple[float, float], now: float) -> list[tuple[str, int]]:
    """The writers that have records in ``span``, and when each wrote its last."""
    low, high = span
    found = []
    for writer in writers(store, now):
        if well_formed(writer) and born(writer) < high:
            head = head_of(store, writer, now)
            if head is None or head.at >= low:
                found.append((writer, head.at if head else int(now)))
    return found


def _read(
    store: Store, wanted: Wanted, alive: list[tuple[str, int]], now: float, *, newest_first: bool = False
) -> Iterator[Record]:
    span = wanted.span()
    if newest_first:
        by_end = sorted(alive, key=lambda chain: -chain[1])
        chains = ((-last, _back(store, writer, span, now)) for writer, last in by_end)
    else:
        chains = ((born(writer), _forth(store, writer, span, now)) for writer, _ in alive)
    return (record for record in _merged(chains, -1 if newest_first else 1) if wanted.matches(record))


def _at(record: Record) -> int | None:
    at = record.get("at")
    return at if type(at) is int else None


def _forth(store: Store, writer: str, span: tuple[float, float], now: float) -> Iterator[Record]:
    low, high = span
    for _, record in records(store, writer, now, first_since(store, writer, low, now) if low > 0 else 1):
        at = _at(record)  # a record without a time is none of ours, and shown wherever it lies
        if at is not None and at >= high:
            return
        if at is None or at >= low:
            yield record


def _back(store: Store, writer: str, span: tuple[float, float], now: float) -> Iterator[Record]:
    low, high = span
    for _, record in records_backwards(store, writer, now, high):
        at = _at(record)
        if at is not None and at < low:
            return
        if at is None or at < high:
            yield record


def _merged(chains: Iterable[tuple[float, Iterator[Record]]], sign: int) -> Iterator[Record]:
    """One stream out of many, each in order. ``chains`` come with a bound on their first record, and are opened
    only when the stream has come that far.
    """
    heap: list[tuple[float, str, int, Record, Iterator[Record]]] = []
    pushed = itertools.count()  # keeps one chain's records in order, and two records from being compared

    def push(chain: Iterator[Record]) -> None:
        for record in chain:
            at = sign * (_at(record) or 0)
            heapq.heappush(heap, (at, str(record.get("writer")), next(pushed), record, chain))
            return

    for bound, chain in chains:
        while heap and heap[0][0] < bound:
            yield heap[0][3]
            push(heapq.heappop(heap)[4])
        push(chain)
    while heap:
        yield heap[0][3]
        push(heapq.heappop(heap)[4])
