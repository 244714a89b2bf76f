"""A broker whose system calls are spoilt in the middle of one request: killed at them, or they fail. See ``strace``.

Run under ``strace``, which spoils the n-th call of each name. Its counters are a process's own: one process
imports everything and forks a child for each run, and the child makes calls that do nothing until just its turn
is left.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from support import broker_world
from support.broker_world import World

from credx.broker.front.answers import Request
from credx.broker.stores.sqlite import SqliteStore
from credx.protocol import TOKEN_PATH

BEGIN, END = "/credx-request-begins", "/credx-request-ends"

# Linux on x86_64 (arch/x86/entry/syscalls/syscall_64.tbl): what Python and SQLite may call in a request
NUMBERS = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8, "pread64": 17, "pwrite64": 18, "fcntl": 72, "fsync": 74,
    "fdatasync": 75, "ftruncate": 77, "rename": 82, "unlink": 87, "openat": 257, "newfstatat": 262,
}  # fmt: skip
# nobody but the process itself sees these: to be killed there is to be killed at the next of the others
UNSEEN = {"getpid", "geteuid", "brk", "mmap", "munmap", "mprotect", "madvise", "futex", "getrandom"}


def keys() -> dict[str, str]:
    """The keys of this process's world, for a process that has to be of the same."""
    return {
        name: getattr(broker_world, name)
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode()
        for name in ("IDP_KEY", "MINT_KEY")
    }


def use_keys(given: dict[str, str]) -> None:
    for name, pem in given.items():
        setattr(broker_world, name, load_pem_private_key(pem.encode(), password=None))


def redeem(world: World, form: bytes) -> int:
    """The status of the answer to a request to ``/token``."""
    kind = {"content-type": "application/x-www-form-urlencoded"}
    request = Request(method="POST", path=TOKEN_PATH, headers=kind, body=form, client="10.0.0.1")
    return world.api.handle(request).status


def main(place: Path, name: str) -> None:
    """``jobs.json``: what to redeem. ``name``: for each run its directory, a call, and how often to make it in vain."""
    job = json.loads((place / "jobs.json").read_text())
    use_keys(job["keys"])
    ends = {}
    for run, call, in_vain in json.loads((place / name).read_text()):
        child = os.fork()
        if not child:
            shutil.copytree(place / "seed", place / run)
            _redeem(place / run, job["form"].encode(), job["now"], call, in_vain)
            os._exit(0)
        ends[run] = os.waitpid(child, 0)[1]
    (place / f"ends-of-{name}").write_text(json.dumps(ends))


def _redeem(run: Path, form: bytes, now: float, call: str, in_vain: int) -> None:
    world = World(SqliteStore(run / "broker.db"))
    world.clock.time = now
    for _ in range(in_vain):
        ctypes.CDLL(None).syscall(*(ctypes.c_long(value) for value in (NUMBERS[call], -1, 0, 0, 0)))
    Path(BEGIN).exists()
    _told(run, redeem(world, form))
    Path(END).exists()
    _told(run, redeem(world, form))  # who lives on is asked once more


def _told(run: Path, status: int) -> None:
    with contextlib.suppress(OSError):
        answer = os.open(run / "answer", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(answer, b"%d " % status)
        os.close(answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
