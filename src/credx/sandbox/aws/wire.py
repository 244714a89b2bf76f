"""One HTTP request, one answer, and the loopback server that carries them."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BODY: Final = 16 * 1024 * 1024  # bytes; single-part uploads of a sandbox
SOCKET_SECONDS: Final = 30
_LENGTH = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True)
class Request:
    """``headers`` keeps order and repetitions; ``path`` and ``query`` are as they came, still encoded."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    client: str = "127.0.0.1"

    def header(self, name: str) -> str | None:
        """The one value of a header, None when it is absent or given more than once."""
        found = [value for key, value in self.headers if key == name]
        return found[0] if len(found) == 1 else None

    def query_pairs(self) -> list[tuple[str, str]]:
        """Decoded query parameters; ``+`` is a plus sign, as SigV4 has it. Raises ``ValueError``."""
        if not self.query:
            return []
        return [
            (unquote(name, errors="strict"), unquote(value, errors="strict"))
            for name, _, value in (pair.partition("=") for pair in self.query.split("&"))
        ]

    def form(self) -> dict[str, str] | None:
        """The body as a form with each name once; None when it is not that."""
        kind = (self.header("content-type") or "").partition(";")[0].strip().lower()
        if self.method != "POST" or kind != "application/x-www-form-urlencoded" or self.query:
            return None
        try:
            pairs = parse_qsl(
                self.body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict"
            )
        except ValueError:
            return None
        form = dict(pairs)
        return form if len(form) == len(pairs) else None


@dataclass(frozen=True)
class Response:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)


class Server:
    """A threaded HTTP/1.1 server on 127.0.0.1 and a free port; its threads end with the process."""

    def __init__(self, handle: Callable[[Request], Response]) -> None:
        self._http = _Threads(("127.0.0.1", 0), _handler(handle))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # an idle keep-alive connection must not hold up the end
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: the client went away."""


def _handler(handle: Callable[[Request], Response]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = SOCKET_SECONDS
        disable_nagle_algorithm = True  # status, headers and body are small writes

        def answer(self) -> None:
            request = _read(self)
            if request is None:
                self.close_connection = True
                self.send_error(411 if "content-length" not in self.headers else 413)
                return
            response = handle(request)
            self.send_response_only(response.status)
            for name, value in response.headers:
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            length = {k.lower(): v for k, v in response.headers}.get("content-length")
            head = self.command == "HEAD"
            self.send_header("Content-Length", length if head and length else str(len(response.body)))
            self.end_headers()
            if not head:
                self.wfile.write(response.body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the parent's name
            """Nothing: a request line can hold secrets."""

    return Handler


def _read(handler: BaseHTTPRequestHandler) -> Request | None:
    length = handler.headers.get_all("content-length", ["0"])
    chunked = "transfer-encoding" in handler.headers
    if not handler.path.startswith("/"):
        return None  # the absolute form is for proxies
    if chunked or len(length) != 1 or not _LENGTH.fullmatch(length[0]) or int(length[0]) > MAX_BODY:
        return None
    path, _, query = handler.path.partition("?")
    return Request(
        method=handler.command,
        path=path,
        query=query,
        headers=tuple((name.lower(), value) for name, value in handler.headers.items()),
        body=handler.rfile.read(int(length[0])),
        client=str(handler.client_address[0]),
    )
