"""The front door of a broker that runs as a process: WSGI, served by waitress.

Plain WSGI and not a framework: ``api`` routes and parses already, and what is not in front of it cannot be
wrong. TLS ends in a proxy before this; forwarded headers count only when they come from that proxy.
"""

from __future__ import annotations

import re
import select
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from waitress.adjustments import Adjustments

from credx.broker.front.answers import Request
from credx.broker.front.api import Api
from credx.broker.front.door import Dispatcher, Server
from credx.protocol import MAX_BODY

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from credx.broker.service import Broker

THREADS: Final = 8
MAX_HEADER: Final = 32 * 1024  # bytes; an ID token has 16 KiB at the most
MAX_CONNECTIONS: Final = 200  # each costs at every turn of the loop; a proxy in front needs far fewer
BACKLOG: Final = 128  # connections that the system holds beyond that
IDLE: Final = 20  # seconds that a silent connection is kept
EVERY: Final = 1  # seconds between two looks at the clock for all connections
ONE_PIECE: Final = 64 * 1024  # bytes; larger answers are sent as they are made
LOOK: Final = 0.1  # seconds between two looks at the flag of ``run_until``

_POLL: Final = hasattr(select, "poll")  # select() knows no file descriptor above 1023
_ABSOLUTE = re.compile(
    r"https?://[^/?#]*", re.IGNORECASE
)  # RFC 9112 3.2.2; who was meant decides nothing here


def application(api: Api) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """``api`` as a WSGI application (PEP 3333)."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH") or "0"
        size = min(int(length), MAX_BODY + 1) if length.isdecimal() and len(length) < 20 else 0
        request = Request(
            method=environ["REQUEST_METHOD"],
            path=_path(environ),
            headers=_headers(environ),
            body=environ["wsgi.input"].read(size) if size else b"",
            client=environ.get("REMOTE_ADDR", ""),
        )
        response = api.handle(request)
        phrase = HTTPStatus(response.status).phrase
        headers = {**response.headers, "content-length": str(len(response.body))}
        if response.status == HTTPStatus.NO_CONTENT:
            del headers["content-length"]  # RFC 9110 8.6
        start_response(f"{response.status} {phrase}", list(headers.items()))
        # RFC 9110 9.3.2: after HEAD a body would be the beginning of the next answer
        return [] if request.method == "HEAD" else [response.body]

    return call


def _path(environ: WSGIEnvironment) -> str:
    """The request target as it was sent, where the server tells.

    No route needs decoding or folding: ``//token`` and ``/%74oken`` are other words than ``/token`` for the
    proxy in front, so they are here. No route takes a query; with one it is none (and never carries a token).
    """
    target = environ.get("REQUEST_URI")
    if target is not None:
        return _ABSOLUTE.sub("", target, count=1)
    path, query = environ.get("PATH_INFO", ""), environ.get("QUERY_STRING")
    return f"{path}?{query}" if query else path


def _headers(environ: WSGIEnvironment) -> dict[str, str]:
    named = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
    return named | {"content-type": environ.get("CONTENT_TYPE", "")}


def serve(
    broker: Broker, host: str = "127.0.0.1", port: int = 8443, *, trusted_proxy: str | None = None
) -> Server:
    """A bound waitress server for ``run`` or ``run_until``; port 0 picks a free one (``effective_port``).

    ``trusted_proxy`` is the one address whose ``X-Forwarded-For`` is believed; None: nobody's.
    """
    proxy = (
        {"trusted_proxy": trusted_proxy, "trusted_proxy_headers": {"x-forwarded-for"}}
        if trusted_proxy
        else {}
    )
    settings = Adjustments(
        host=host,
        port=port,
        threads=THREADS,
        connection_limit=MAX_CONNECTIONS,
        backlog=BACKLOG,
        max_request_header_size=MAX_HEADER,
        max_request_body_size=MAX_BODY + 1,  # the first size that is refused
        channel_timeout=IDLE,
        cleanup_interval=EVERY,
        asyncore_use_poll=_POLL,
        ident="",
        clear_untrusted_proxy_headers=True,
        **proxy,
    )
    # In one piece, by the loop: a thread that sends lets go of the interpreter's lock, and on one core the loop then
    # spins until the thread is back: 0.2 to 0.9 ms of each request. As a keyword it would be a DeprecationWarning.
    settings.send_bytes = ONE_PIECE
    api = Api(broker)
    dispatcher = Dispatcher(THREADS)
    try:
        server = Server(
            application(api), {}, dispatcher=dispatcher, adj=settings, sockinfo=settings.listen[0]
        )
    except OSError:
        dispatcher.shutdown()
        raise
    server.api = api
    return server


def run_until(server: Any, stopping: threading.Event) -> None:
    """Serve until ``stopping`` is set, then close.

    waitress's own ``run`` goes on until the last idle connection has timed out, and its trigger must not be
    pulled by whoever cannot know that the server is still open: so the flag is looked at in between.
    """
    while not stopping.is_set():
        server.asyncore.loop(timeout=LOOK, map=server._map, use_poll=_POLL, count=1)  # noqa: SLF001
    server.task_dispatcher.shutdown()  # first: an answer that is still being made wakes the loop by the trigger
    for channel in list(server.active_channels.values()):
        channel.handle_close()
    server.close()
