"""The door under attack: each route asked as nobody would ask it, framing in two readings, slow and many clients.

Real sockets on loopback. Whatever comes: never a 5xx, never a hang, exactly one line in the log for each request.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

import pytest
from support.broker_world import World
from support.memory_store import MemoryStore

from credx.broker.front import door, wsgi
from credx.broker.front.routes import ROUTES
from credx.broker.pace import Pace
from credx.broker.telemetry import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = b"eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2VjcmV0"  # shaped as a token: it must be in no line


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(json.loads(record.getMessage()))


class Door:
    """A broker in memory behind its front door, and every line it writes about requests."""

    def __init__(self) -> None:
        self.world = World(MemoryStore())
        self.world.add_app()
        self.lines = Lines()
        self.server = wsgi.serve(self.world.broker, port=0)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=wsgi.run_until, args=(self.server, self.stopping), daemon=True)

    def __enter__(self) -> Self:
        self.level = REQUESTS.level
        REQUESTS.setLevel(logging.INFO)
        REQUESTS.addHandler(self.lines)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.thread.join(10)
        REQUESTS.removeHandler(self.lines)
        REQUESTS.setLevel(self.level)
        assert not self.thread.is_alive()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", int(self.server.effective_port)), timeout=8)

    def raw(self, sent: bytes, *, end: bool = True) -> bytes:
        """Everything that comes back until the door closes; ``end``: we send no more."""
        with closing(self.connect()) as connection:
            try:
                connection.sendall(sent)
                if end:
                    connection.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: connection.recv(65536), b""))
            except OSError:  # reset: it need not read what it does not take
                return b""

    def statuses(self, sent: bytes, *, end: bool = True) -> list[int]:
        return [int(s) for s in re.findall(rb"HTTP/1\.[01] (\d{3}) ", self.raw(sent, end=end))]

    def told(self, count: int) -> list[dict[str, Any]]:
        """The lines since the last look, once there are ``count``: an answer may be faster than its line.

        One line too many is found at the next look.
        """
        until = time.monotonic() + 3
        while len(self.lines.kept) < count and time.monotonic() < until:
            time.sleep(0.0005)
        lines, self.lines.kept[:] = list(self.lines.kept), []
        return lines


@pytest.fixture(scope="module")
def shared() -> Iterator[Door]:
    with Door() as door:
        yield door


@pytest.fixture
def house(shared: Door) -> Door:
    shared.told(0)
    shared.world.broker.admission.addresses = Pace(10**6, 0.0)  # the limit has a test of its own
    return shared


def path_of(route: Any) -> bytes:
    return str(route.template).replace("{id}", "0123456789abcdef").encode()


def request(method: bytes, path: bytes, *headers: bytes, body: bytes = b"", length: bool = True) -> bytes:
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: credx.example.com", b"Connection: close", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


JSON, FORM = b"Content-Type: application/json", b"Content-Type: application/x-www-form-urlencoded"
BODIES = {
    "duplicate members": b'{"purpose":"prove","purpose":"enrol","auth_session":"%s"}' % (b"x" * 43),
    "NaN": b'{"purpose":NaN}',
    "deep": b'{"a":' * 9000 + b"1" + b"}" * 9000,
    "deep lists": b"[" * 60_000,
    "a huge number": b'{"purpose":' + b"9" * 60_000 + b"}",
    "invalid UTF-8": b'{"purpose":"\xff\xfe"}',
    "a lone surrogate": b'{"purpose":"\\ud800"}',
    "NUL": b'{"purpose":"\\u0000"}',
    "a large exponent": b'{"purpose":1e999999}',
    "nothing": b"",
    "a form": b"grant_type=x&grant_type=x",
    "a form of much": b"a=1&" * 10_000,
    "percent": b"grant_type=%zz%ff%00",
    "too large": b"a" * 70_000,
}


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.template}")
class TestEachRoute:
    def check(self, house: Door, sent: bytes, *, route: str | None = None) -> int:
        (status,) = house.statuses(sent) or [413]
        assert status < 500
        (line,) = house.told(1)
        assert line["status"] == status
        assert line["route"] in {r.template for r in ROUTES} | {"-"}
        assert "x-secret" not in json.dumps(line)
        assert SECRET[:20].decode() not in json.dumps(line)
        return status

    def test_without_a_token(self, house: Door, route: Any) -> None:
        kind = FORM if route.template == "/token" else JSON
        status = self.check(house, request(route.method.encode(), path_of(route), kind, body=b"{}"))
        assert status == (200 if route.public else 400 if route.template == "/token" else 401)

    @pytest.mark.parametrize(
        "method",
        [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"BREW"],
    )
    def test_with_another_method(self, house: Door, route: Any, method: bytes) -> None:
        if method.decode() != route.method:
            assert self.check(house, request(method, path_of(route))) == 405

    @pytest.mark.parametrize("body", BODIES)
    @pytest.mark.parametrize("kind", [JSON, FORM, b"Content-Type: text/plain", b"X-None: 1"])
    def test_with_a_body(self, house: Door, route: Any, body: str, kind: bytes) -> None:
        bearer = b"Authorization: Bearer " + SECRET
        status = self.check(
            house, request(route.method.encode(), path_of(route), kind, bearer, body=BODIES[body])
        )
        assert status in ({200, 413} if route.public else {400, 401, 413})

    @pytest.mark.parametrize(
        "bend",
        [
            b"/%s", b"//%s", b"/./%s", b"/x/../%s", b"/%s/", b"/%s?", b"/%s?access_token=" + SECRET, b"/%s#x",
            b"/%s%%00", b"/%s%%2e", b"/%s;x=1", b"/%s\x00", b"/%s%%0d%%0aX:1", b"\\%s", b"/%s\xff", b"http://[/%s",
            b"http://evil.example/%s/", b"*", b"%s",
        ],
    )  # fmt: skip
    def test_under_another_address(self, house: Door, route: Any, bend: bytes) -> None:
        if bend == b"/%s":
            return
        target = bend % path_of(route)[1:] if b"%s" in bend else bend
        status = self.check(house, request(route.method.encode(), target))
        assert status in {400, 404}

    @pytest.mark.parametrize(
        "host",
        [b"evil.example", b"credx.example.com:99999", b"[::1]", b"localhost\t", b"a" * 5000, b"\xff", b""],
    )
    def test_for_another_host(self, house: Door, route: Any, host: bytes) -> None:
        sent = request(route.method.encode(), path_of(route), FORM).replace(b"credx.example.com", host, 1)
        answer = house.raw(sent)
        assert b"evil.example" not in answer
        assert re.match(rb"HTTP/1\.1 (200|400|401) ", answer)
        assert len(house.told(1)) == 1


SMUGGLED = b"GET /factors HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"POST /token HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("a length and chunks", HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("chunks and a length", HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"),
        ("two lengths", HEAD + b"Content-Length: 0\r\nContent-Length: 36\r\n\r\n"),
        ("two equal lengths", HEAD + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
        ("a list of lengths", HEAD + b"Content-Length: 0, 0\r\n\r\n"),
        ("a signed length", HEAD + b"Content-Length: +0\r\n\r\n"),
        ("a negative length", HEAD + b"Content-Length: -1\r\n\r\n"),
        ("a hexadecimal length", HEAD + b"Content-Length: 0x0\r\n\r\n"),
        ("a length of 5000 digits", HEAD + b"Content-Length: " + b"0" * 5000 + b"\r\n\r\n"),
        ("chunked twice", HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        ("two codings", HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        ("gzip and chunked", HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("identity", HEAD + b"Transfer-Encoding: identity\r\n\r\n"),
        ("xchunked", HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("an empty coding", HEAD + b"Transfer-Encoding:\r\n\r\n"),
        ("a coding after a vertical tab", HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        ("a space before the colon", HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("a folded coding", HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        ("chunks in HTTP/1.0", HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a chunk of no size", HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\nx\r\n0\r\n\r\n"),
        ("a chunk of a signed size", HEAD + b"Transfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n"),
        ("a chunk of 0x1", HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n"),
        ("a chunk longer than it says", HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n"),
        ("a bare line feed", b"POST /token HTTP/1.1\nHost: x\nContent-Length: 0\n\n\r\n\r\n"),
        ("no host", b"POST /token HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
        ("two hosts", HEAD + b"Host: y\r\nContent-Length: 0\r\n\r\n"),
        ("HTTP/2.0", b"POST /token HTTP/2.0\r\nHost: x\r\n\r\n"),
        ("HTTP/1.9", b"POST /token HTTP/1.9\r\nHost: x\r\n\r\n"),
        ("no version", b"GET /healthz\r\n\r\n"),
        ("a header without a name", HEAD + b": x\r\n\r\n"),
        ("a header that is no line", HEAD + b"nothing\r\n\r\n"),
        ("a header that begins folded", b"POST /token HTTP/1.1\r\n Host: x\r\n\r\n"),
        ("a NUL in a header", HEAD + b"X: \x00\r\n\r\n"),
        ("a lower-case method", b"post /token HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ],
)  # fmt: skip
def test_framing_that_can_be_read_in_two_ways(house: Door, name: str, sent: bytes) -> None:
    """400, the connection ends, and what comes behind is never read as a request (RFC 9112 6.3, 11.2)."""
    statuses = house.statuses(sent + SMUGGLED * 2)
    assert statuses == [400], name
    (line,) = house.told(1)
    assert (line["status"], line["outcome"], line["route"]) == (400, "invalid_request", "-")


def test_a_head_request_has_no_body(house: Door) -> None:
    """Else it would be the beginning of the next answer on a connection that a proxy shares among clients."""
    head = b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = house.raw(head + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    first, second = re.split(rb"(?=HTTP/1\.1 )", answer)[1:]
    assert first.startswith(b"HTTP/1.1 405 ")
    assert first.endswith(b"\r\n\r\n")
    assert second.endswith(b'{"status":"ok"}')


def test_a_chunked_body_is_a_body(house: Door) -> None:
    body = b"grant_type=x"
    sent = HEAD + b"Connection: close\r\nTransfer-Encoding: Chunked\r\n" + FORM + b"\r\n\r\n"
    answer = house.raw(sent + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    assert b"unsupported_grant_type" in answer


def test_a_body_of_exactly_the_bound_is_read(house: Door) -> None:
    from credx.protocol import MAX_BODY

    assert house.statuses(request(b"POST", b"/token", FORM, body=b"a" * MAX_BODY)) == [400]
    assert house.statuses(request(b"POST", b"/token", FORM, body=b"a" * (MAX_BODY + 1))) in (
        [413],
        [],
    )  # reset: not read
    assert [line["outcome"] for line in house.told(2)] == ["invalid_request", "payload_too_large"]


@pytest.mark.parametrize("count", [95, 101, 5000])
def test_many_headers(house: Door, count: int) -> None:
    sent = request(b"GET", b"/healthz", *[b"a:%d" % n for n in range(count - 3)])
    assert house.statuses(sent) in ([[200]] if count <= door.MAX_HEADERS else [[431], []])
    assert house.told(1)[0]["outcome"] == ("ok" if count <= door.MAX_HEADERS else "headers_too_large")


def test_large_headers(house: Door) -> None:
    assert house.statuses(request(b"GET", b"/healthz", b"X: " + b"a" * wsgi.MAX_HEADER)) in ([431], [])
    assert house.told(1)[0]["outcome"] == "headers_too_large"


# -- slow clients


def drip(connection: socket.socket, sent: bytes, every: float) -> bytes:
    """One byte at a time until there is an answer; everything that came."""
    connection.settimeout(every)
    got = b""
    for byte in sent:
        try:
            connection.sendall(bytes([byte]))
            got = connection.recv(65536)
        except TimeoutError:
            continue
        except ConnectionError:
            break
        break
    return got


@pytest.mark.parametrize(
    "sent",
    [
        request(b"GET", b"/healthz", b"X: " + b"a" * 1000),
        HEAD + b"Content-Length: 1000\r\n\r\n" + b"a" * 1000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 300,
    ],
    ids=["headers", "a body", "chunks"],
)
def test_a_request_that_never_gets_done(house: Door, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Slowloris: every byte is activity, so a timeout on silence alone never ends it."""
    monkeypatch.setattr(door, "REQUEST_TIME", 0.5)
    started = time.monotonic()
    with closing(house.connect()) as connection:
        got = drip(connection, sent, 0.05)
    assert time.monotonic() - started < 4
    assert got.startswith((b"HTTP/1.0 408 ", b"HTTP/1.1 408 "))
    assert house.told(1)[0]["outcome"] == "request_timeout"


