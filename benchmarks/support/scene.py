"""Everything of a run in one place: a directory with policy, store and people, and the broker over it."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from credx.broker.stores.sqlite import SqliteStore
from support.crowd import Crowd, policy_text
from support.places import broker_command, identity_provider, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.crowd import Somebody
    from support.places import Process


@dataclass(frozen=True, kw_only=True)
class Scene:
    directory: Path
    crowd: Crowd
    people: list[Somebody]

    @contextlib.contextmanager
    def broker(self, core: int) -> Iterator[Process]:
        """``credx broker serve`` on one core."""
        with running(broker_command(self.directory), core, self.directory / "broker.log") as process:
            yield process


@contextlib.contextmanager
def scene(people: int, *, more_roles: int = 0, more_people: int = 0) -> Iterator[Scene]:
    """So many people with a security key each, whose identity provider listens on loopback. ``more_people`` are
    in the store and never come.
    """
    with tempfile.TemporaryDirectory() as folder, identity_provider() as (idp, pages):
        directory, crowd = Path(folder), Crowd(idp)
        pages["/jwks"] = crowd.key_set()
        (directory / "policy.toml").write_text(policy_text(idp, more_roles=more_roles), encoding="utf-8")
        data = directory / "data"
        data.mkdir(mode=0o700)
        names = [f"person-{number}" for number in range(people)]
        with contextlib.closing(SqliteStore(data / "broker.db")) as store:
            crowd.enrol(store, [*names, *(f"absent-{number}" for number in range(more_people))])
        yield Scene(directory=directory, crowd=crowd, people=[crowd.person(name) for name in names])
