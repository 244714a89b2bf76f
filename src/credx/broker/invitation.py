"""Invitations: an administrator lets exactly one person add one factor, once, within a day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from credx.broker.handles import handle_hash, new_handle
from credx.broker.stores import Delete, Key, Put
from credx.errors import Refusal

if TYPE_CHECKING:
    from credx.broker.audit import Audit
    from credx.broker.handles import Rng
    from credx.broker.person import Person
    from credx.broker.stores import Store
    from credx.model import Secret

LIFE: Final = 24 * 3600  # seconds (design, enrolment)


def create_invitation(
    audit: Audit, issuer: str, subject: str, *, administrator: str, now: float, rng: Rng
) -> Secret:
    """A handle for the person with this ``iss`` and ``sub``, to be handed over in person. Recorded.

    Raises:
        StoreUnavailableError: there is no invitation.
    """
    handle = new_handle(rng)
    put = Put(
        key=_key(handle_hash(handle)),
        value={"issuer": issuer, "subject": subject, "admin": administrator},
        expected=0,
        expires_at=int(now) + LIFE,
    )
    record = {"event": "invited", "issuer": issuer, "subject": subject, "detail": f"by {administrator}"}
    audit.commit([put], record, now=now)
    return handle


def used_up(store: Store, person: Person, hashed: str, *, now: float) -> Delete:
    """The write that uses an invitation up, for the commit that adds the factor.

    Raises:
        Refusal: not known, used, ended or somebody else's; from outside all the same.
    """
    item = store.get(_key(hashed), now=now)
    if item is None or (item.value["issuer"], item.value["subject"]) != (person.issuer, person.subject):
        cause = "not known, used or ended" if item is None else "made for somebody else"
        raise Refusal("access_denied", "the invitation is not valid for you", f"invitation {cause}")
    return Delete(key=item.key, expected=item.version)


def _key(hashed: str) -> Key:
    return Key(f"invitation#{hashed}", "invitation")