def test_slow_clients_do_not_hold_up_others(house: Door) -> None:
    slow = [house.connect() for _ in range(100)]
    try:
        for connection in slow:
            connection.sendall(b"POST /token HTTP/1.1\r\nHost:")
        started = time.monotonic()
        assert house.statuses(request(b"GET", b"/healthz")) == [200]
        assert time.monotonic() - started < 2
    finally:
        for connection in slow:
            connection.close()


def test_an_answer_that_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "ANSWER_TIME", 0.2)
    with Door() as house:
        house.world.broker.roles = lambda *_: ["x" * 1000] * 20_000  # type: ignore[method-assign,list-item]
        with closing(house.connect()) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(request(b"GET", b"/roles", b"Authorization: Bearer a.b.c"))
            until = time.monotonic() + 6
            while time.monotonic() < until and not house.lines.kept:
                time.sleep(0.05)
            while time.monotonic() < until and house.server.active_channels:
                connection.recv(1)  # a byte now and then is activity too
                time.sleep(0.1)
            assert not house.server.active_channels


# -- too many


def test_more_than_can_be_answered_is_told_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_NEW", 4)
    with Door() as house:
        inside, go = threading.Semaphore(0), threading.Event()

        def slow(*_: Any) -> list[Any]:
            inside.release()
            go.wait(10)
            return []

        house.world.broker.roles = slow  # type: ignore[method-assign]
        sent = request(b"GET", b"/roles", b"Authorization: Bearer a.b.c")
        everybody = [house.connect() for _ in range(wsgi.THREADS + 4 + 20)]
        for connection in everybody[: wsgi.THREADS]:
            connection.sendall(sent)
            assert inside.acquire(timeout=5)  # one by one: threads that have only just begun are not idle yet
        started = time.monotonic()
        for connection in everybody[wsgi.THREADS :]:
            connection.sendall(sent)
        turned = [c.recv(4096) for c in everybody[wsgi.THREADS + 4 :]]
        assert time.monotonic() - started < 2
        for answer in turned:
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 2" in answer
            assert b'"temporarily_unavailable"' in answer
        assert house.statuses(request(b"GET", b"/healthz")) == [200]  # busy, and alive
        go.set()
        served = [c.recv(4096)[:13] for c in everybody[: wsgi.THREADS + 4]]
        assert served == [b"HTTP/1.1 200 "] * len(served)
        lines = house.told(len(everybody) + 1)
        assert [line["outcome"] for line in lines].count("overloaded") == 20
        assert all(line["Throttled"] == 1 for line in lines if line["outcome"] == "overloaded")
        for connection in everybody:
            connection.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(b"POST", b"/token", FORM, body=b"audience=prod"), b"503"),
        (request(b"GET", b"/roles"), b"503"),
        (request(b"POST", b"/token", FORM, body=b"audience=prod&auth_session=x"), b"400"),
        (request(b"POST", b"/factors/begin", JSON), b"401"),
        (request(b"POST", b"/factors/complete", JSON), b"401"),
    ],
    ids=["ask", "roles", "prove", "begin", "complete"],
)
def test_a_full_house_has_room_for_who_was_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch, sent: bytes, status: bytes
) -> None:
    monkeypatch.setattr(door, "MAX_NEW", 2)
    with Door() as house:
        inside, go = threading.Semaphore(0), threading.Event()

        def slow(*_: Any) -> list[Any]:
            inside.release()
            go.wait(10)
            return []

        house.world.broker.roles = slow  # type: ignore[method-assign]
        listing = request(b"GET", b"/roles", b"Authorization: Bearer a.b.c")
        everybody = [house.connect() for _ in range(wsgi.THREADS + 2)]
        for connection in everybody[: wsgi.THREADS]:
            connection.sendall(listing)
            assert inside.acquire(timeout=5)  # one by one: threads that have only just begun are not idle yet
        for connection in everybody[wsgi.THREADS :]:
            connection.sendall(listing)
        until = time.monotonic() + 5
        while len(house.server.task_dispatcher.queue) < 2 and time.monotonic() < until:
            time.sleep(0.005)
        with closing(house.connect()) as late:
            late.sendall(sent)
            if status == b"503":
                assert late.recv(4096).startswith(b"HTTP/1.1 503 ")
            else:
                while len(house.server.task_dispatcher.queue) < 3 and time.monotonic() < until:
                    time.sleep(0.005)
            go.set()
            if status != b"503":
                assert late.recv(4096).startswith(b"HTTP/1.1 " + status)
        for connection in everybody:
            connection.close()


