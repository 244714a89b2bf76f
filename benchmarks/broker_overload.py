"""What becomes of a broker that is asked for five times what it can do.

First the highest rate that one broker on one core gives, then arrivals at a multiple of it (Poisson, nobody waits
for anybody, who is refused does not come back), then the highest rate again, at once. Told: issuances a second
that came to their end meanwhile, what the others were told, and the broker's memory.

    .venv/bin/python benchmarks/broker_overload.py
"""

from __future__ import annotations

import argparse
import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from support.load import arriving, closed, touched
from support.places import cores
from support.scene import scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.places import Process

PEOPLE = 6000  # who waits for an answer cannot come once more
WORKERS = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    measured, other = cores()
    os.sched_setaffinity(0, {other})
    with scene(PEOPLE) as here, here.broker(measured) as broker:
        closed(broker.port, touched, here.people, workers=WORKERS, seconds=1)
        before = closed(broker.port, touched, here.people, workers=WORKERS, seconds=given.seconds / 2)
        quiet, worked, own = broker.resident(), broker.processor_seconds(), time.process_time()
        with largest(broker) as memory:
            flood = arriving(
                broker.port, touched, here.people, rate=given.times * before.rate, seconds=given.seconds
            )
        worked, own = broker.processor_seconds() - worked, time.process_time() - own
        after = closed(broker.port, touched, here.people, workers=WORKERS, seconds=given.seconds / 2)
        arrived = len(flood.latencies) + sum(flood.others.values())
        print(f"before       {before.rate:7.0f}/s  p99 {before.quantile(0.99):7.1f} ms  {quiet:5.0f} MB")
        print(
            f"{given.times:.0f} times that {flood.rate:7.0f}/s  p99 {flood.quantile(0.99):7.1f} ms  {max(memory):5.0f} MB"
            f"  goodput {flood.rate / before.rate:.0%}"
        )
        print(
            f"  of {arrived} arrivals in {given.seconds:.0f} s: {len(flood.latencies)} issued, {dict(flood.others)}"
        )
        print(f"  {flood.told} of them 429 or 503 with Retry-After")
        print(
            f"  busy: the broker {worked / given.seconds:.0%} of its core, the generator {own / given.seconds:.0%}"
        )
        print(
            f"at once after{after.rate:7.0f}/s  p99 {after.quantile(0.99):7.1f} ms  {broker.resident():5.0f} MB"
            f"  {after.rate / before.rate:.0%}  {dict(after.others) or ''}"
        )


@contextlib.contextmanager
def largest(process: Process) -> Iterator[list[float]]:
    """MB of memory, looked at again and again."""
    seen, over = [process.resident()], threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            seen.append(process.resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    main()
