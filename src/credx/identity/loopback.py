"""The callback of a native app: a listener on 127.0.0.1 for one answer (RFC 8252 7.3).

Anything on this machine, and any web page through its browser, can send requests here. So the address is
checked (Host, path), what is not the awaited answer is turned away without ending the wait, and the page
that is shown holds nothing but escaped text. Whoever says nothing, or too much, holds up nobody.
"""

from __future__ import annotations

import queue
import socket
import socketserver
import threading
import time
from contextlib import suppress
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qsl

from credx.errors import SignInError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from credx.model import Secret

    Judge = Callable[[Mapping[str, str]], Secret | None]

HOST: Final = "127.0.0.1"  # a literal, not localhost (RFC 8252 8.3)
PATH: Final = "/callback"
MAX_TARGET: Final = 16 * 1024  # characters of path and query; a code has 2000 at most
MAX_PARAMETERS: Final = 20
PATIENCE: Final = 5  # seconds for a connection that says nothing: browsers open them ahead of need
MAX_CONNECTIONS: Final = 64  # at one time; a browser opens six to one host
PARTING: Final = 1.0  # seconds for the handlers to end when the listener closes
SLICE: Final = 0.5  # seconds; Windows takes Ctrl-C only between two waits for a lock

_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address holds the code
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}


def parameters_of(query: str) -> dict[str, str] | None:
    """The parameters of a query, or None where it is not of one meaning (RFC 6749 3.1: no parameter twice)."""
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        return None
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


class Listener:
    """Bound when made, so that the port is ours before a browser hears of it. Use with ``with``."""

    def __init__(self) -> None:
        try:
            self._server = _Server((HOST, 0), _Handler)
        except OSError as exc:
            raise SignInError("no port can be opened on 127.0.0.1 to take the browser's answer") from exc
        self._server.authority = f"{HOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def redirect_uri(self) -> str:
        return f"http://{self._server.authority}{PATH}"

    def start(self, judge: Judge) -> None:
        """Answer callbacks from now on. ``judge`` gives the code, None for a foreign callback, or raises."""
        self._server.judge = judge
        self._thread.start()

    def wait(self, deadline: float) -> Secret:
        """The code.

        Args:
            deadline: seconds.

        Raises:
            SignInError: the judge's, or nobody answered in time.
        """
        end = time.monotonic() + deadline
        while True:
            left = end - time.monotonic()
            try:
                outcome = self._server.outcome.get(timeout=max(0.0, min(left, SLICE)))
            except queue.Empty:
                if left > SLICE:
                    continue
                raise SignInError(f"nobody signed in within {deadline:g} s", hint="credx login") from None
            if isinstance(outcome, SignInError):
                raise outcome
            return outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            if self._thread.is_alive():
                self._server.shutdown()
                self._thread.join()
        finally:
            self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    """Not ``http.server.HTTPServer``, which asks the resolver for the name of 127.0.0.1 when it binds."""

    allow_reuse_address = False  # on Windows that would let another program take the port
    request_queue_size = MAX_CONNECTIONS  # 5 by default, and what is beyond waits a second for its next try
    authority: str
    judge: Judge

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.outcome: queue.SimpleQueue[Secret | SignInError] = queue.SimpleQueue()
        self._open: dict[socket.socket, threading.Thread] = {}  # oldest first
        self._register = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        # daemon: where closing does not come about, the interpreter must not wait for a silent connection
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        with self._register:
            if len(self._open) >= MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                _cut(oldest, socket.SHUT_RDWR)  # and never the newcomer, who may bring the answer
            self._open[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._register:
            self._open.pop(request, None)

    def server_close(self) -> None:
        """Close the port, then let every handler end: reading finds nothing more, what is written gets out."""
        super().server_close()
        with self._register:
            left = dict(self._open)
        for request in left:
            _cut(request, socket.SHUT_RD)
        end = time.monotonic() + PARTING
        for thread in left.values():
            thread.join(max(0.0, end - time.monotonic()))

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away is no news."""


def _cut(request: socket.socket, how: int) -> None:
    with suppress(OSError):  # it has just gone by itself
        request.shutdown(how)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE
    server_version = "credx"
    sys_version = ""

    def do_GET(self) -> None:
        parameters = self._parameters()
        if parameters is None:
            self._show(HTTPStatus.NOT_FOUND, "There is nothing here.")
            return
        try:
            outcome = self.server.judge(parameters)
        except SignInError as exc:
            self.server.outcome.put(exc)
            self._show(HTTPStatus.OK, f"Signing in did not work: {exc.message}.")
            return
        if outcome is None:
            self._show(HTTPStatus.BAD_REQUEST, "This is not an answer that credx is waiting for.")
            return
        # before the page: a browser that goes away loses nothing, and closing waits for the page
        self.server.outcome.put(outcome)
        self._show(HTTPStatus.OK, "credx has got the answer of your identity provider.")

    def _parameters(self) -> dict[str, str] | None:
        """The query of a request that is meant for us; None for any other."""
        path, _, query = self.path.partition("?")
        # another Host is DNS rebinding: a foreign page under its own name
        if self.headers.get_all("Host") != [self.server.authority] or path != PATH or len(query) > MAX_TARGET:
            return None
        return parameters_of(query)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """The library's own refusals (no HTTP, another method) would quote the request and lack our headers."""
        self._show(HTTPStatus(code), "There is nothing here.")

    def _show(self, status: HTTPStatus, text: str) -> None:
        body = _PAGE.format(text=escape(text)).encode("utf-8", "replace")
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Nothing: the request line holds the code."""


_PAGE: Final = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>credx</title></head>'
    "<body><h1>credx</h1><p>{text}</p><p>You can close this window and go back to the terminal.</p></body></html>"
)
