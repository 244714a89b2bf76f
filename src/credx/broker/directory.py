"""Who is there: people by the names that administrators know, and all of them in order, page by page.

Somebody is in the directory from the first factor on, or since an administrator shut him out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from credx.broker.person import MAX_USER, USER_HASH, shown_name, user_key_of
from credx.broker.stored import reading
from credx.broker.users import directory_key
from credx.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credx.broker.stores import Item, Store

HEX: Final = "0123456789abcdef"
PAGE: Final = 500  # items of one query; a DynamoDB page is 1 MB

_SHOWN = re.compile(rf"[A-Za-z0-9_+=,.@-]{{1,{MAX_USER - USER_HASH - 1}}}-([0-9a-f]{{{USER_HASH}}})")
_KEY = re.compile(r"[0-9a-f]{64}")


class Somebody(NamedTuple):
    """A person as the store knows him; ``issuer`` and ``subject`` are empty where that is not known.

    ``enrolled``: has had a factor, now or ever. ``known``: is in the directory.
    """

    user_key: str
    user: str
    issuer: str = ""
    subject: str = ""
    disabled: bool = False
    enrolled: bool = False
    known: bool = True


def name_prefix(text: str) -> tuple[str, tuple[str, str] | None]:
    """Whom an administrator means: the first hex digits of a user key, and (issuer, subject) where given.

    ``text`` is the shown name (its hash tells, the readable part is for people), the user key, or
    ``ISSUER|SUBJECT``.

    Raises:
        UsageError: it is none of these.
    """
    issuer, bar, subject = text.partition(
        "|"
    )  # the policy takes no issuer with a bar; a subject may have one
    if bar:
        return key_of(issuer, subject), (issuer, subject)
    if found := _SHOWN.fullmatch(text):
        return found[1], None
    if _KEY.fullmatch(text):
        return text, None
    raise UsageError(
        "a person is called by shown name (alice-0123456789abcdef), user key (64 hex digits) or 'ISSUER|SUBJECT'",
        hint="credx broker users list",
    )


def key_of(issuer: str, subject: str) -> str:
    """The user key of somebody whom an administrator names.

    Raises:
        UsageError: no ID token that credx accepts says so.
    """
    hint = "credx broker users list"
    if subject != subject.strip():  # see ``jose.verify``
        raise UsageError("nobody can be called so: the subject begins or ends with a space", hint=hint)
    try:
        return user_key_of(issuer, subject)
    except ValueError as exc:
        raise UsageError(f"nobody can be called so: {exc}", hint=hint) from exc


def find(store: Store, text: str, *, now: float) -> Somebody:
    """The person that ``text`` means, see ``name_prefix``; not ``known`` only for ``ISSUER|SUBJECT``.

    Raises:
        UsageError: nobody, or more than one person.
    """
    prefix, pair = name_prefix(text)
    items = list(store.query(directory_key(prefix).partition, prefix, now=now, limit=2))
    if len(items) > 1:  # somebody has worked for it: 2^32 tries for any two, 2^64 for a given one (ADR 9)
        raise UsageError("two people have this name: take the user key", hint="credx broker users list")
    if items:
        return _somebody(items[0])
    if pair is not None:
        return Somebody(prefix, shown_name(None, prefix), *pair, known=False)
    raise UsageError(
        "nobody is known by this name; who never enrolled a factor is called 'ISSUER|SUBJECT'",
        hint="credx broker users list",
    )


def everybody(store: Store, *, now: float, after: str = "") -> Iterator[Somebody]:
    """All in the directory in order of user keys, those behind ``after`` where it is given."""
    for digit in HEX:
        for item in walk(store, directory_key(digit).partition, digit, now=now, after=after):
            yield _somebody(item)


def walk(store: Store, partition: str, prefix: str = "", *, now: float, after: str = "") -> Iterator[Item]:
    """The items of a partition whose sort keys are hex hashes, in order, however many there are.

    Where one query does not hold all below a prefix, the sixteen longer prefixes are asked instead.
    """
    if after and prefix < after[: len(prefix)]:
        return
    items = store.query(partition, prefix, now=now, limit=PAGE)
    if len(items) < PAGE:
        yield from (item for item in items if item.key.sort > after)
        return
    for digit in HEX:
        yield from walk(store, partition, prefix + digit, now=now, after=after)


def _somebody(item: Item) -> Somebody:
    value, user_key = item.value, item.key.sort
    with reading("profile"):
        return Somebody(
            user_key,
            str(value.get("user") or shown_name(None, user_key)),
            str(value.get("issuer", "")),
            str(value.get("subject", "")),
            bool(value.get("disabled", False)),
            bool(value.get("had_factor", False)),
        )
