"""Where the broker remembers: items under two-part keys, and one atomic write.

Everything is an item: enrolments, auth sessions, factor sessions, invitations, counters, audit records.
Every item has a version; whoever decides on items he read writes on the condition that none of them has
changed since. That one rule is what makes a proof good exactly once, however many brokers run.

Keys (``partition``, ``sort``)::

    user#<user key>            profile | attempts | factor#<id> | auth#<hash> | fsession#<hash> | enrol#<hash>
    credential#<hash>          owner                  a WebAuthn credential id belongs to one user
    users#<first digit>        <user key>             a copy of the profile, by which people are found
    invitations                <hash>                 a day's, of everybody
    audit#<writer>             head | <sequence, 20 digits>

``<user key>`` is hex SHA-256(issuer NUL subject); ``<hash>`` is hex SHA-256 of a random handle, so that
the store never holds anything that could be presented to the broker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Key(NamedTuple):
    partition: str
    sort: str


@dataclass(frozen=True, kw_only=True)
class Item:
    """``value`` is JSON-shaped; ``expires_at`` in seconds since 1970, None for ever.

    ``version`` is another after every write and never comes back; it says nothing else.
    """

    key: Key
    value: Mapping[str, Any] = field(repr=False)
    version: int
    expires_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Put:
    """Write an item whole. ``expected``: its version when read, 0 for «must not exist», None for either."""

    key: Key
    value: Mapping[str, Any] = field(repr=False)
    expected: int | None
    expires_at: int | None = None


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Remove an item. ``expected`` as in ``Put`` (a version of 1 or more: it must still be that one)."""

    key: Key
    expected: int | None


@dataclass(frozen=True, kw_only=True)
class Check:
    """Write nothing, but only go on when the item still has this version (0: still does not exist)."""

    key: Key
    expected: int


Write = Put | Delete | Check


class ConflictError(Exception):
    """Some item is not as expected; nothing was written. Read again and decide again."""


class StoreUnavailableError(Exception):
    """The store could not answer or could not write; nothing may be issued."""


class Store(Protocol):
    """Raises ``StoreUnavailableError`` from every method when the backend fails.

    An expired item is absent to ``get`` and ``query`` (the code decides, a backend's own expiry only cleans
    up); ``now`` is in seconds since 1970. A ``Put`` or ``Check`` with ``expected=0`` on an expired item
    succeeds.
    """

    def get(self, key: Key, *, now: float) -> Item | None: ...

    def query(self, partition: str, prefix: str = "", *, now: float, limit: int = 1000) -> Sequence[Item]:
        """Items of one partition whose sort key starts with ``prefix``, in sort-key order."""

    def apply(self, writes: Sequence[Write], *, now: float) -> None:
        """All or nothing, durable when it returns; at most 100 writes on different keys.

        Raises:
            ConflictError: an expectation did not hold.
        """

    def close(self) -> None: ...
