"""Faults of what a broker stands on: nothing issued without its record, no proof twice, a clear 503, and by itself
well again.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import killed
from support.broker_world import ISSUER, World
from support.front import published
from support.strace import MARKS, afterwards, answers, calls_of_one_request, seeded, spoil

from credx.broker.stores.sqlite import SqliteStore
from credx.http import Http
from credx.jose import RemoteKeys, keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.front import Front

GOOD, USED, UNAVAILABLE = 200, 403, 503

# -- the disk. An unlock on a local disk does not fail, so ``fcntl`` is killed at (see there) but not failed.

READS, WRITES = {"pread64", "newfstatat"}, {"pwrite64", "fdatasync"}


@pytest.mark.parametrize("kind", ["webauthn", "totp"])
class TestSystemCalls:
    pytestmark = MARKS

    def test_an_io_error_at_any_of_them(self, tmp_path: Path, kind: str) -> None:
        seed = seeded(tmp_path, kind)
        calls, most = calls_of_one_request(tmp_path)
        spoilt = [call for call in calls if call.name in READS | WRITES]
        seen = {}
        for run in spoil(tmp_path, spoilt, most, "error=EIO"):
            seen[run] = tuple(answers(tmp_path / run))
            used_up = afterwards(tmp_path / run, seed)
            assert used_up  # by the second try, if not by the first
        # the second try of the same process finds the proof unused, or used with its record
        assert set(seen.values()) <= {(GOOD, USED), (UNAVAILABLE, GOOD), (UNAVAILABLE, USED)}, seen
        assert (UNAVAILABLE, GOOD) in seen.values()

    def test_a_disk_that_is_full_from_any_of_them_on(self, tmp_path: Path, kind: str) -> None:
        seed = seeded(tmp_path, kind)
        calls, most = calls_of_one_request(tmp_path)
        spoilt = [call for call in calls if call.name == "pwrite64"]
        runs = spoil(tmp_path, spoilt, most, "error=ENOSPC", lasting=True)
        assert {tuple(answers(tmp_path / run)) for run in runs} == {(UNAVAILABLE, UNAVAILABLE)}
        assert {afterwards(tmp_path / run, seed) for run in runs} == {
            False,
            True,
        }  # of the grant's commit, or after


FULL = """
import json, resource, signal, sys
from pathlib import Path
from support import killed
from support.broker_world import World
from credx.broker.stores.sqlite import SqliteStore
place = Path(sys.argv[1])
job = json.loads((place / "jobs.json").read_text())
killed.use_keys(job["keys"])
world = World(SqliteStore(place / "seed" / "broker.db"))
world.clock.time = job["now"]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, most))
told = [killed.redeem(world, job["form"].encode()) for _ in range(3)]
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
told += [killed.redeem(world, job["form"].encode()) for _ in range(2)]
print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
@pytest.mark.parametrize("kind", ["webauthn", "totp"])
def test_a_file_that_cannot_grow(tmp_path: Path, kind: str) -> None:
    seed = seeded(tmp_path, kind)
    paths = os.pathsep.join([str(Path(killed.__file__).parent.parent), *filter(None, sys.path)])
    command, env = [sys.executable, "-c", FULL, str(tmp_path)], os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, env=env, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [UNAVAILABLE] * 3 + [GOOD, USED]
    assert b"StoreUnavailableError" in done.stderr
    assert afterwards(tmp_path / "seed", seed)


# -- the identity provider


