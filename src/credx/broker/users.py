"""What the store holds about a person: a profile, factors, and the keys under which all of it lies.

The profile is written whenever a factor comes or goes, on the condition of its version. So the enrolments of
one person happen one after another, and «has no factor yet» stays true until the commit that relied on it.
With every profile goes a copy of it into the directory, by which administrators find people (``directory``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credx.broker.stored import reading
from credx.broker.stores import Check, Delete, Key, Put

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from credx.broker.person import Person
    from credx.broker.stores import Item, Store, Write

MAX_FACTORS: Final = 10  # of one person; a second key and a spare are three
FACTOR_ID_BYTES: Final = 8  # unique within one person


def partition(user_key: str) -> str:
    return f"user#{user_key}"


def profile_key(user_key: str) -> Key:
    return Key(partition(user_key), "profile")


def factor_key(user_key: str, factor_id: str) -> Key:
    return Key(partition(user_key), f"factor#{factor_id}")


def directory_key(user_key: str) -> Key:
    """Sixteen partitions: a hundred thousand people are 6 MB in each, and none of them is hot."""
    return Key(f"users#{user_key[0]}", user_key)


def credential_key(credential_hash: str) -> Key:
    return Key(f"credential#{credential_hash}", "owner")


class Profile(NamedTuple):
    """``version`` 0: nothing is stored about this person yet."""

    value: Mapping[str, Any]
    version: int

    @property
    def disabled(self) -> bool:
        return bool(self.value.get("disabled", False))

    @property
    def had_factor(self) -> bool:
        """Now or ever: whoever removed the last one is not somebody who has none yet."""
        return bool(self.value.get("had_factor", False))

    def unchanged(self, user_key: str) -> Check:
        return Check(key=profile_key(user_key), expected=self.version)

    def written(self, person: Person) -> list[Write]:
        """The profile once more, for a factor that comes or goes: of two such changes only one goes through."""
        named = {"user": person.user, "issuer": person.issuer, "subject": person.subject}
        return self.changed(person.user_key, **named, had_factor=True)

    def changed(self, user_key: str, **changes: Any) -> list[Write]:
        """The writes of a profile with ``changes``, which hold only on this version of it."""
        value = dict(self.value) | changes
        return [
            Put(key=profile_key(user_key), value=value, expected=self.version),
            Put(key=directory_key(user_key), value=value, expected=None),  # the profile's condition is enough
        ]


def load_profile(store: Store, user_key: str, *, now: float) -> Profile:
    item = store.get(profile_key(user_key), now=now)
    return Profile({}, 0) if item is None else Profile(item.value, item.version)


@dataclass(frozen=True, kw_only=True)
class Factor:
    """An enrolled second factor.

    Attributes:
        kind: ``webauthn`` or ``totp``. name: chosen by its owner.
        created_at, last_used_at: seconds since 1970.
        material: what its kind verifies with, see ``webauthn`` and ``totp``.
        version: of the stored item.
    """

    id: str
    kind: str
    name: str
    created_at: int
    last_used_at: int | None = None
    disabled: bool = False
    material: Mapping[str, Any] = field(repr=False)
    version: int = 0

    @classmethod
    def from_item(cls, item: Item) -> Factor:
        with reading("factor"):
            return cls(**item.value, version=item.version)

    def put(self, user_key: str) -> Put:
        value = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "version"}
        value["material"] = dict(self.material)
        return Put(key=factor_key(user_key, self.id), value=value, expected=self.version)

    def listing(self) -> dict[str, Any]:
        shown = ("id", "kind", "name", "created_at", "last_used_at")
        return {name: getattr(self, name) for name in shown}

    def choice(self) -> dict[str, str]:
        return {"kind": self.kind, "id": self.id, "name": self.name}


def load_factors(store: Store, user_key: str, *, now: float) -> list[Factor]:
    """Every factor of one person, disabled ones too, oldest first."""
    items = store.query(partition(user_key), "factor#", now=now)
    return sorted((Factor.from_item(item) for item in items), key=lambda factor: factor.created_at)


def load_factor(store: Store, user_key: str, factor_id: str, *, now: float) -> Factor | None:
    item = store.get(factor_key(user_key, factor_id), now=now)
    return None if item is None else Factor.from_item(item)


def room_for_one_more(items: Sequence[Item], limit: int) -> list[Delete]:
    """The oldest items over ``limit - 1``, deleted: what one person keeps pending is bounded."""
    oldest_first = sorted(items, key=lambda item: item.expires_at or 0)
    return [Delete(key=item.key, expected=None) for item in oldest_first[: max(0, len(items) - limit + 1)]]
