"""A SQLite store that is restored from an older copy: what it forgets, as docs/break-glass.md says.

Made as the page makes it; it fails when the page should say something else.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import ISSUER, World

from credx.broker.administration import reset_factors, set_disabled
from credx.broker.audit.verify import Broken, verify
from credx.broker.directory import Somebody
from credx.broker.handles import handle_hash
from credx.broker.invitation import ID_DIGITS, invited, revoke_invitation
from credx.broker.stores.sqlite import SqliteStore
from credx.broker.users import load_factors, load_profile
from credx.errors import ConfigError, Refusal
from credx.protocol import FactorSessionProof, Issued

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credx.model import Secret


class Restored:
    """A broker on a SQLite file, a copy of it as the page makes one, and other brokers on the copy."""

    def __init__(self, tmp_path: Path, open_stores: contextlib.ExitStack) -> None:
        self._home, self._stores, self._directories = tmp_path, open_stores, itertools.count()
        self._path, self._copy = self._new(), tmp_path / "copy.db"
        self.world = World(self._opened(self._path))

    def _new(self) -> Path:
        """In a directory of its own: a write-ahead log that was left behind would be a part of what is restored."""
        directory = self._home / str(next(self._directories))
        directory.mkdir(mode=0o700)
        return directory / "broker.db"

    def _opened(self, path: Path) -> SqliteStore:
        return self._stores.enter_context(contextlib.closing(SqliteStore(path)))

    def back_up(self) -> None:
        with contextlib.closing(sqlite3.connect(self._path)) as db:
            db.execute("VACUUM INTO ?", (str(self._copy),))

    def restore(self, *, after: float = 0) -> World:
        path = self._new()
        path.write_bytes(self._copy.read_bytes())
        path.chmod(0o600)
        again = World(self._opened(path))
        again.clock.time = self.world.clock.time + after
        return again


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Restored]:
    with contextlib.ExitStack() as stack:
        yield Restored(tmp_path, stack)


def test_a_copy_that_is_open_to_others_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "data" / "broker.db"
    path.parent.mkdir(mode=0o700)
    SqliteStore(path).close()
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        SqliteStore(path)


@pytest.mark.parametrize("kind", ["a touch", "a code"])
def test_a_used_proof_five_minutes_after_a_restore(restored: Restored, kind: str) -> None:
    """Why the page waits five minutes: a copy does not know what was used after it was made."""
    world = restored.world
    app, key, token = world.add_app(), world.add_key(), world.token()
    step_up = world.step_up(token, "other-group")
    proof: Any = world.code(app, step_up) if kind == "a code" else world.touch(token, key, step_up)
    restored.back_up()
    assert isinstance(world.ask(token, "other-group", proof), Issued)
    assert used_up(world, token, proof)

    limit = restored.restore(after=1)  # too early, and the proof is good once more
    assert isinstance(limit.ask(token, "other-group", proof), Issued)
    late = restored.restore(after=301)
    assert used_up(late, token, proof)


def used_up(world: World, token: Secret, proof: Any) -> bool:
    with pytest.raises(Refusal) as refused:
        world.ask(token, "other-group", proof)
    return refused.value.detail == "auth session not known, ended or used"


@pytest.mark.parametrize(("after", "good"), [(1, True), (91, False)])
def test_a_used_code_after_a_restore_in_a_new_session(restored: Restored, after: int, *, good: bool) -> None:
    """The last used step goes back too: a code that was read from a screen is good for its 90 seconds again."""
    world = restored.world
    app, token = world.add_app(), world.token()
    restored.back_up()
    seen = world.code(app, world.step_up(token, "other-group"))
    assert isinstance(world.ask(token, "other-group", seen), Issued)
    again = restored.restore(after=after)
    session = again.step_up(token, "other-group").auth_session
    answer = again.ask(token, "other-group", type(seen)(auth_session=session, otp=seen.otp))
    assert isinstance(answer, Issued) is good


def test_what_comes_back_with_an_older_copy(restored: Restored) -> None:
    """The page's list of what to do again."""
    world = restored.world
    alice, bob, carol = (
        Somebody(world.user_key(name), name, ISSUER, name) for name in ("alice", "bob", "carol")
    )
    keys = {name: world.add_key(name) for name in ("alice", "bob")}
    unused = world.invite("carol")
    token = world.token()
    issued = world.ask(token, "dev", world.touch(token, keys["alice"], world.step_up(token, "dev")))
    assert isinstance(issued, Issued)
    restored.back_up()
    at = {"administrator": "root", "now": world.clock()}
    set_disabled(world.store, world.audit, alice, disabled=True, **at)
    reset_factors(world.store, world.audit, bob, **at)
    revoke_invitation(world.store, world.audit, handle_hash(unused)[:ID_DIGITS], **at)

    again = restored.restore()
    assert issued.factor_session is not None
    earlier = FactorSessionProof(factor_session=issued.factor_session)
    assert not load_profile(again.store, alice.user_key, now=again.clock()).disabled
    assert isinstance(again.ask(again.token(), "dev", earlier), Issued)
    assert load_factors(again.store, bob.user_key, now=again.clock())
    assert len(invited(again.store, ISSUER, carol.subject, now=again.clock())) == 1


def test_a_restore_is_missed_by_saved_heads_alone(restored: Restored) -> None:
    """Nothing within an older copy is wrong; heads that were saved elsewhere know better."""
    world = restored.world
    world.add_key()
    restored.back_up()
    world.invite("bob")
    saved = verify(world.store, world.audit.own_keys(), world.clock()).heads
    again = restored.restore()
    assert verify(again.store, again.audit.own_keys(), again.clock()).broken is None
    found = verify(again.store, again.audit.own_keys(), again.clock(), against=saved).broken
    assert isinstance(found, Broken)
