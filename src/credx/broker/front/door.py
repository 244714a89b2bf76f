"""What waitress leaves open, closed: framing that two readers could read in two ways, slow clients, a full house.

* An answer is taken in ``ANSWER_TIME``, or the connection ends.
* A request is read in ``REQUEST_TIME`` or answered 408: waitress's own timeout starts anew with every byte.
* At most ``MAX_WAITING`` requests wait for a thread, and none longer than ``MAX_WAIT``; the others are told 503
  at once, ``TURNED_RATE`` a second; whoever comes on top is not listened to until there is room. What one waits
  for longer its client has given up on. What begins something has half of that room: a full house turns people
  away before they have touched their key, and not after (at five times the rate it can do it otherwise finished
  half as many issuances, and spent the rest of its time on those that it let nobody finish).
* One connection is ``MAX_AHEAD`` requests ahead of its answers at the most; the answer to the last of them ends it, and
  what came behind it is not looked at (RFC 9112 9.3.2 and 9.6). Proxies send one; 8 KB hold two hundred.
* RFC 9112: one Host (3.2), one ``chunked`` (7), never a length beside it (6.3). An error of the framing is 400.
* What never reaches the application still has its line in the log, and an answer in the broker's own shape.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError, TransferEncodingNotImplemented
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import Error, RequestHeaderFieldsTooLarge

from credx.broker import telemetry
from credx.broker.front import answers
from credx.protocol import FACTORS_BEGIN_PATH, FACTORS_COMPLETE_PATH, HEALTH_PATH

if TYPE_CHECKING:
    from credx.broker.front.answers import Response
    from credx.broker.front.api import Api

REQUEST_TIME: Final = 10.0  # seconds from a request's first byte to its last: 64 KiB at 6.4 KB/s
ANSWER_TIME: Final = 20.0  # seconds for a client to take an answer
MAX_HEADERS: Final = 100  # fields; what browsers and proxies send is below 50
MAX_WAITING: Final = 64  # requests; a fifth of a second of work at 300 a second
MAX_NEW: Final = 32  # of them, that begin something
TURNED_RATE: Final = (
    1500  # a second that are told 503: 0.15 ms each, and four times what can be done comes to 1200
)
TURNED_BURST: Final = 50
MAX_AHEAD: Final = 8  # requests of one connection
MAX_WAIT: Final = 2.0  # seconds; after that the thread is for somebody who still listens

_ERRORS: Final = {
    400: ("invalid_request", "the request is not well formed"),
    408: ("request_timeout", "the request took too long to arrive"),
    413: ("payload_too_large", "the request is too large"),
    431: ("headers_too_large", "the request's headers are too large or too many"),
    503: ("temporarily_unavailable", "the broker is busy: try again"),
}
_CODINGS = re.compile(rb"^transfer-encoding[ \t]*:[ \t]*([^\r\n]*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class Late(Error):  # type: ignore[misc] # noqa: N818 -- waitress's answers, no exceptions
    code = 408


class Busy(Error):  # type: ignore[misc] # noqa: N818
    code = 503


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """One request, read in one way only."""

    def parse_header(self, header_plus: bytes) -> None:
        """Raises ``ParsingError``: answered 400."""
        if header_plus.count(b"\n") > MAX_HEADERS + 2:  # the request line, and the empty one
            super().parse_header(b"GET / HTTP/1.0\r\n")
            self.error = RequestHeaderFieldsTooLarge("too many")
            return
        try:
            super().parse_header(header_plus)
        except (ValueError, TransferEncodingNotImplemented) as exc:  # a length of 5000 digits, http://[
            raise ParsingError("not well formed") from exc
        codings = _CODINGS.findall(header_plus)
        host = self.headers.get("HOST")
        if (
            self.version not in ("1.0", "1.1")
            or (codings and (self.version != "1.1" or [c.lower() for c in codings] != [b"chunked"]))
            or (codings and "CONTENT_LENGTH" in self.headers)
            or (self.version == "1.1" and host is None)
            or (host is not None and "," in host)
        ):
            raise ParsingError("ambiguous")


class Turned(ErrorTask):  # type: ignore[misc]
    """The answer to what does not reach the application."""

    def execute(self) -> None:
        code = self.request.error.code
        error, public = _ERRORS.get(code, ("server_error", "the broker failed: see its log"))
        busy = isinstance(self.request.error, Busy)
        counts = (telemetry.REFUSALS, telemetry.THROTTLED) if busy else (telemetry.REFUSALS,)
        response = answers.error(error, public, outcome="overloaded" if busy else None, counts=counts)
        if not busy:  # what follows on this connection may be a part of what was not understood
            self.set_close_on_finish()
        method = getattr(self.request, "command", "")
        self._send(response, body=method != "HEAD")
        self.channel.server.api.served(method, telemetry.NO_ROUTE, response, self.channel.addr[0], 0.0)

    def _send(self, response: Response, *, body: bool) -> None:
        self.status = f"{response.status} {HTTPStatus(response.status).phrase}"
        self.content_length = len(response.body)
        self.response_headers.extend(response.headers.items())
        self.write(response.body if body else b"")


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection, with an eye on the clock."""

    parser_class = Parser
    error_task_class = Turned

    request: Any
    requests: list[Any]
    reading = 0  # the thread in which a request comes in now; that of a request before it may want to go on meanwhile
    here = False  # that thread answers it
    queued = 0.0
    _timed: Any = None  # the request that is being read
    _began = 0.0
    _owed: float | None = None  # since when there is an answer that was not taken

    def readable(self) -> bool:
        return self.server.listening and bool(super().readable())

    def handle_read(self) -> None:
        if self.server.task_dispatcher.listens():  # those before in this turn may have filled the house
            super().handle_read()

    def received(self, data: bytes) -> bool:
        self.reading = threading.get_ident()
        more: bool = super().received(data)
        self.reading = 0
        self._drop_what_is_too_far_ahead()
        if self.request is not self._timed:
            self._timed, self._began = self.request, time.monotonic()
        self._answer_here()
        return more

    def service(self) -> None:
        if time.monotonic() - self.queued > MAX_WAIT and self.requests[0].error is None:
            self.requests[0].error = Busy("")
        super().service()

    def look_at_clock(self) -> None:
        """End what takes too long. In the thread of the connections, as ``received``."""
        now = time.monotonic()
        if self.request is not None and self.request is self._timed and now - self._began > REQUEST_TIME:
            with self.requests_lock:
                late, self.request = self.request, None
                late.error = Late("")
                self.requests.append(late)
                if len(self.requests) == 1:
                    self.here = True
            self._answer_here()
        if not self.total_outbufs_len:
            self._owed = None
        elif self._owed is None:
            self._owed = now
        elif now - self._owed > ANSWER_TIME:
            self.will_close = True  # which waitress looks at when the socket takes something: it may never
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def _drop_what_is_too_far_ahead(self) -> None:
        with self.requests_lock:
            if len(self.requests) > MAX_AHEAD:
                self.requests[MAX_AHEAD - 1].headers["CONNECTION"] = "close"
                for dropped in self.requests[MAX_AHEAD:]:
                    dropped.close()
                del self.requests[MAX_AHEAD:]

    def _answer_here(self) -> None:
        """As ``service`` for what costs nothing: no thread, and no waking of this one for the next."""
        while self.here:
            self.here = False
            request = self.requests[0]
            task = (self.task_class if request.error is None else Turned)(self, request)
            with contextlib.suppress(ClientDisconnected):
                task.service()
            with self.requests_lock:
                request.close()
                self.requests.pop(0)
                if task.close_on_finish:
                    self.close_when_flushed, self.requests = True, []
                elif self.requests:
                    self.reading = threading.get_ident()
                    self.server.add_task(self)
                    self.reading = 0


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    """Threads for requests that cost something; the others are answered where they are read."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.set_thread_count(threads)
        self._turns, self._as_of = float(TURNED_BURST), time.monotonic()

    def add_task(self, task: Channel) -> None:
        request, task.queued = task.requests[0], time.monotonic()
        # a busy broker is alive: who restarts what does not answer must not restart this
        free = request.error is not None or request.path == HEALTH_PATH
        if task.reading == threading.get_ident() and (free or not self._room_for(request)):
            if not free:
                request.error = Busy("")
                self._turns -= 1
            task.here = True
        else:
            super().add_task(task)

    def listens(self) -> bool:
        """Whether one more request can be heard: who is told to come back costs something too."""
        if not self._full(MAX_NEW):
            return True
        now = time.monotonic()
        self._turns = min(TURNED_BURST, self._turns + (now - self._as_of) * TURNED_RATE)
        self._as_of = now
        return bool(self._turns >= 1)

    def _room_for(self, request: Any) -> bool:
        return not self._full(MAX_NEW) or (_goes_on(request) and not self._full(MAX_WAITING))

    def _full(self, room: int) -> bool:
        if len(self.queue) < room:
            return False
        # some of those in the queue belong to threads that are about to wake
        idle = len(self.threads) - self.stop_count - self.active_count
        return bool(len(self.queue) - idle >= room)


def _goes_on(request: Any) -> bool:
    """Whether somebody has come before and been told to. Who only says so gains a place in a full house."""
    if request.path in (FACTORS_BEGIN_PATH, FACTORS_COMPLETE_PATH):
        return True
    body = request.get_body_stream()
    found = b"auth_session=" in body.read()
    body.seek(0)
    return found


class Server(TcpWSGIServer):  # type: ignore[misc]
    """One listening socket. ``api`` writes the lines of what the application never sees."""

    channel_class = Channel
    api: Api
    listening = True  # in this turn of the loop, which asks the listening socket before it asks the others

    def readable(self) -> bool:
        self.listening = self.task_dispatcher.listens()
        return bool(super().readable()) and self.listening

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            channel.look_at_clock()
