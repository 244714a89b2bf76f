"""How often codes were guessed in a row, and how long they then rest (NIST SP 800-63B-4 3.2.2).

One item for each person counts twice: for every app alone, and for all codes of the person together. A typed code does
not say which app it is of, so it is a guess at each. The person's count ends with any right code, an app's only
with one of its own: an app that somebody guesses at locks for good after ``MOST``, and the others go on.

Security keys are not counted here. A signature cannot be guessed, 3.2.2 asks for no limit on them, and whoever holds
a stolen ID token could lock a key by wrong answers. What bounds those is their auth session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from credx.broker.stored import reading
from credx.broker.stores import ConflictError, Delete, Key, Put
from credx.broker.users import partition
from credx.errors import Refusal
from credx.jose import CLOCK_LEEWAY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from credx.broker.stores import Store, Write

FREE: Final = 5  # failures in a row without a rest
FIRST_REST: Final = 30  # seconds, doubled with every further failure
LONGEST_REST: Final = 3600
MOST: Final = 100  # NIST SP 800-63B-4 3.2.2; an administrator has to unlock after that
TRIES: Final = 20  # of one count against others; at most FREE of them can win

LOCKED: Final = "locked"  # how the private cause of a refusal begins while codes rest

PERSON: Final = "person"  # no factor's id: those are hex


class Tally(NamedTuple):
    failures: int = 0
    last: int = 0  # seconds since 1970

    def rest(self, now: float) -> float:
        """Seconds until the next attempt may be looked at; infinity after ``MOST``."""
        if self.failures >= MOST:
            return float("inf")
        if self.failures < FREE or self.last > now + CLOCK_LEEWAY:
            return 0  # of a clock that was fast: nobody rests for hours because of that, and MOST holds by any clock
        rest = min(FIRST_REST << (self.failures - FREE), LONGEST_REST)
        return max(0, self.last + rest - int(now))

    def counted(self, now: float) -> Tally:
        return Tally(self.failures + 1, int(now))

    def taken_back(self) -> Tally:
        """As before ``counted``: what was looked at was not resting."""
        return Tally(max(0, self.failures - 1), 0)


class Tallies(NamedTuple):
    """``of``: by factor id, and ``PERSON``. ``version``: of the stored item, 0: there is none."""

    of: Mapping[str, Tally]
    version: int

    def get(self, name: str) -> Tally:
        return self.of.get(name, Tally())

    def write(self, user_key: str, changed: Mapping[str, Tally], *, expected: int | None) -> Write:
        kept = {name: tally for name, tally in {**self.of, **changed}.items() if tally.failures}
        if not kept:
            return Delete(key=_key(user_key), expected=expected or None)
        return Put(key=_key(user_key), value={n: list(tally) for n, tally in kept.items()}, expected=expected)


def load(store: Store, user_key: str, *, now: float) -> Tallies:
    """What is counted of one person. Raises ``StoreUnavailableError``."""
    item = store.get(_key(user_key), now=now)
    if item is None:
        return Tallies({}, 0)
    with reading("count of attempts"):
        return Tallies({name: Tally(int(n), int(at)) for name, (n, at) in item.value.items()}, item.version)


def count(store: Store, user_key: str, factor_ids: Sequence[str], *, now: float) -> list[str]:
    """Count one code, durably, before it is looked at: the apps, of ``factor_ids``, that it may be compared with.

    Raises:
        Refusal: locked after too many wrong codes; the code must not be looked at.
    """
    for _ in range(TRIES):
        tallies = load(store, user_key, now=now)
        awake = _awake(tallies, factor_ids, now)
        more = {name: tallies.get(name).counted(now) for name in (PERSON, *awake)}
        try:
            store.apply([tallies.write(user_key, more, expected=tallies.version)], now=now)
        except ConflictError:
            continue
        return awake
    raise Refusal("temporarily_unavailable", "too many attempts at once", "counter contended")


def refuse_if_locked(store: Store, user_key: str, factor_ids: Sequence[str], *, now: float) -> None:
    """Tell at once that the last wrong code was one too many. Raises ``Refusal``."""
    _awake(load(store, user_key, now=now), factor_ids, now)


def take_back(store: Store, user_key: str, counted: Iterable[str], *, now: float) -> None:
    """A code that was right but used is no guess (parallel jobs share a time step)."""
    tallies = load(store, user_key, now=now)
    less = {name: tallies.get(name).taken_back() for name in (PERSON, *counted)}
    try:
        store.apply([tallies.write(user_key, less, expected=tallies.version)], now=now)
    except ConflictError:
        return  # another attempt counts at this moment; one count too many does no harm


def passed(store: Store, user_key: str, factor_id: str, *, now: float) -> Write:
    """The write that forgets the failures of an app and of its owner, for the commit of a right code.

    The same code was counted at the other apps too, at this ``now``: that was no guess. The write holds whatever
    is counted meanwhile: else a guesser could make the commit of a right code fail.
    """
    tallies = load(store, user_key, now=now)
    others = {name: tally.taken_back() for name, tally in tallies.of.items() if tally.last == int(now)}
    return tallies.write(user_key, {**others, PERSON: Tally(), factor_id: Tally()}, expected=None)


def cleared(user_key: str) -> Delete:
    """The write that forgets all failures of a person, for an administrator who unlocks."""
    return Delete(key=_key(user_key), expected=None)


def _awake(tallies: Tallies, factor_ids: Sequence[str], now: float) -> list[str]:
    awake = [factor_id for factor_id in factor_ids if not tallies.get(factor_id).rest(now)]
    if tallies.get(PERSON).rest(now):
        raise _locked(tallies.get(PERSON), now)
    if not awake:
        soonest = min((tallies.get(factor_id) for factor_id in factor_ids), key=lambda tally: tally.rest(now))
        raise _locked(soonest, now)
    return awake


def _locked(tally: Tally, now: float) -> Refusal:
    rest, detail = tally.rest(now), f"{LOCKED}, {tally.failures} wrong codes"
    if rest == float("inf"):
        public = "codes are locked after too many wrong ones: ask an administrator"
    else:
        public = f"too many wrong codes: try again in {rest:.0f} seconds"
    return Refusal("insufficient_authorization", public, detail)


def _key(user_key: str) -> Key:
    return Key(partition(user_key), "attempts")
