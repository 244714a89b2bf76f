"""What administrators do to one person. Each act is one commit together with its record, and holds at once.

A request that has verified its proof already meets the changed profile in its own commit (design, step 5).
What is gone with a person's access: sessions to prove in, proofs that still serve, unfinished enrolments and
open invitations. What AWS has given out already is not the broker's to take back, see ``offboarding``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from credx.broker import attempts
from credx.broker.invitation import invited
from credx.broker.stores import ConflictError, Delete
from credx.broker.users import credential_key, factor_key, load_factors, load_profile, partition
from credx.broker.webauthn import credential_hash
from credx.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from credx.broker.audit import Audit
    from credx.broker.directory import Somebody
    from credx.broker.stores import Store, Write
    from credx.broker.users import Factor, Profile

TRIES: Final = 20  # against requests of the same person; each lost race is one that another write won
MAX_PENDING: Final = 60  # ended in the commit itself; with ten factors and the rest a commit holds 83
CHUNK: Final = 100  # writes of one ``Store.apply``


def set_disabled(
    store: Store, audit: Audit, who: Somebody, *, disabled: bool, administrator: str, now: float
) -> None:
    """Shut a person out, or let him in again. Either way no session and no enrolment goes on.

    Also not after the letting in: a request in flight may have left one behind after he was shut out.

    Raises:
        UnavailableError: the person's own requests kept coming in between; nothing was written.
        StoreUnavailableError: nothing was written, for all that is known.
    """

    def writes(profile: Profile) -> list[Write]:
        return [
            *_named(profile, who, disabled=disabled),
            *_pending(store, who, now, invitations=disabled),
        ]

    event = "disabled" if disabled else "enabled"
    _commit(store, audit, who, event, writes, administrator=administrator, now=now)


def unlock(store: Store, audit: Audit, who: Somebody, *, administrator: str, now: float) -> None:
    """Forget a person's wrong codes. Raises as ``set_disabled``."""
    _commit(
        store,
        audit,
        who,
        "unlocked",
        lambda _: [attempts.cleared(who.user_key)],
        administrator=administrator,
        now=now,
    )


def reset_factors(store: Store, audit: Audit, who: Somebody, *, administrator: str, now: float) -> list[str]:
    """Take every factor away, and what they proved; only a new invitation leads to another one.

    The names of the factors that are gone. Raises as ``set_disabled``.
    """
    gone: list[str] = []

    def writes(profile: Profile) -> list[Write]:
        factors = load_factors(store, who.user_key, now=now)
        gone[:] = [factor.name for factor in factors]
        return [
            # had_factor: the identity provider's own word is for those who never had one
            *_named(profile, who, had_factor=True),
            *(Delete(key=factor_key(who.user_key, f.id), expected=None) for f in factors),
            *(
                Delete(key=credential_key(credential_hash(f.material)), expected=None)
                for f in factors
                if f.kind == "webauthn"
            ),
            attempts.cleared(who.user_key),
            *_pending(store, who, now),
        ]

    _commit(store, audit, who, "factors_reset", writes, administrator=administrator, now=now)
    return gone


def _named(profile: Profile, who: Somebody, **changes: bool) -> list[Write]:
    """Somebody who never came is in the directory from now on, or nobody could let him in again."""
    known = {} if profile.value else {"user": who.user, "issuer": who.issuer, "subject": who.subject}
    return profile.changed(who.user_key, **known, **changes)


def _pending(store: Store, who: Somebody, now: float, *, invitations: bool = True) -> list[Write]:
    """The writes that end what is pending; what no commit could hold besides is ended on the way.

    A person keeps some fifty things pending at the most, and a few more where requests came at once.
    """
    kinds = ("auth#", "fsession#", "enrol#")
    keys = [i.key for kind in kinds for i in store.query(partition(who.user_key), kind, now=now)]
    if invitations:
        keys += [item.key for item in invited(store, who.issuer, who.subject, now=now)]
    over = [Delete(key=key, expected=None) for key in keys[MAX_PENDING:]]
    for start in range(0, len(over), CHUNK):
        store.apply(over[start : start + CHUNK], now=now)
    return [Delete(key=key, expected=None) for key in keys[:MAX_PENDING]]


def _commit(
    store: Store,
    audit: Audit,
    who: Somebody,
    event: str,
    writes: Callable[[Profile], Sequence[Write]],
    *,
    administrator: str,
    now: float,
) -> None:
    record = {
        "event": event,
        "user_key": who.user_key,
        "user": who.user,
        "issuer": who.issuer or None,
        "subject": who.subject or None,
        "administrator": administrator,
        "detail": f"by {administrator}",
    }
    for _ in range(TRIES):
        profile = load_profile(store, who.user_key, now=now)
        try:
            audit.commit(writes(profile), record, now=now)
        except ConflictError:
            continue
        return
    raise UnavailableError("requests of this person kept coming in between: nothing was changed, try again")


def described(store: Store, who: Somebody, *, now: float) -> dict[str, Any]:
    """Everything about one person that an administrator may see: no secret, and no hash of one."""
    factors = load_factors(store, who.user_key, now=now)
    tally = attempts.load(store, who.user_key, now=now).get(attempts.PERSON)
    rest = tally.rest(now)
    return {
        **listed(who, factors),
        "factors": [factor.listing() | {"disabled": factor.disabled} for factor in factors],
        "pending": {
            "auth_sessions": len(store.query(partition(who.user_key), "auth#", now=now)),
            "factor_sessions": len(store.query(partition(who.user_key), "fsession#", now=now)),
            "enrolments": len(store.query(partition(who.user_key), "enrol#", now=now)),
            "invitations": len(invited(store, who.issuer, who.subject, now=now)),
        },
        "wrong_codes": tally.failures,
        "locked": "until unlocked" if math.isinf(rest) else int(rest),
    }


def listed(who: Somebody, factors: Sequence[Factor]) -> dict[str, Any]:
    """One person in a list. ``last_used_at``: of any factor, seconds since 1970, None for never."""
    used = [factor.last_used_at for factor in factors if factor.last_used_at is not None]
    return {
        "user": who.user,
        "user_key": who.user_key,
        "issuer": who.issuer,
        "subject": who.subject,
        "disabled": who.disabled,
        "factors": {kind: sum(f.kind == kind for f in factors) for kind in ("webauthn", "totp")},
        "last_used_at": max(used, default=None),
    }
