"""Two brokers on one store, as a restart, a second process or a second host makes them: one memory, one winner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import killed
from support.broker_world import World

from credx.broker import attempts, totp
from credx.broker.stores.sqlite import SqliteStore
from credx.broker.users import load_factors
from credx.errors import Refusal
from credx.model import Secret
from credx.protocol import Ask, FactorSessionProof, Issued, StepUp, TokenRequest, TotpProof

if TYPE_CHECKING:
    from collections.abc import Iterator

Two = tuple[World, World]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    (tmp_path / "data").mkdir(mode=0o700)
    stores = [SqliteStore(tmp_path / "data" / "broker.db") for _ in range(2)]
    here, there = (World(store) for store in stores)
    there.clock = there.broker.now = here.clock  # type: ignore[assignment]
    there.broker.admission._now = here.clock
    yield here, there
    for store in stores:
        store.close()


def together(here: World, there: World, *calls: Any) -> list[Any]:
    """Each call in a thread of its own, all at once: what they gave or raised."""
    answers, start = [], threading.Barrier(len(calls))

    def one(call: Any) -> None:
        start.wait()
        try:
            answers.append(call())
        except Refusal as refusal:
            answers.append(refusal)

    threads = [threading.Thread(target=one, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert here.audit.verify(here.clock()) is None
    assert there.audit.verify(here.clock()) is None
    return answers


@pytest.mark.parametrize("kind", ["webauthn", "totp"])
def test_a_step_up_at_one_is_proved_at_the_other(two: Two, kind: str) -> None:
    here, there = two
    key, app, token = here.add_key(), here.add_app(), here.token()
    step_up = here.step_up(token, "dev")
    proof = there.touch(token, key, step_up) if kind == "webauthn" else there.code(app, step_up)
    assert isinstance(there.ask(token, "dev", proof), Issued)
    with pytest.raises(Refusal):
        here.ask(token, "dev", proof)
    assert here.records("granted") == there.records("granted")
    assert len(here.records("granted")) == 1
    assert len({record["writer"] for record in here.records()}) == 2
    assert here.audit.verify(here.clock()) is None


@pytest.mark.parametrize("kind", ["webauthn", "totp"])
def test_one_proof_at_both_at_once(two: Two, kind: str) -> None:
    here, there = two
    key, app, token = here.add_key(), here.add_app(), here.token()
    for turn in range(5):
        here.clock.pass_(60)
        step_up = here.step_up(token, "dev")
        proof = there.touch(token, key, step_up) if kind == "webauthn" else there.code(app, step_up)
        at = (here, there, here, there)
        answers = together(here, there, *(lambda w=w, p=proof: w.ask(token, "dev", p) for w in at))
        assert sum(isinstance(answer, Issued) for answer in answers) == 1
        assert len(here.records("granted")) == len(here.records("issued")) == turn + 1


def test_one_code_in_a_session_of_each(two: Two) -> None:
    here, there = two
    app, token = here.add_app(), here.token()
    for turn in range(5):
        here.clock.pass_(60)
        proofs = [(world, here.code(app, world.step_up(token, "dev"))) for world in (here, there)]
        answers = together(here, there, *(lambda w=w, p=p: w.ask(token, "dev", p) for w, p in proofs))
        assert sum(isinstance(answer, Issued) for answer in answers) == 1
        assert len(here.records("granted")) == turn + 1


def test_guesses_at_both_are_one_count(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = two
    here.add_app()
    token, looked_at, original = here.token(), [], totp.matched_step
    monkeypatch.setattr(totp, "matched_step", lambda *a, **k: looked_at.append(1) or original(*a, **k))
    sessions = [(world, world.step_up(token, "dev").auth_session) for world in (here, there) * 8]
    guesses = [(w, TotpProof(auth_session=session, otp=Secret("000000"))) for w, session in sessions]
    together(here, there, *(lambda w=w, p=p: w.ask(token, "dev", p) for w, p in guesses))
    assert 1 <= len(looked_at) <= attempts.FREE
    counted = attempts.load(there.store, here.user_key(), now=here.clock()).get(attempts.PERSON)
    assert counted.failures == len(looked_at)


def test_what_one_ends_is_over_at_the_other(two: Two) -> None:
    here, there = two
    key, token = here.add_key(), here.token()
    issued = here.ask(token, "dev", here.touch(token, key, here.step_up(token, "dev")))
    assert isinstance(issued, Issued)
    assert issued.factor_session is not None
    earlier = FactorSessionProof(factor_session=issued.factor_session)
    assert isinstance(there.ask(token, "dev", earlier), Issued)
    there.broker.own_factors.end_factor_sessions(token, "10.0.0.1")
    assert isinstance(here.ask(token, "dev", earlier), StepUp)
    pending = here.touch(token, key, here.step_up(token))
    here.add_key(name="spare")
    (mine,) = (f for f in load_factors(here.store, here.user_key(), now=here.clock()) if f.name == "key")
    step_up = there.broker.own_factors.remove(token, "10.0.0.1", mine.id)
    assert step_up is not None
    there.broker.own_factors.remove(token, "10.0.0.1", mine.id, proof=there.touch(token, key, step_up))
    assert isinstance(here.ask(token, proof=pending), StepUp)
    assert len(here.records("granted")) == 2


def test_a_restart_in_the_middle_of_a_step_up(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    world = World(SqliteStore(tmp_path / "data" / "broker.db"))
    key, app, token = world.add_key(), world.add_app(), world.token()
    sessions = {role: world.step_up(token, role) for role in ("prod", "dev")}
    asked = world.broker.begin_proof(token, sessions["prod"].auth_session, "10.0.0.1")
    now = world.clock.time
    world.store.close()
    again = World(SqliteStore(tmp_path / "data" / "broker.db"))
    again.clock.time = now + 10
    proof = again.touch(token, key, sessions["prod"])
    assert isinstance(again.ask(token, proof=proof), Issued)
    assert isinstance(again.ask(token, "dev", again.code(app, sessions["dev"])), Issued)
    assert asked["challenge"]
    assert again.audit.verify(again.clock()) is None
    again.store.close()


PROCESS = """
import json, sys
from pathlib import Path
from support import killed
from support.broker_world import World
from credx.broker.stores.sqlite import SqliteStore
place = Path(sys.argv[1])
job = json.loads((place / "jobs.json").read_text())
killed.use_keys(job["keys"])
world = World(SqliteStore(place / "seed" / "broker.db"))
world.clock.time = job["now"]
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([killed.redeem(world, form.encode()) for form in job["forms"]]), flush=True)
"""


def test_one_proof_in_two_processes_at_once(tmp_path: Path) -> None:
    (tmp_path / "seed").mkdir(mode=0o700)
    world = World(SqliteStore(tmp_path / "seed" / "broker.db"))
    key, token, forms = world.add_key(key={"counts": False}), world.token(), []
    for _ in range(12):
        proof = world.touch(token, key, world.step_up(token))
        forms.append(TokenRequest(subject_token=token, ask=Ask(role="prod"), proof=proof).to_form().decode())
    job = {"forms": forms, "now": world.clock(), "keys": killed.keys()}
    (tmp_path / "jobs.json").write_text(json.dumps(job))
    paths = os.pathsep.join([str(Path(killed.__file__).parent.parent), *filter(None, sys.path)])
    command, pipe = [sys.executable, "-c", PROCESS, str(tmp_path)], subprocess.PIPE
    env = os.environ | {"PYTHONPATH": paths}
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) for _ in range(2)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    one, other = (json.loads(process.communicate(timeout=60)[0]) for process in processes)
    pairs = [sorted(pair) for pair in zip(one, other, strict=True)]
    assert all(won == 200 and lost in (403, 503) for won, lost in pairs), pairs
    assert len(world.records("granted")) == len(world.records("issued")) == 12
    assert world.audit.verify(world.clock()) is None
    world.store.close()
