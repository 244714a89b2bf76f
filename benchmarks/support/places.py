"""The processes of a run: a tiny identity provider, the real broker, node; each on a core of its own."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LISTENS: Final = re.compile(r"http://127\.0\.0\.1:([0-9]+)")


def cores() -> tuple[int, int]:
    """The core of what is measured and another one for what measures."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        sys.exit("this needs two cores: one for what is measured and one for what measures")
    return usable[0], usable[1]


@contextlib.contextmanager
def identity_provider() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Its issuer URL, and what it serves by path: fill in ``/jwks``."""
    pages: dict[str, bytes] = {}

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path, b"")
            self.send_response(200 if body else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """It is asked once."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    issuer = f"http://127.0.0.1:{server.server_address[1]}"
    document = {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
    pages["/.well-known/openid-configuration"] = json.dumps(document).encode()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield issuer, pages
    finally:
        server.shutdown()
        server.server_close()


class Process:
    """A server that says where it listens. ``pid`` for a look at its memory."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.pid = process.pid
        self.port = port

    def resident(self) -> float:
        """MB of memory in use."""
        text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024

    def processor_seconds(self) -> float:
        """Seconds of a core that it has used, all threads together."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


@contextlib.contextmanager
def running(command: Sequence[str], core: int, log: Path) -> Iterator[Process]:
    """``command`` pinned to one core, once its output names a port."""
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            text=True,
        )
    try:
        while not (found := LISTENS.search(log.read_text(encoding="utf-8"))):
            if process.poll() is not None:
                sys.exit(f"{command[0]} ended: {log.read_text(encoding='utf-8')}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield Process(process, int(found[1]))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def broker_command(directory: Path) -> list[str]:
    """``credx broker serve`` over ``policy.toml`` and ``data`` in ``directory``."""
    where = ["--policy", str(directory / "policy.toml"), "--data", str(directory / "data")]
    return [sys.executable, "-m", "credx", "broker", "serve", *where, "--listen", "127.0.0.1:0"]
