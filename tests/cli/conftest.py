"""One world for each file (a process can have but one at a time); `credx` is the shim, run as a program."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from credx.cli.sandbox import fresh_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credx.sandbox.world import World

LIMIT = 40  # seconds


class Person:
    """Somebody of the sandbox at a keyboard, with or without a terminal."""

    def __init__(self, world: World, user: str) -> None:
        self.world = world
        self.user = user
        self.environ = world.environment(user)
        self.program = f"{world.home(user)}/bin/credx"

    def credx(self, *args: str, stdin: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
        """Without a controlling terminal, as in CI."""
        return subprocess.run(
            [self.program, *args],
            env=self.environ | extra,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with fresh_world() as running:
        yield running


@pytest.fixture(scope="module")
def alice(world: World) -> Person:
    person = Person(world, "alice")
    assert person.credx("login").returncode == 0
    return person


@pytest.fixture(scope="module")
def bob(world: World) -> Person:
    return Person(world, "bob")
