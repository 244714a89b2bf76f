"""How often somebody may be refused: with one ID token, as one person (refusals are records for ever), from one
address; and how often he may ask without proving anything.

Nobody who gets what he asks for is ever held up. In memory and per process: what it protects is the store and
the log, not a secret (guesses are counted durably, see ``attempts``).
"""

from __future__ import annotations

import ipaddress
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

BURST: Final = 200  # refusals with one ID token at once; 64 parallel jobs with one code cause 63
RATE: Final = 0.2  # a second after that: 17 280 records a day
# Of one person, whatever his tokens: more than a thief of one token causes in the hour that it is good for, so
# that he does not slow its owner down.
PERSON_BURST: Final = 1000
ASK_BURST: Final = 1000  # step-ups and challenges with one ID token: each is a write that leaves no record
ASK_RATE: Final = 5.0  # a second after that; a person with ten parallel commands needs two
MAX_PEOPLE: Final = (
    10_000  # or tokens, or addresses, that are remembered; the one counted longest ago gives way
)

# An address is a company as often as a machine: behind one NAT some thousand people may all be refused in the
# minute in which their identity provider is in trouble, and their SDKs ask three times each.
ADDRESS_BURST: Final = 5000
ADDRESS_RATE: Final = (
    10.0  # a second; one load balancer or scanner that asks for what is not there stays below
)

_NETWORK: Final = 64  # bits of an IPv6 address: what one subscriber is given at the least (RFC 6177 2)
_MAX_TEXT: Final = 64  # characters of what is no address


class Pace:
    """A bucket for each of many; ``burst`` at once, then ``rate`` a second."""

    def __init__(self, burst: float = BURST, rate: float = RATE) -> None:
        self._burst, self._rate = float(burst), rate
        self._lock = threading.Lock()
        self._buckets: dict[Hashable, tuple[float, float]] = {}  # who -> left, as of

    def allows(self, who: Hashable, *, now: float) -> bool:
        """Whether one more request of this one may be looked at."""
        with self._lock:
            return self._left(who, now) >= 1

    def count(self, who: Hashable, *, now: float) -> None:
        """Count one more."""
        with self._lock:
            left = max(0.0, self._left(who, now) - 1)
            self._buckets.pop(who, None)  # to the end: a dictionary keeps the order of insertion
            self._buckets[who] = (left, now)
            if len(self._buckets) > MAX_PEOPLE:
                del self._buckets[next(iter(self._buckets))]

    def _left(self, who: Hashable, now: float) -> float:
        left, since = self._buckets.get(who, (self._burst, now))
        # abs: what was counted by a clock that was hours fast must not hold anybody up for those hours
        return min(self._burst, left + abs(now - since) * self._rate)


def neighbourhood(address: str) -> Hashable:
    """Who is counted as one: an IPv4 address, or the /64 that an IPv6 address is in."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])  # the zone of a link-local address is ours
    except ValueError:
        return address[:_MAX_TEXT]
    if isinstance(ip, ipaddress.IPv4Address):
        return int(ip)
    mapped = ip.ipv4_mapped
    return int(mapped) if mapped is not None else ("v6", int(ip) >> (128 - _NETWORK))
