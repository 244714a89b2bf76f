"""The broker's own WSGI server in a thread that can be ended at once."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

from credx.broker.front.wsgi import run_until, serve

if TYPE_CHECKING:
    from collections.abc import Callable

    from credx.broker.service import Broker

HOST: Final = "127.0.0.1"
TRIES: Final = 10


class BrokerServer:
    """A broker on a free loopback port.

    Its policy has to name the port before there is a broker, so a free port is looked for first; another
    process may be faster to take it, then the next one is tried.
    """

    def __init__(self, open_at: Callable[[str], Broker]) -> None:
        """``open_at(url)`` makes the broker for that address."""
        self.broker, self.url, self._server = _bound(open_at)
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=run_until, args=(self._server, self._stopping), name="sandbox-broker", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End every connection, every thread and the broker's hold on its store."""
        self._stopping.set()
        self._thread.join()
        self.broker.store.close()


def _bound(open_at: Callable[[str], Broker]) -> tuple[Broker, str, Any]:
    for remaining in reversed(range(TRIES)):
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        url = f"http://localhost:{port}"  # WebAuthn knows no addresses, and localhost is a secure context
        broker = open_at(url)
        try:
            return broker, url, serve(broker, HOST, port)
        except OSError:
            with contextlib.suppress(OSError):
                broker.store.close()
            if not remaining:
                raise
    raise AssertionError("unreachable: the last try returns or raises")
