"""The broker killed at every system call of a redemption: nothing forgotten, nothing doubled, nothing to mend."""

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
    import pyotp

    from credx.model import Secret
    from credx.protocol import Proof

pytestmark = [
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
    assert (place / "clean" / "answer").read_text() == "200"
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
    return found, Counter(most)


@pytest.mark.parametrize("kind", ["webauthn", "totp"])
def test_a_broker_killed_at_any_system_call(tmp_path: Path, kind: str) -> None:
    seed = seeded(tmp_path, kind)
    calls, most = calls_of_one_request(tmp_path)
    names = {call.name for call in calls}
    assert DURABLE <= names <= killed.NUMBERS.keys()
    at = {name: most[name] + MARGIN for name in names}
    jobs = [
        (f"{call.name}-{call.turn}", call.name, at[call.name] - call.before - call.turn) for call in calls
    ]
    inject = ["-e", f"trace={','.join(names)}"]
    for name in names:
        inject += ["-e", f"inject={name}:signal=SIGKILL:when={at[name]}"]
    half = len(jobs) // 2
    runs = {"first": jobs[:half], "second": jobs[half:]}
    started = [strace(tmp_path, part, name, "-o", os.devnull, *inject) for name, part in runs.items()]
    assert [run.wait(100) for run in started] == [0, 0]
    ends = {k: v for name in runs for k, v in json.loads((tmp_path / f"ends-of-{name}").read_text()).items()}
    assert ends == dict.fromkeys((name for name, *_ in jobs), 9)
    granted = [after_the_kill(tmp_path / name, seed) for name in ends]
    assert {False, True} == set(granted)  # before the commit and after it


def after_the_kill(run: Path, seed: Seed) -> bool:
    """Whether the proof was used up when the broker died. Whatever was, the next broker goes on by itself."""
    store = SqliteStore(run / "broker.db")
    world = World(store)
    world.clock.time = seed.now
    assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert world.audit.verify(world.clock()) is None
    granted, answer = len(world.records("granted")), run / "answer"
    assert granted <= 1
    assert len(world.records("issued")) <= granted
    if answer.exists() and answer.read_text():
        assert answer.read_text() == "200"
        assert (granted, len(world.records("issued"))) == (1, 1)
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
