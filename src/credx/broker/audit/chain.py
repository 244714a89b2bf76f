"""The audit chains as they lie in the store: their keys, which there are, and their records from either end.

``audit / <writer>`` lists the writers; ``audit#<writer>`` holds ``head`` (the last sequence number, its hash
and its time) and the records under their 20-digit sequence numbers.
"""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credx.broker.stores import Key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from credx.broker.stores import Store

    Sorted = tuple[str, Mapping[str, Any]]  # (sort key, record)

WRITERS: Final = "audit"
PAGE: Final = 1000  # records that share all but the last three digits of their sequence number
MAX_HOLE: Final = (
    100  # empty pages to read over: a head may name any number, and a reader must come to its end
)
MAX_SEQ: Final = 10**15  # more than a chain will ever have, and few enough to be counted (``len`` of a range)
WRITER_ALPHABET: Final = "-0123456789abcdef"
WRITER_LENGTH: Final = 29
_TIME_DIGITS: Final = 12


class Head(NamedTuple):
    seq: int
    hash: str
    at: int  # seconds since 1970


class Named(NamedTuple):
    """A head as it is named elsewhere: in the first record of a later chain, or in a file of heads."""

    writer: str
    seq: int
    hash: str


def named_heads(source: Mapping[str, Any]) -> list[Named]:
    """What ``source["heads"]`` names; what is not well formed is left out."""
    heads = source.get("heads")
    named = []
    for one in heads if isinstance(heads, list) else ():
        writer, seq, found = (
            (one.get(name) for name in Named._fields) if isinstance(one, dict) else (None,) * 3
        )
        if (
            isinstance(writer, str)
            and well_formed(writer)
            and isinstance(seq, int)
            and isinstance(found, str)
        ):
            named.append(Named(writer, max(1, seq), found))
    return named


def born(writer: str) -> int:
    """When the writer's process started, seconds since 1970; no record of its chain is earlier."""
    return int(writer[:_TIME_DIGITS], 16) // 1000


def well_formed(writer: str) -> bool:
    return (
        len(writer) == WRITER_LENGTH
        and writer[_TIME_DIGITS] == "-"
        and set(writer.replace("-", "", 1)) <= set(WRITER_ALPHABET[1:])
    )


def head_key(writer: str) -> Key:
    return Key(f"audit#{writer}", "head")


def record_key(writer: str, seq: int) -> Key:
    return Key(f"audit#{writer}", f"{seq:020d}")


def head_of(store: Store, writer: str, now: float) -> Head | None:
    """None: there is none, or what is there is none."""
    item = store.get(head_key(writer), now=now)
    if item is None:
        return None
    seq, found, at = (item.value.get(name) for name in Head._fields)
    if type(seq) is not int or not 1 <= seq <= MAX_SEQ or type(at) is not int or not isinstance(found, str):
        return None
    return Head(seq, found, at)


def record_of(store: Store, writer: str, seq: int, now: float) -> Mapping[str, Any] | None:
    item = store.get(record_key(writer, seq), now=now)
    return None if item is None else item.value


def writers(store: Store, now: float, prefix: str = "", *, newest_first: bool = False) -> Iterator[str]:
    """All of them in order of their start, however many: a full page is asked for again in parts."""
    page = [item.key.sort for item in store.query(WRITERS, prefix, now=now, limit=PAGE)]
    if len(page) < PAGE:
        yield from reversed(page) if newest_first else page
    else:
        for letter in reversed(WRITER_ALPHABET) if newest_first else WRITER_ALPHABET:
            yield from writers(store, now, prefix + letter, newest_first=newest_first)


def records(store: Store, writer: str, now: float, first: int = 1) -> Iterator[Sorted]:
    """From sequence number ``first`` on, up to the head; past it too, as long as pages hold something."""
    head = head_of(store, writer, now)
    last, page, empty = head.seq if head else 0, first // PAGE, 0
    start = record_key(writer, first).sort
    while empty <= MAX_HOLE:
        items = store.query(head_key(writer).partition, f"{page:017d}", now=now, limit=PAGE)
        yield from ((item.key.sort, item.value) for item in items if item.key.sort >= start)
        page, empty = page + 1, 0 if items else empty + 1
        if not items and page * PAGE > last:
            return


def records_backwards(store: Store, writer: str, now: float, before: float = math.inf) -> Iterator[Sorted]:
    """Back to the first, from the head or from the last record that is before the time ``before``."""
    head = head_of(store, writer, now)
    if head is None or record_of(store, writer, head.seq, now) is None:  # somebody was at it
        yield from reversed(list(records(store, writer, now)))
        return
    last = head.seq if head.at < before else first_since(store, writer, before, now)
    empty = 0
    for page in range(last // PAGE, -1, -1):
        items = store.query(head_key(writer).partition, f"{page:017d}", now=now, limit=PAGE)
        yield from ((item.key.sort, item.value) for item in reversed(items))
        empty = 0 if items else empty + 1
        if empty > MAX_HOLE:  # what is below it has no end either: from the other side there is one
            yield from reversed([one for one in records(store, writer, now) if one[0] < f"{page:017d}"])
            return


def first_since(store: Store, writer: str, since: float, now: float) -> int:
    """The sequence number of the first record that is not before ``since``, found by halving the chain."""
    head = head_of(store, writer, now)
    if head is None:
        return 1

    def at(seq: int) -> float:
        found = (record_of(store, writer, seq, now) or {}).get("at")
        return found if isinstance(found, int) else math.inf  # a gap never hides what comes after it

    return bisect.bisect_left(range(1, head.seq + 1), since, key=at) + 1
