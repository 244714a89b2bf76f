"""What one issuance costs while the policy, the people and the audit trail grow: it should stay the same.

The broker in this process, without its front door; each axis by itself, from its smallest size to its largest.
All sizes of an axis are open at the same time and take turns, so that the machine's other work meets them alike.
The figure is the median of RUNS issuances, in ratio to the smallest size; filling the stores takes minutes.

    .venv/bin/python benchmarks/broker_flat.py
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sqlite3
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

from support.inside import Inside
from support.places import cores
from support.scene import scene

from credx.broker.audit.chain import WRITERS, head_key, record_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.crowd import Somebody
    from support.scene import Scene

PEOPLE = 10
BASE_ROLES = 2
CHAIN = 10_000  # records of one writer, which is one start of a broker
AXES = {
    "roles in the policy": (10, 1_000, 10_000),
    "people, a security key each": (10, 1_000, 100_000),
    "audit records": (0, 10_000, 1_000_000),
}


class Size(NamedTuple):
    size: int
    inside: Inside
    people: list[Somebody]
    elapsed: list[float]
    worked: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    os.sched_setaffinity(0, {cores()[0]})
    print(f"{'median of one issuance':34}{'elapsed':>10}{'':>8}{'on the core':>14}")
    for axis, sizes in AXES.items():
        with contextlib.ExitStack() as held:
            measured = [opened(held, axis, size) for size in sizes]
            take_turns(measured, runs)
            report(axis, measured)


def opened(held: contextlib.ExitStack, axis: str, size: int) -> Size:
    roles = size if axis.startswith("roles") else 10
    absent = size - PEOPLE if axis.startswith("people") else 0
    here = held.enter_context(scene(PEOPLE, more_roles=roles - BASE_ROLES, more_people=absent))
    if axis.startswith("audit") and size:
        fill_audit(here, size)
    inside = held.enter_context(contextlib.closing(Inside(here.directory)))
    return Size(size, inside, here.people, [], [])


def fill_audit(here: Scene, count: int) -> None:
    """Chains of earlier writers, made of one real record: an issuance must not care what they hold."""
    inside = Inside(here.directory)
    inside.issue(here.people[0])
    record = dict(next(iter(inside.broker.audit.read(time.time() + 1, event="granted"))))
    inside.close()
    text = json.dumps(record, separators=(",", ":"))
    with contextlib.closing(sqlite3.connect(here.directory / "data" / "broker.db")) as db, db:
        for number in range(count // CHAIN):
            writer = f"{1_700_000_000_000 + number:012x}-{number:016x}"
            rows = ((*record_key(writer, seq), text) for seq in range(1, CHAIN + 1))
            head = {"seq": CHAIN, "hash": record["hash"], "at": 1_700_000_000}
            keys = ((*head_key(writer), json.dumps(head)), (WRITERS, writer, '{"at":1700000000}'))
            for some in (rows, keys):
                db.executemany(
                    "INSERT INTO items (partition, sort, value, version) VALUES (?, ?, ?, 1)", some
                )


def take_turns(measured: Sequence[Size], runs: int) -> None:
    order = random.Random(1)  # noqa: S311 -- nobody should always come after the same other
    for run in range(runs + PEOPLE):
        for one in order.sample(measured, len(measured)):
            who = one.people[run % PEOPLE]
            started, worked = time.perf_counter(), time.process_time()
            one.inside.issue(who)
            if run >= PEOPLE:  # everybody's first one fills caches
                one.elapsed.append(time.perf_counter() - started)
                one.worked.append(time.process_time() - worked)


def report(axis: str, measured: Sequence[Size]) -> None:
    print(axis)
    least = [statistics.median(times) for times in measured[0][3:]]
    for one in measured:
        elapsed, worked = statistics.median(one.elapsed), statistics.median(one.worked)
        print(
            f"  {one.size:>12,}{'':20}{elapsed * 1000:7.2f} ms{elapsed / least[0]:6.2f} x"
            f"{worked * 1000:8.2f} ms{worked / least[1]:6.2f} x"
        )


if __name__ == "__main__":
    main()
