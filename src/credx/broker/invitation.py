"""Invitations: an administrator lets exactly one person add one factor, once, within a day.

They lie in one partition, so that they can be listed, taken back, and ended together with everything else that
a person has pending. It holds what administrators made within a day and nobody has used.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from credx.broker.directory import walk
from credx.broker.handles import handle_hash, new_handle
from credx.broker.person import user_key_of
from credx.broker.stored import reading
from credx.broker.stores import ConflictError, Delete, Key, Put
from credx.errors import Refusal, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credx.broker.audit import Audit
    from credx.broker.handles import Rng
    from credx.broker.person import Person
    from credx.broker.stores import Item, Store
    from credx.model import Secret

LIFE: Final = 24 * 3600  # seconds (design, enrolment)
PARTITION: Final = "invitations"
ID_DIGITS: Final = 16  # of the hash, by which an administrator names one; they open nothing
ID: Final = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")


class Invitation(NamedTuple):
    """One that is open. ``id`` is a part of the hash of its handle; ``expires_at`` in seconds since 1970."""

    id: str
    issuer: str
    subject: str
    administrator: str
    expires_at: int


def create_invitation(
    audit: Audit, issuer: str, subject: str, *, administrator: str, now: float, rng: Rng
) -> Secret:
    """A handle for the person with this ``iss`` and ``sub``, to be handed over in person. Recorded.

    Raises:
        ValueError: nobody can have this issuer and subject.
        StoreUnavailableError: there is no invitation.
    """
    user_key = user_key_of(issuer, subject)
    handle = new_handle(rng)
    put = Put(
        key=Key(PARTITION, handle_hash(handle)),
        value={"issuer": issuer, "subject": subject, "admin": administrator},
        expected=0,
        expires_at=int(now) + LIFE,
    )
    record = {
        "event": "invited",
        "issuer": issuer,
        "subject": subject,
        "user_key": user_key,
        "administrator": administrator,
        "detail": f"by {administrator}",
    }
    audit.commit([put], record, now=now)
    return handle


def used_up(store: Store, person: Person, hashed: str, *, now: float) -> Delete:
    """The write that uses an invitation up, for the commit that adds the factor.

    Raises:
        Refusal: not known, used, ended or somebody else's; from outside all the same.
    """
    item = store.get(Key(PARTITION, hashed), now=now)
    if item is None or _owner(item) != (person.issuer, person.subject):
        cause = "not known, used or ended" if item is None else "made for somebody else"
        raise Refusal("access_denied", "the invitation is not valid for you", f"invitation {cause}")
    return Delete(key=item.key, expected=item.version)


def open_invitations(store: Store, *, now: float) -> Iterator[Invitation]:
    """All that nobody has used yet, in no order that means anything."""
    return (_opened(item) for item in walk(store, PARTITION, now=now))


def invited(store: Store, issuer: str, subject: str, *, now: float) -> list[Item]:
    """The open invitations of one person; one that cannot be read opens nothing, and must not keep anybody in."""
    person = (issuer, subject)
    found = walk(store, PARTITION, now=now)
    return [item for item in found if (item.value.get("issuer"), item.value.get("subject")) == person]


def revoke_invitation(store: Store, audit: Audit, name: str, *, administrator: str, now: float) -> Invitation:
    """Take one back, by the ``id`` that ``open_invitations`` gives. Recorded.

    Raises:
        UsageError: there is none.
        StoreUnavailableError: it is still there, for all that is known.
    """
    found = store.query(PARTITION, name, now=now, limit=2) if ID.fullmatch(name) else ()
    if len(found) == 1:
        open_one = _opened(found[0])
        record = {
            "event": "invitation_revoked",
            "issuer": open_one.issuer,
            "subject": open_one.subject,
            "user_key": user_key_of(open_one.issuer, open_one.subject),
            "administrator": administrator,
            "detail": f"by {administrator}",
        }
        with contextlib.suppress(ConflictError):  # used at this moment
            audit.commit([Delete(key=found[0].key, expected=found[0].version)], record, now=now)
            return open_one
    raise UsageError(
        "no open invitation has this id: it was used, has ended or never was",
        hint="credx broker invitations list",
    )


def _opened(item: Item) -> Invitation:
    value = item.value
    with reading("invitation"):
        names = (str(value["issuer"]), str(value["subject"]), str(value["admin"]))
        return Invitation(item.key.sort[:ID_DIGITS], *names, int(item.expires_at or 0))


def _owner(item: Item) -> tuple[str, str]:
    opened = _opened(item)
    return opened.issuer, opened.subject