def test_nobody_is_served_who_waited_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_WAIT", 0.2)
    with Door() as house:
        inside, go = threading.Semaphore(0), threading.Event()

        def slow(*_: Any) -> list[Any]:
            inside.release()
            go.wait(10)
            return []

        house.world.broker.roles = slow  # type: ignore[method-assign]
        sent = request(b"GET", b"/roles", b"Authorization: Bearer a.b.c")
        everybody = [house.connect() for _ in range(wsgi.THREADS + 1)]
        for connection in everybody[:-1]:
            connection.sendall(sent)
            assert inside.acquire(timeout=5)
        everybody[-1].sendall(sent)
        time.sleep(0.4)
        go.set()
        assert everybody[-1].recv(4096).startswith(b"HTTP/1.1 503 ")
        for connection in everybody:
            connection.close()


# -- one address


def test_an_address_that_is_refused_again_and_again_is_told_to_slow_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And whoever has a good ID token behind the same address is served all the while."""
    monkeypatch.setattr("credx.broker.admission.ADDRESS_BURST", 20)
    with Door() as house:
        attempts: list[Callable[[], list[int]]] = [
            lambda: house.statuses(request(b"GET", b"/roles")),
            lambda: house.statuses(request(b"GET", b"/roles", b"Authorization: Bearer " + SECRET)),
            lambda: house.statuses(request(b"GET", b"/admin")),
            lambda: house.statuses(request(b"POST", b"/token", FORM, body=b"x")),
            lambda: house.statuses(request(b"PUT", b"/token")),
        ]
        first = [attempt()[0] for attempt in attempts * 4]
        assert set(first) == {400, 401, 404, 405}
        assert [attempt() for attempt in attempts] == [[429]] * 5
        assert b"Retry-After: 10" in house.raw(request(b"GET", b"/roles"))
        bearer = b"Authorization: Bearer " + house.world.token().reveal().encode()
        for _ in range(30):
            assert house.statuses(request(b"GET", b"/factors", bearer)) == [200]
        assert house.statuses(request(b"GET", b"/healthz")) == [200]
        house.world.clock.pass_(60)
        assert house.statuses(request(b"GET", b"/roles")) == [401]
        lines = house.told(58)
        assert all(line["Throttled"] == 1 for line in lines if line["status"] == 429)
        assert house.world.records("refused") == []