class Idp:
    """Its two documents over real HTTP on loopback, well or ill."""

    def __init__(self) -> None:
        self.ill = ""
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                body = published(ISSUER + self.path)
                with contextlib.suppress(OSError):
                    outer.answer(self, body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        if self.ill == "cuts the line":
            request.connection.close()
            return
        if self.ill == "is huge":
            body = body[:-1] + b'," ":"' + b"x" * 200_000 + b'"}'
        if self.ill == "is garbage":
            body = b"\x00\xff<html>" * 100
        if self.ill == "has no keys":
            body = body.replace(b'"RS256"', b'"HS256"').replace(b'"RSA"', b'"oct"')
        request.send_response({"fails": 500, "redirects": 302}.get(self.ill, 200))
        if self.ill == "redirects":
            request.send_header("location", self.url + "/keys")
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        for at in range(len(body)):
            if self.ill != "drips":
                request.wfile.write(body)
                break
            request.wfile.write(body[at : at + 1])
            time.sleep(0.2)

    def fetch(self, url: str, *, deadline: float) -> bytes:
        place = "http://127.0.0.1:9" if self.ill == "is down" else self.url  # port 9: nobody listens
        return Http().fetch(url.replace(ISSUER, place), deadline=deadline)


@pytest.fixture
def idp(front: Front, monkeypatch: pytest.MonkeyPatch) -> Iterator[Idp]:
    idp = Idp()
    monkeypatch.setattr(keys, "DEADLINE", 0.5)
    front.world.broker.admission._keys = RemoteKeys(idp.fetch)
    yield idp
    idp.server.shutdown()
    idp.server.server_close()


ILL = ["is down", "drips", "is huge", "is garbage", "has no keys", "fails", "redirects", "cuts the line"]


@pytest.mark.parametrize("ill", ILL)
def test_an_identity_provider_that(front: Front, idp: Idp, ill: str) -> None:
    world = front.world
    app, token = World.add_app, world.token()
    idp.ill, started = ill, time.monotonic()
    for _ in range(3):
        answer = front.ask(token)
        assert (answer.status, answer.body["error"]) == (UNAVAILABLE, "temporarily_unavailable")
        assert answer.headers["retry-after"]
    assert time.monotonic() - started < 3  # one fetch, and its deadline
    assert idp.asked <= 2  # no more for more requests
    assert [line["event"] for line in front.lines] == ["identity_provider_unavailable"] * 3
    assert world.records() == []
    assert front.send("GET", "/healthz").status == GOOD
    idp.ill = ""
    world.clock.pass_(keys.REFETCH)
    app(world)
    key = world.add_key()
    token = world.token()
    front.issued(lambda: front.ask(token, proof=world.touch(token, key, world.step_up(token))))
    # once the keys are known, an outage of a day is nobody's
    idp.ill = ill
    world.clock.pass_(23 * 3600)
    token = world.token()
    front.issued(lambda: front.ask(token, proof=world.touch(token, key, world.step_up(token))))
    world.clock.pass_(2 * 3600)
    assert front.ask(world.token()).status == UNAVAILABLE


# -- the policy


def test_a_policy_that_cannot_be_had(front: Front) -> None:
    """Whatever reading it raises: nothing is decided, and the very same proof is good once it is back."""
    world = front.world
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    known = world.policy

    def gone() -> Any:
        raise OSError("the policy is gone")

    world.broker.admission._policy = gone
    answer = front.ask(token, proof=proof)
    assert answer.status in (500, UNAVAILABLE)
    front.nothing_in(answer)
    assert world.records("granted") == []
    world.broker.admission._policy = lambda: known
    front.issued(lambda: front.ask(token, proof=proof))


# -- another process


def test_a_store_that_another_process_keeps_locked(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    path = tmp_path / "data" / "broker.db"
    world = World(SqliteStore(path, busy_timeout=0.1))
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    holder = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.readline()"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", holder, str(path)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    started = time.monotonic()
    response, told = world.http("DELETE", "/factor-sessions", token=token)
    assert (response.status, told["error"]) == (UNAVAILABLE, "temporarily_unavailable")
    assert response.headers["retry-after"]
    assert time.monotonic() - started < 5
    before = world.records()
    process.kill()  # its lock goes with it
    process.communicate()
    assert world.http("DELETE", "/factor-sessions", token=token)[0].status == GOOD
    assert [record["event"] for record in world.records()[len(before) :]] == ["logged_out"]
    world.ask(token, proof=proof)
    assert len(world.records("granted")) == 1
    assert world.audit.verify(world.clock()) is None
    world.store.close()
