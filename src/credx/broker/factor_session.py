"""Factor sessions: one proof that serves for a while, where a role says so (``factor_max_age``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from credx.broker.handles import handle_hash, new_handle
from credx.broker.stored import reading
from credx.broker.stores import Delete, Key, Put
from credx.broker.users import load_factor, partition, room_for_one_more
from credx.errors import Refusal
from credx.jose import CLOCK_LEEWAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credx.broker.auth_session import Demand
    from credx.broker.handles import Rng
    from credx.broker.stores import Store, Write
    from credx.broker.users import Factor
    from credx.model import Secret

MAX_OPEN: Final = 20  # of one person; the oldest gives way


@dataclass(frozen=True, kw_only=True)
class Served:
    """An earlier proof that serves: by which factor and when. ``version``: of the stored item."""

    key: Key
    factor: Factor
    group: str
    user_verified: bool
    proved_at: int
    version: int


def serving(store: Store, user_key: str, handle: Secret, demand: Demand, *, now: float) -> Served:
    """The earlier proof behind a handle, if it serves for this demand.

    Raises:
        Refusal: not this person's, ended, of another group, too old, too weak, or its factor is gone.
    """
    key = Key(partition(user_key), f"fsession#{handle_hash(handle)}")
    item = store.get(key, now=now)
    if item is None:
        raise _no("not known, or ended")
    with reading("factor session"):
        factor_id, group = str(item.value["factor_id"]), str(item.value["group"])
        user_verified, proved_at = item.value["user_verified"] is True, int(item.value["proved_at"])
    factor = load_factor(store, user_key, factor_id, now=now)
    if factor is None:
        raise _no("its factor is gone")
    served = Served(
        key=key,
        factor=factor,
        group=group,
        user_verified=user_verified,
        proved_at=proved_at,
        version=item.version,
    )
    refuse_if_unfit(served, demand, now=now)
    return served


def refuse_if_unfit(served: Served, demand: Demand, *, now: float) -> None:
    """Whether an earlier proof serves for this demand: asked when it is presented and again in the commit.

    Raises:
        Refusal: of another group, too old or too weak, or its factor is disabled.
    """
    if not demand.max_age or served.group != demand.group:
        raise _no("does not serve here")
    # the age counts from the proof, whichever role it was for; a clock that was set back makes no proof younger
    if not -CLOCK_LEEWAY <= now - served.proved_at <= demand.max_age:
        raise _no("proof too old for this role")
    if served.factor.disabled or served.factor.kind not in demand.kinds:
        raise _no("its factor is disabled or of a kind that does not serve here")
    if served.factor.kind == "webauthn" and demand.user_verification and not served.user_verified:
        raise _no("proved without user verification")


def start(
    store: Store,
    rng: Rng,
    demand: Demand,
    *,
    user_key: str,
    factor_id: str,
    user_verified: bool,
    now: float,
) -> tuple[Secret, list[Write]]:
    """The handle of a new factor session, and the writes that make it for the commit of its proof."""
    handle = new_handle(rng)
    put = Put(
        key=Key(partition(user_key), f"fsession#{handle_hash(handle)}"),
        value={
            "factor_id": factor_id,
            "group": demand.group,
            "user_verified": user_verified,
            "proved_at": int(now),
        },
        expected=0,
        expires_at=int(now) + demand.max_age,
    )
    return handle, [put, *room_for_one_more(store.query(partition(user_key), "fsession#", now=now), MAX_OPEN)]


def ended(store: Store, user_key: str, *, now: float, factor_id: str | None = None) -> Sequence[Delete]:
    """The writes that end a person's factor sessions: all, or those of one factor."""
    items = store.query(partition(user_key), "fsession#", now=now)
    chosen = [item for item in items if factor_id is None or item.value["factor_id"] == factor_id]
    return [Delete(key=item.key, expected=None) for item in chosen]


def _no(detail: str) -> Refusal:
    return Refusal("insufficient_authorization", "prove the second factor again", f"factor session: {detail}")
