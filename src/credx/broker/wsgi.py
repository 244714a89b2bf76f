"""The front door of a broker that runs as a process: WSGI, served by waitress.

Plain WSGI and not a framework: ``api`` routes and parses already, and what is not in front of it cannot be
wrong. TLS ends in a proxy before this; forwarded headers count only when they come from that proxy.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import waitress

from credx.broker.api import Api, Request
from credx.protocol import MAX_BODY

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from credx.broker.service import Broker

THREADS: Final = 8
MAX_HEADER: Final = 32 * 1024  # bytes; an ID token has 16 KiB at the most
MAX_CONNECTIONS: Final = 200
IDLE: Final = 20  # seconds that a silent connection is kept
LOOK: Final = 0.1  # seconds between two looks at the flag of ``run_until``


def application(api: Api) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """``api`` as a WSGI application (PEP 3333)."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH") or "0"
        size = min(int(length), MAX_BODY + 1) if length.isdecimal() else 0
        query = environ.get("QUERY_STRING")
        path = environ.get("PATH_INFO", "")
        request = Request(
            method=environ["REQUEST_METHOD"],
            # no route takes a query; with one it is no route (and never a way to pass a token)
            path=f"{path}?{query}" if query else path,
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
        return [response.body]

    return call


def _headers(environ: WSGIEnvironment) -> dict[str, str]:
    named = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
    return named | {"content-type": environ.get("CONTENT_TYPE", "")}


def serve(
    broker: Broker, host: str = "127.0.0.1", port: int = 8443, *, trusted_proxy: str | None = None
) -> Any:
    """A bound waitress server for ``run`` or ``run_until``; port 0 picks a free one (``effective_port``).

    ``trusted_proxy`` is the one address whose ``X-Forwarded-For`` is believed; None: nobody's.
    """
    proxy = (
        {"trusted_proxy": trusted_proxy, "trusted_proxy_headers": {"x-forwarded-for"}}
        if trusted_proxy
        else {}
    )
    return waitress.create_server(
        application(Api(broker)),
        host=host,
        port=port,
        threads=THREADS,
        connection_limit=MAX_CONNECTIONS,
        max_request_header_size=MAX_HEADER,
        max_request_body_size=MAX_BODY,
        channel_timeout=IDLE,
        ident="",
        clear_untrusted_proxy_headers=True,
        **proxy,
    )


def run_until(server: Any, stopping: threading.Event) -> None:
    """Serve until ``stopping`` is set, then close.

    waitress's own ``run`` goes on until the last idle connection has timed out, and its trigger must not be
    pulled by whoever cannot know that the server is still open: so the flag is looked at in between.
    """
    while not stopping.is_set():
        server.asyncore.loop(timeout=LOOK, map=server._map, use_poll=False, count=1)  # noqa: SLF001
    server.task_dispatcher.shutdown()  # first: an answer that is still being made wakes the loop by the trigger
    for channel in list(server.active_channels.values()):
        channel.handle_close()
    server.close()
