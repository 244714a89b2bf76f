"""Auth sessions: the five minutes between «a second factor is needed» and its proof.

A session is bound to all that the proof is for. It is stored under its owner's key by the hash of its handle,
so that nobody else's token finds it, and it is deleted in the commit that its proof allows.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from credx.broker.handles import handle_hash, new_handle
from credx.broker.stored import reading
from credx.broker.stores import ConflictError, Delete, Key, Put
from credx.broker.users import partition, room_for_one_more
from credx.jose import CLOCK_LEEWAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credx.broker.handles import Rng
    from credx.broker.stores import Item, Store
    from credx.model import Secret

LIFE: Final = 300  # seconds (design, step 3)
CHALLENGE_LIFE: Final = 120  # seconds (design, step 3)
MAX_OPEN: Final = 20  # of one ID token; its oldest gives way
MAX_OPEN_PERSON: Final = 40  # of one person; the token with the most gives way
MAX_FAILURES: Final = 5  # wrong WebAuthn answers in one session


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What has to be proved.

    Attributes:
        purpose: what the proof is for, in one spelling: an ask, or the factor to enrol or remove.
        kinds: accepted kinds. user_verification: a WebAuthn proof must carry UV.
        group, max_age: an earlier proof within ``group`` serves for ``max_age`` seconds; 0: none does.
    """

    purpose: str
    kinds: tuple[str, ...]
    user_verification: bool
    group: str = ""
    max_age: int = 0


def binding(demand: Demand, *, user_key: str, token_hash: str) -> str:
    """Hex SHA-256 over user, ID token and purpose: what you touch is what you get (design, step 3)."""
    text = json.dumps([user_key, token_hash, demand.purpose], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class AuthSession:
    """``challenge_at`` is 0 while there is no challenge. ``version``: of the stored item."""

    key: Key
    bound: str
    token_hash: str
    kinds: tuple[str, ...]
    user_verification: bool
    failures: int
    challenge: bytes = field(repr=False)
    challenge_at: int
    expires_at: int
    version: int

    def live_challenge(self, now: float) -> bytes | None:
        """The challenge, if it was made at most ``CHALLENGE_LIFE`` seconds ago, and not in the future."""
        alive = self.challenge and -CLOCK_LEEWAY <= now - self.challenge_at <= CHALLENGE_LIFE
        return self.challenge if alive else None

    def put(self, **changes: Any) -> Put:
        value = {
            "bound": self.bound,
            "token_hash": self.token_hash,
            "kinds": list(self.kinds),
            "user_verification": self.user_verification,
            "failures": self.failures,
            "challenge": self.challenge.hex(),
            "challenge_at": self.challenge_at,
        }
        return Put(key=self.key, value=value | changes, expected=self.version, expires_at=self.expires_at)


def open_session(
    store: Store, rng: Rng, demand: Demand, *, user_key: str, token_hash: str, now: float
) -> Secret:
    """A new session for one demand; the handle is known to the caller alone."""
    handle = new_handle(rng)
    session = AuthSession(
        key=_key(user_key, handle),
        bound=binding(demand, user_key=user_key, token_hash=token_hash),
        token_hash=token_hash,
        kinds=demand.kinds,
        user_verification=demand.user_verification,
        failures=0,
        challenge=b"",
        challenge_at=0,
        expires_at=int(now) + LIFE,
        version=0,
    )
    pending = store.query(partition(user_key), "auth#", now=now)
    store.apply([session.put(), *_room(pending, token_hash)], now=now)
    return handle


def _room(pending: Sequence[Item], token_hash: str) -> list[Delete]:
    """Whoever stole an ID token of a person asks in vain: he pushes out what was begun with that token, and never
    the few sessions of another one.
    """
    by_token: dict[str, list[Item]] = {token_hash: []}
    with reading("auth session"):
        for item in pending:
            by_token.setdefault(item.value["token_hash"], []).append(item)
    own, most = by_token[token_hash], max(by_token.values(), key=len)
    if len(own) < MAX_OPEN and len(pending) >= MAX_OPEN_PERSON:
        return room_for_one_more(most, len(most) + MAX_OPEN_PERSON - len(pending))
    return room_for_one_more(own, MAX_OPEN)


def load_session(store: Store, user_key: str, handle: Secret, *, now: float) -> AuthSession | None:
    item = store.get(_key(user_key, handle), now=now)
    if item is None or item.expires_at is None:
        return None
    with reading("auth session"):
        value = dict(item.value)
        return AuthSession(
            key=item.key,
            bound=value["bound"],
            token_hash=value["token_hash"],
            kinds=tuple(value["kinds"]),
            user_verification=bool(value["user_verification"]),
            failures=int(value["failures"]),
            challenge=bytes.fromhex(value["challenge"]),
            challenge_at=int(value["challenge_at"]),
            expires_at=item.expires_at,
            version=item.version,
        )


def count_failure(store: Store, session: AuthSession, *, now: float) -> bool:
    """Burn the challenge and count a wrong answer, durably. False: that was the last one, the session is gone."""
    goes_on = session.failures + 1 < MAX_FAILURES
    burnt = session.put(failures=session.failures + 1, challenge="", challenge_at=0)
    try:
        store.apply([burnt if goes_on else Delete(key=session.key, expected=session.version)], now=now)
    except ConflictError:
        return False  # used or changed by a parallel request: this one is over
    return goes_on


def _key(user_key: str, handle: Secret) -> Key:
    return Key(partition(user_key), f"auth#{handle_hash(handle)}")
