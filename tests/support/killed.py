"""A broker that is killed in the middle of one request, for ``attacks/test_kill_at_every_call.py``.

Run under ``strace``, which kills on entry of the n-th call of each name. Its counters are a process's own: one process
imports everything and forks a child for each kill, and the child makes calls that do nothing until just its turn
is left.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
from pathlib import Path

BEGIN, END = "/credx-request-begins", "/credx-request-ends"

# Linux on x86_64 (arch/x86/entry/syscalls/syscall_64.tbl): what Python and SQLite may call in a request
NUMBERS = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "pread64": 17, "pwrite64": 18, "fcntl": 72, "fsync": 74,
    "fdatasync": 75, "ftruncate": 77, "rename": 82, "unlink": 87, "openat": 257, "newfstatat": 262,
}  # fmt: skip
# nobody but the process itself sees these: to be killed there is to be killed at the next of the others
UNSEEN = {"getpid", "geteuid", "brk", "mmap", "munmap", "mprotect", "madvise", "futex", "getrandom"}


def main(place: Path) -> None:
    """``jobs.json``: what to redeem, and for each run its directory, a call and how often to call it in vain."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from support import broker_world

    job = json.loads((place / "jobs.json").read_text())
    for name, pem in job["keys"].items():
        setattr(broker_world, name, load_pem_private_key(pem.encode(), password=None))
    ends = {}
    for name, call, in_vain in json.loads((place / sys.argv[2]).read_text()):
        child = os.fork()
        if not child:
            shutil.copytree(place / "seed", place / name)
            _redeem(place / name, job["form"].encode(), job["now"], call, in_vain)
            os._exit(0)
        ends[name] = os.waitpid(child, 0)[1]
    (place / f"ends-of-{sys.argv[2]}").write_text(json.dumps(ends))


def _redeem(run: Path, form: bytes, now: float, call: str, in_vain: int) -> None:
    from support.broker_world import World

    from credx.broker.api import Request
    from credx.broker.stores.sqlite import SqliteStore

    world = World(SqliteStore(run / "broker.db"))
    world.clock.time = now
    request = Request(
        method="POST",
        path="/token",
        headers={"content-type": "application/x-www-form-urlencoded"},
        body=form,
        client="10.0.0.1",
    )
    for _ in range(in_vain):
        ctypes.CDLL(None).syscall(*(ctypes.c_long(value) for value in (NUMBERS[call], -1, 0, 0, 0)))
    Path(BEGIN).exists()
    status = world.api.handle(request).status
    answer = os.open(run / "answer", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(answer, b"%d" % status)
    os.close(answer)
    Path(END).exists()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
