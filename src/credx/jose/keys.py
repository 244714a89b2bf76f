"""The keys that identity providers publish: fetched rarely, kept while they serve, never forgotten in a hurry.

What went wrong elsewhere: one fetch per unknown kid, and a cache wiped by one failure (GHSA-fhv5-28vv-h8m8);
key sets swapped by redirect or by a foreign host (GHSA-f5mr-q85p-6hh6); the token choosing whom the server
contacts (CVE-2025-52477).
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from credx.errors import UnavailableError
from credx.jose.jwk import Keys, usable_keys
from credx.jose.trust import TokenError
from credx.strict import json_object
from credx.urls import origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from credx.jose.trust import TrustedIssuer, VerificationKey

# Seconds. A key that the issuer withdraws is good for at most MAX_AGE more while the issuer can be reached
# (OpenID Connect Core 10.1.1 leaves the time to us; providers publish new keys hours before they use them).
MAX_AGE: Final = 600
# How long the last good set serves while the issuer is down (GHSA-fhv5-28vv-h8m8)
LAST_GOOD: Final = 24 * 3600
REFETCH: Final = 30  # at most one fetch in this time, whatever kids strangers send
DEADLINE: Final = 5.0  # for one fetch: discovery and key set together, to their last byte
# For another thread's first fetch. With a set at hand nobody waits, or strangers' kids could hold threads.
WAIT: Final = DEADLINE

# Threads. A broker has eight (``broker.wsgi``): a slow issuer holds half of them at the most, and all slow
# issuers together leave some for those who need no fetch. Whoever finds no room is told to try again.
ROOM: Final = 4  # that fetch or wait, for one issuer
ROOM_ALTOGETHER: Final = 6
# Who finds no room for a first set waits as long as a healthy provider takes, counted from when it was asked: all
# who come together after a start are served, and a silent one costs the others this much once in REFETCH.
BLINK: Final = 0.3  # seconds


class Fetch(Protocol):
    """A GET with a bound on size that follows no redirect and ends within ``deadline`` seconds.

    Raises:
        UnavailableError: whatever else it might have answered.
    """

    def __call__(self, url: str, *, deadline: float) -> bytes: ...


@dataclass
class _Issuer:
    """What is known of one issuer. ``keys`` is replaced whole, so that readers need no lock."""

    fetching: threading.Lock = field(default_factory=threading.Lock)
    keys: Keys = field(default_factory=dict)
    fetched_at: float | None = None
    tried_at: float | None = None
    failed: bool = False
    inside: int = 0  # threads that fetch or wait
    since: float = 0.0  # when the first of them came, by the monotonic clock


class RemoteKeys:
    """A ``KeySource`` over the issuers' own documents: discovery, then the key set it names.

    Safe to share between threads: nobody who has a good key waits for a fetch that somebody else makes, and
    nobody at all for another issuer's.

    Args:
        fetch: see ``Fetch``.
        clock: monotonic seconds.
    """

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._register = threading.Lock()  # never held over anything that waits
        self._issuers: dict[TrustedIssuer, _Issuer] = {}  # configured ones only, so it cannot grow
        self._inside = 0

    def key(self, issuer: TrustedIssuer, kid: str, algorithm: str, *, now: float) -> VerificationKey:
        """As ``KeySource.key``."""
        with self._register:
            known = self._issuers.setdefault(issuer, _Issuer())
        name = (kid, algorithm)
        if _within(now, known.fetched_at, MAX_AGE) and (key := known.keys.get(name)):
            return key
        self._refresh(issuer, known, name, now)
        if not _within(now, known.fetched_at, LAST_GOOD):
            raise UnavailableError("the keys of the identity provider cannot be fetched")
        if key := known.keys.get(name):
            return key
        if known.failed:  # it may be new: nobody can tell before the issuer answers again
            raise UnavailableError("the keys of the identity provider cannot be renewed")
        raise TokenError("unknown-key", "the token is signed with a key that its issuer does not publish")

    def _refresh(self, issuer: TrustedIssuer, known: _Issuer, name: tuple[str, str], now: float) -> None:
        """Fetch where it is due, or wait for who does, where there is no set yet.

        Raises:
            UnavailableError: the set that may hold the key is still on its way.
        """
        has_set = _within(now, known.fetched_at, LAST_GOOD)
        with self._room(known) as free:
            patience = 0 if has_set else WAIT if free else known.since + BLINK - self._clock()
            if (free or patience > 0) and known.fetching.acquire(timeout=patience):
                try:
                    if free:
                        self._fetch_if_due(issuer, known, now)
                finally:
                    known.fetching.release()
                return
        if not (has_set and name in known.keys):
            raise UnavailableError("the keys of the identity provider are still being fetched")

    @contextmanager
    def _room(self, known: _Issuer) -> Iterator[bool]:
        with self._register:
            free = known.inside < ROOM and self._inside < ROOM_ALTOGETHER
            if free and not known.inside:
                known.since = self._clock()
            known.inside, self._inside = known.inside + free, self._inside + free
        try:
            yield free
        finally:
            with self._register:
                known.inside, self._inside = known.inside - free, self._inside - free

    def _fetch_if_due(self, issuer: TrustedIssuer, known: _Issuer, now: float) -> None:
        if _within(now, known.tried_at, REFETCH):
            return
        known.failed = True
        known.tried_at = now
        try:
            known.keys = self._fetch_keys(issuer)
        except (UnavailableError, ValueError):
            return  # the last good set stays
        known.fetched_at = now
        known.failed = False

    def _fetch_keys(self, issuer: TrustedIssuer) -> Keys:
        ends = self._clock() + DEADLINE
        jwks_uri = issuer.jwks_uri
        if jwks_uri is None:
            # OpenID Connect Discovery 4: the document's issuer must be the very string that was asked for
            address = issuer.issuer.removesuffix("/") + "/.well-known/openid-configuration"
            document = json_object(self._fetch(address, deadline=DEADLINE))
            jwks_uri = document.get("jwks_uri")
            if document.get("issuer") != issuer.issuer:
                raise ValueError("discovery names another issuer")
            if not isinstance(jwks_uri, str):
                raise ValueError("discovery names no key set")
            # Fulcio GHSA-f5mr-q85p-6hh6; whose keys are elsewhere is pinned. file:, data: have no origin: ValueError
            if origin(jwks_uri) != origin(issuer.issuer):
                raise ValueError("discovery names a key set on another origin")
        left = ends - self._clock()
        if left <= 0:
            raise UnavailableError("the discovery document took all the time there was")
        return usable_keys(self._fetch(jwks_uri, deadline=left))


def _within(now: float, then: float | None, seconds: float) -> bool:
    """Parallel requests are a little apart; a clock that was set back makes nothing immortal."""
    return then is not None and -REFETCH < now - then < seconds
