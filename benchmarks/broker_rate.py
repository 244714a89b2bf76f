"""How many issuances a second one broker process gives on one core, and how long each takes.

An issuance is three requests (ask, begin, prove) with a touch of a security key in software, over loopback HTTP
to ``credx broker serve``: SQLite on disk, the ID token verified with keys that an identity provider serves. The
broker is pinned to one core, what sends and touches runs on another. Beside it, in turns on the same core:

* the floor: the bare signatures and durable commits of the same bytes that an issuance needs;
* npm oidc-provider, with ``--node``: one request instead of three, one JWT verified and one signed, and no
  second factor, no policy, no record, nothing written anywhere.

    .venv/bin/python benchmarks/broker_rate.py --node
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode

from support.floor import Floor
from support.inside import Inside
from support.load import FORM, arriving, closed, kept, touched
from support.places import cores, running
from support.scene import scene

from credx.jose import sign_jwt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.crowd import Crowd, Somebody
    from support.load import Channel, Flow, Result
    from support.places import Process
    from support.scene import Scene

T = TypeVar("T")

PEOPLE = 400
WORKERS = 8  # connections at once, for the most that there is
SHARE = 0.6  # of that rate, for the latencies
NODE = Path(__file__).parents[1] / "tests" / "node"
NODE_AT_MOST = 3000  # requests a second that are made beforehand
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 2.2


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement in a round")
    parser.add_argument("--rate", type=float, help="arrivals a second; else a share of the highest rate")
    parser.add_argument("--node", action="store_true", help="oidc-provider too: npm ci in tests/node first")
    given = parser.parse_args()
    measured, other = cores()
    os.sched_setaffinity(0, {other})
    with scene(PEOPLE) as here:
        bare = floor_of(here)
        with contextlib.closing(bare), here.broker(measured) as broker:
            report(here, broker, bare, given, on=(measured, other))
        if given.node:
            oidc_provider(here.crowd, measured, given.seconds, here.directory / "node.log")


def floor_of(here: Scene) -> Floor:
    inside = Inside(here.directory)
    try:
        inside.issue(here.people[0])
        commits = inside.writes_of(here.people[0])
    finally:
        inside.close()
    return Floor(here.directory, here.people[0].id_token, commits)


def report(
    here: Scene, broker: Process, bare: Floor, given: argparse.Namespace, *, on: tuple[int, int]
) -> None:
    people, seconds = here.people, given.seconds
    closed(broker.port, touched, people, workers=WORKERS, seconds=1)  # keys, statements, caches
    rounds = []
    for _ in range(given.rounds):
        floor = on_core(on, lambda: bare.cost(seconds / 2))
        rounds.append((floor, at_once(broker, touched, people, seconds)))
    print(f"{'one issuance':36}{'elapsed':>10}{'on the core':>13}")
    for name, taken in on_core(on, bare.parts).items():
        print(f"    {name:32}{taken:8.3f} ms")
    floor, whole = (
        tuple(statistics.median(kind) for kind in zip(*side, strict=True))
        for side in zip(*rounds, strict=True)
    )
    line("the floor, one after the other", *floor)
    line(f"credx broker, {WORKERS} at once", *whole)
    print(f"  {'ratio':34}{whole[0] / floor[0]:8.2f} x  {whole[1] / floor[1]:8.2f} x")
    print(
        f"    {'of each round':32}   {'  '.join(f'{w[0] / f[0]:.2f}, {w[1] / f[1]:.2f}' for f, w in rounds)}"
    )
    rate = given.rate or SHARE * 1000 / whole[0]
    told("arriving", arriving(broker.port, touched, people, rate=rate, seconds=seconds * 2))
    told("one person after the other", closed(broker.port, touched, people, workers=1, seconds=seconds))
    closed(broker.port, kept, people, workers=WORKERS, seconds=2)  # everybody's first touch
    line("an earlier touch serves: 1 request", *at_once(broker, kept, people, seconds))
    print(f"memory of the broker {broker.resident():8.0f} MB")


def at_once(server: Process, flow: Flow, people: Sequence[Somebody], seconds: float) -> tuple[float, float]:
    """``WORKERS`` one after the other: mean milliseconds between two answers, and of the core's work in one."""
    before = server.processor_seconds()
    result = closed(server.port, flow, people, workers=WORKERS, seconds=seconds)
    if result.others:
        sys.exit(f"not everything went through: {dict(result.others)}")
    return 1000 / result.rate, (server.processor_seconds() - before) / len(result.latencies) * 1000


def line(name: str, elapsed: float, worked: float) -> None:
    print(f"  {name:34}{elapsed:8.3f} ms {worked:8.3f} ms {1000 / elapsed:8.0f}/s")


def told(what: str, result: Result) -> None:
    others = f"  {dict(result.others)}" if result.others else ""
    print(
        f"{what:36}{result.rate:8.0f}/s  p50 {result.quantile(0.5):6.1f} ms  p99 {result.quantile(0.99):6.1f} ms{others}"
    )


def on_core(on: tuple[int, int], call: Callable[[], T]) -> T:
    """In this process, for once on the core of what is measured (which waits)."""
    measured, other = on
    os.sched_setaffinity(0, {measured})
    try:
        return call()
    finally:
        os.sched_setaffinity(0, {other})


def oidc_provider(crowd: Crowd, core: int, seconds: float, log: Path) -> None:
    script = str(NODE / "oidc_provider_bench.mjs")
    with running(["node", script, json.dumps(crowd.signer.public_jwk())], core, log) as node:
        issuer, now = f"http://127.0.0.1:{node.port}", int(time.time())

        def form() -> bytes:
            claims = {"iss": "bench", "sub": "bench", "aud": issuer, "iat": now, "exp": now + 3600}
            assertion = sign_jwt(claims | {"jti": secrets.token_hex(16)}, signer=crowd.signer).reveal()
            fields = {"grant_type": "client_credentials", "scope": "read", "client_id": "bench"}
            return urlencode(
                fields | {"client_assertion_type": ASSERTION, "client_assertion": assertion}
            ).encode()

        forms = [form() for _ in range(int(seconds * NODE_AT_MOST))]

        async def one(channel: Channel, _who: Somebody) -> None:
            await channel.post("/token", FORM, forms.pop())

        nobody = [crowd.person("nobody")] * WORKERS
        closed(node.port, one, nobody, workers=WORKERS, seconds=1)
        line("oidc-provider: 1 request", *at_once(node, one, nobody, seconds))


if __name__ == "__main__":
    main()
