"""A full issuance without a person, and where its time goes.

Two views on the sandbox, each the median of RUNS runs: `credx creds --fresh` as a process, in ratio to a bare
interpreter of the same run, and the same flow inside one process, split by what was waited for.

    .venv/bin/python benchmarks/issuance.py
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from credx import sts
from credx.broker_client import BrokerClient
from credx.cli.edges import App, Edges
from credx.factors import fido2
from credx.protocol import Ask
from credx.sandbox.plug import edges_for
from credx.sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "alice"
ROLE = "prod-logs"
PARTS = {
    "broker: decide, then step up; verify, commit, mint": (BrokerClient, "token"),
    "broker: make the challenge": (BrokerClient, "begin_proof"),
    "second factor: software key behind python-fido2": (fido2, "get_assertion"),
    "STS: AssumeRoleWithWebIdentity (botocore and the strict front)": (sts, "assume_role_with_web_identity"),
}


@contextlib.contextmanager
def timed(taken: dict[str, float]) -> Iterator[None]:
    """Count what the named functions take. Only here: nothing of credx measures itself."""
    before = {name: getattr(owner, attribute) for name, (owner, attribute) in PARTS.items()}

    def wrap(name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                taken[name] += time.perf_counter() - started

        return call

    for name, (owner, attribute) in PARTS.items():
        setattr(owner, attribute, wrap(name, before[name]))
    try:
        yield
    finally:
        for name, (owner, attribute) in PARTS.items():
            setattr(owner, attribute, before[name])


def process(command: list[str], env: dict[str, str], runs: int) -> float:
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


def in_process(world: World, runs: int) -> tuple[float, dict[str, float]]:
    environ = world.environment(USER)
    parts = vars(edges_for(world.directory, USER))
    flow = App(Edges(environ=environ, **parts)).flow()
    ask = Ask(role=ROLE, scopes=("read-logs",))
    flow.credentials(ask, use_cache=False)  # imports and connections are the process's part
    totals: list[float] = []
    split: dict[str, list[float]] = {name: [] for name in PARTS}
    for _ in range(runs):
        taken: dict[str, float] = defaultdict(float)
        started = time.perf_counter()
        with timed(taken):
            flow.credentials(ask, use_cache=False)
        totals.append(time.perf_counter() - started)
        for name, times in split.items():
            times.append(taken[name])
    medians = {name: statistics.median(times) * 1000 for name, times in split.items()}
    return statistics.median(totals) * 1000, medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as directory, World(Path(directory)) as world:
        env = world.environment(USER)
        credx = shutil.which("credx", path=env["PATH"]) or sys.exit("no credx in the world")
        subprocess.run([credx, "login"], env=env, capture_output=True, check=True)
        bare = process([sys.executable, "-c", "pass"], env, runs)
        whole = process([credx, "creds", ROLE, "--fresh"], env, runs)
        total, split = in_process(world, runs)
    print(f"python -c pass                {bare:8.1f} ms")
    print(f"credx creds {ROLE} --fresh {whole:8.1f} ms  {whole / bare:6.1f} x")
    print(f"\nthe same within one process   {total:8.1f} ms, of which")
    for name, median in split.items():
        print(f"  {name:64}{median:8.1f} ms {median / total:6.0%}")
    rest = total - sum(split.values())
    print(f"  {'everything else (vault, parsing)':64}{rest:8.1f} ms {rest / total:6.0%}")


if __name__ == "__main__":
    main()
