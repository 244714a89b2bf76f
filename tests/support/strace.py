"""System calls of a broker that redeems one proof, and ``strace`` to spoil each of them: see ``killed``."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from support import killed
from support.broker_world import SecurityKey, World

from credx.broker.stores.sqlite import SqliteStore
from credx.protocol import Ask, Issued, TokenRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyotp

    from credx.model import Secret
    from credx.protocol import Proof

MARKS = [
    pytest.mark.component("strace"),
    pytest.mark.skipif(
        (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="numbers of system calls"
    ),
]

TESTS = Path(killed.__file__).parent.parent
MARGIN = 200  # calls of one name that the process with the imports may make more, with all its forks
DURABLE = {"pwrite64", "fdatasync"}  # SQLite's log: if these are missing, the wrong thing was looked at


class Seed(NamedTuple):
    """A store at rest, just before a proof is redeemed; ``person`` has what proves."""

    form: bytes
    now: float
    person: SecurityKey | pyotp.TOTP


def prove(world: World, token: Secret, person: Any) -> tuple[str, Proof]:
    if isinstance(person, SecurityKey):
        return "prod", world.touch(token, person, world.step_up(token))
    return "dev", world.code(person, world.step_up(token, "dev"))


def seeded(place: Path, kind: str) -> Seed:
    (place / "seed").mkdir(mode=0o700)
    world = World(SqliteStore(place / "seed" / "broker.db"))
    person = world.add_key() if kind == "webauthn" else world.add_app()
    token = world.token()
    role, proof = prove(world, token, person)
    world.store.close()
    form = TokenRequest(subject_token=token, ask=Ask(role=role), proof=proof).to_form()
    job = {"form": form.decode(), "now": world.clock(), "keys": killed.keys()}
    (place / "jobs.json").write_text(json.dumps(job))
    return Seed(form, world.clock(), person)


def strace(
    place: Path, jobs: list[tuple[str, str, int]], name: str, *options: str
) -> subprocess.Popen[bytes]:
    (place / name).write_text(json.dumps(jobs))
    command = ["strace", "-f", "-qq", *options, sys.executable, killed.__file__, str(place), name]
    paths = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"})


class Call(NamedTuple):
    """One call of a redemption: the ``turn``-th of its ``name``, after ``before`` of them in the same process."""

    name: str
    turn: int
    before: int


def calls_of_one_request(place: Path) -> tuple[list[Call], Counter[str]]:
    """Each call that a redemption makes and others could see, and the most calls of each name that any of the processes makes."""
    run = strace(place, [("clean", "read", 0)], "one", "-o", str(place / "log"))
    assert run.wait(60) == 0
    assert answers(place / "clean") == [200, 403]
    lines = [line.split(maxsplit=1) for line in (place / "log").read_text().splitlines()]
    child = next(pid for pid, text in lines if killed.BEGIN in text)
    made: Counter[tuple[str, str]] = Counter()
    at_begin: Counter[tuple[str, str]] = Counter()
    found = []
    for pid, text in lines:
        name = re.match(r"\w+(?=\()", text)
        if name is None or name[0] in killed.UNSEEN:
            continue
        if pid == child and killed.END in text:
            break
        made[pid, name[0]] += 1
        if pid == child and at_begin:
            before = at_begin[pid, name[0]]
            found.append(Call(name[0], made[pid, name[0]] - before, before))
        elif pid == child and killed.BEGIN in text:
            at_begin = made.copy()
    most = {name: max(n for (_, other), n in made.items() if other == name) for _, name in made}
    names = {call.name for call in found}
    assert DURABLE <= names <= killed.NUMBERS.keys()
    return found, Counter(most)


def spoil(
    place: Path, calls: Iterable[Call], most: Counter[str], effect: str, *, lasting: bool = False
) -> dict[str, int]:
    """One run for each call, with ``effect`` (strace's ``inject``) on it: by directory, how its process ended.

    ``lasting``: on all calls of its name from then on.
    """
    calls = list(calls)
    names = {call.name for call in calls}
    at = {name: most[name] + MARGIN for name in names}
    kind = re.sub(r"\W", "", effect)
    jobs = [(f"{kind}-{c.name}-{c.turn}", c.name, at[c.name] - c.before - c.turn) for c in calls]
    inject = ["-o", os.devnull, "-e", f"trace={','.join(names)}"]
    for name in names:
        inject += ["-e", f"inject={name}:{effect}:when={at[name]}{'+' * lasting}"]
    half = len(jobs) // 2
    runs = {f"{kind}-first": jobs[:half], f"{kind}-second": jobs[half:]}
    started = [strace(place, part, name, *inject) for name, part in runs.items()]
    assert [run.wait(100) for run in started] == [0, 0]
    ends = {k: v for name in runs for k, v in json.loads((place / f"ends-of-{name}").read_text()).items()}
    assert set(ends) == {name for name, *_ in jobs}
    return ends


def answers(run: Path) -> list[int]:
    """What the broker of this run answered, as far as it came."""
    answer = run / "answer"
    return [int(status) for status in answer.read_text().split()] if answer.exists() else []


def afterwards(run: Path, seed: Seed) -> bool:
    """Whether the proof was used up in this run. Whatever was, the next broker goes on by itself."""
    store = SqliteStore(run / "broker.db")
    world = World(store)
    world.clock.time = seed.now
    assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert world.audit.verify(world.clock()) is None
    granted, issued = len(world.records("granted")), len(world.records("issued"))
    told = answers(run)
    assert issued <= granted <= 1
    assert told.count(200) <= issued
    assert killed.redeem(world, seed.form) == (403 if granted else 200)
    assert len(world.records("granted")) == 1
    assert granted or len(world.records("issued")) == 1
    world.clock.pass_(60)
    token = world.token()
    role, proof = prove(world, token, seed.person)
    assert isinstance(world.ask(token, role, proof), Issued)
    assert world.audit.verify(world.clock()) is None
    store.close()
    return bool(granted)
