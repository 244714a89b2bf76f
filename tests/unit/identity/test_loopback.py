from __future__ import annotations

import http.client
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from credx.errors import SignInError
from credx.identity import loopback
from credx.identity.loopback import MAX_CONNECTIONS, Listener
from credx.model import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def judge(parameters: Mapping[str, str]) -> Secret | None:
    if parameters.get("state") != "s":
        return None
    if "error" in parameters:
        raise SignInError(f"refused: {parameters['error']}")
    return Secret(parameters["code"])


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as made:
        made.start(judge)
        yield made


def port_of(listener: Listener) -> int:
    return urlsplit(listener.redirect_uri).port or 0


def get(
    listener: Listener, target: str, host: str | None = None, method: str = "GET"
) -> tuple[int, str, dict[str, str]]:
    port = port_of(listener)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, target, headers={"Host": host or f"127.0.0.1:{port}"})
        answer = connection.getresponse()
        return (
            answer.status,
            answer.read().decode(),
            {name.lower(): value for name, value in answer.getheaders()},
        )
    finally:
        connection.close()


def still_waiting(listener: Listener) -> bool:
    with pytest.raises(SignInError, match="nobody"):
        listener.wait(0)
    return True


def test_the_address_is_a_loopback_literal_with_its_own_port(listener: Listener) -> None:
    parts = urlsplit(listener.redirect_uri)
    assert (parts.scheme, parts.hostname, parts.path) == ("http", "127.0.0.1", "/callback")
    with Listener() as other:
        assert other.redirect_uri != listener.redirect_uri


def test_the_port_is_taken_before_anybody_hears_of_it() -> None:
    with Listener() as made, pytest.raises(OSError), socket.socket() as rival:
        rival.bind(("127.0.0.1", port_of(made)))


def test_it_listens_on_127_0_0_1_only(listener: Listener) -> None:
    assert listener._server.socket.getsockname()[0] == "127.0.0.1"


def test_the_answer_ends_the_wait_and_the_page_says_so(listener: Listener) -> None:
    status, page, headers = get(listener, "/callback?code=hunter2&state=s")
    assert listener.wait(5) == Secret("hunter2")
    assert status == 200
    assert "close this window" in page
    assert "hunter2" not in page
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"].startswith("default-src 'none';")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["server"].strip() == "credx"
    assert "src=" not in page
    assert "href=" not in page


def test_after_the_answer_nobody_listens() -> None:
    with Listener() as made:
        made.start(judge)
        get(made, "/callback?code=c&state=s")
        made.wait(5)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(
            ("127.0.0.1", port_of_closed := urlsplit(made.redirect_uri).port or 0), timeout=2
        )
    assert port_of_closed


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/favicon.ico", 404),
        ("/", 404),
        ("/callback/", 404),
        ("/callback%3Fcode=c&state=s", 404),
        ("http://127.0.0.1/callback?code=c&state=s", 404),
        ("/callback", 400),
        ("/callback?", 400),
        ("/callback?code=c&state=wrong", 400),
        ("/callback?error=access_denied&state=wrong", 400),
        ("/callback?code=c", 400),
        ("/callback?code=c&state=s&state=s", 404),
        ("/callback?code=c&code=d&state=s", 404),
        ("/callback?code=%ff&state=s", 404),
        ("/callback?state=s&code", 404),
        ("/callback?state=s&code=" + "c" * 17_000, 404),
        ("/callback?state=s&code=c&" + "&".join(f"a{n}=1" for n in range(20)), 404),
    ],
)
def test_a_bad_callback_does_not_end_the_wait(listener: Listener, target: str, status: int) -> None:
    assert get(listener, target)[0] == status
    assert still_waiting(listener)
    get(listener, "/callback?code=good&state=s")
    assert listener.wait(5) == Secret("good")


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:{port}.evil.example"]
)
def test_a_page_under_its_own_name_cannot_answer(listener: Listener, host: str) -> None:
    """DNS rebinding."""
    assert get(listener, "/callback?code=c&state=s", host.format(port=port_of(listener)))[0] == 404
    assert still_waiting(listener)


def test_two_hosts_or_none(listener: Listener) -> None:
    good = f"Host: 127.0.0.1:{port_of(listener)}\r\n"
    for hosts in ("", good + "Host: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", port_of(listener)), timeout=5) as sock:
            sock.sendall(f"GET /callback?code=c&state=s HTTP/1.1\r\n{hosts}\r\n".encode())
            assert b" 404 " in sock.recv(100)
    assert still_waiting(listener)


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "PUT"])
def test_only_get_is_answered(listener: Listener, method: str) -> None:
    status, _, headers = get(listener, "/callback?code=c&state=s", method=method)
    assert status == 501
    assert "access-control-allow-origin" not in headers
    assert still_waiting(listener)


def test_a_no_ends_the_wait_and_is_shown_escaped(listener: Listener) -> None:
    status, page, _ = get(listener, "/callback?state=s&error=%3Cscript%3Ealert(1)%3C/script%3E%22'")
    assert status == 200
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    with pytest.raises(SignInError, match="refused: <script>"):
        listener.wait(5)


def test_the_first_answer_wins(listener: Listener) -> None:
    get(listener, "/callback?code=first&state=s")
    get(listener, "/callback?code=second&state=s")
    assert listener.wait(5) == Secret("first")


def test_connections_that_say_nothing_hold_up_nobody(listener: Listener) -> None:
    """Browsers open connections ahead of need."""
    silent = [socket.create_connection(("127.0.0.1", port_of(listener))) for _ in range(5)]
    try:
        start = time.monotonic()
        get(listener, "/callback?code=c&state=s")
        assert listener.wait(5) == Secret("c")
        assert time.monotonic() - start < 2
    finally:
        for sock in silent:
            sock.close()


@pytest.mark.parametrize(
    "raw", [b"", b"\0\xff\r\n\r\n", b"GET\r\n\r\n", b"GET /callback?" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n"]
)
def test_what_is_not_http_ends_nothing_and_prints_nothing(
    listener: Listener, raw: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", port_of(listener)), timeout=5) as sock:
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        while True:
            try:
                if not sock.recv(1000):
                    break
            except ConnectionError:
                break
    get(listener, "/callback?code=c&state=s")
    assert listener.wait(5) == Secret("c")
    assert capfd.readouterr() == ("", "")


def test_the_deadline(listener: Listener) -> None:
    start = time.monotonic()
    with pytest.raises(SignInError, match=r"nobody signed in within 0\.2 s") as caught:
        listener.wait(0.2)
    assert 0.2 <= time.monotonic() - start < 2
    assert caught.value.hint == "credx login"


def test_leaving_early_leaves_nothing_behind() -> None:
    before = threading.active_count()
    for _ in range(3):
        with Listener():
            pass
        with Listener() as made:
            made.start(judge)
    assert threading.active_count() == before


# -- bounds and the end ----------------------------------------------------------------------------


def connect(listener: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(listener)), timeout=5)


def until_closed(sock: socket.socket) -> bytes:
    received = b""
    try:
        while some := sock.recv(4096):
            received += some
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "BREW<script>"])
@pytest.mark.parametrize(
    "target", ["/callback?code=hunter2&state=s", "/callback?code=hunter2", "/favicon.ico"]
)
def test_every_page_has_the_headers_and_quotes_nothing(listener: Listener, method: str, target: str) -> None:
    with connect(listener) as sock:
        sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port_of(listener)}\r\n\r\n".encode())
        head, _, page = until_closed(sock).partition(b"\r\n\r\n")
    for header in (b"no-store", b"no-referrer", b"default-src 'none'", b"nosniff", b"Connection: close"):
        assert header in head
    assert b"hunter2" not in head + page
    assert b"<script>" not in page
    assert bool(page) == (method != "HEAD")


def test_the_page_arrives_though_the_listener_closes_before_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, show = Listener(), loopback._Handler._show

    def late(handler: loopback._Handler, status: HTTPStatus, text: str) -> None:
        made._thread.join()
        time.sleep(0.1)  # by now the open connections have been told
        show(handler, status, text)

    monkeypatch.setattr(loopback._Handler, "_show", late)
    with made:
        made.start(judge)
        sock = connect(made)
        sock.sendall(
            f"GET /callback?code=c&state=s HTTP/1.1\r\nHost: 127.0.0.1:{port_of(made)}\r\n\r\n".encode()
        )
        made.wait(5)
    with sock:
        assert until_closed(sock).endswith(b"</html>")


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_a_browser_that_goes_away_loses_no_answer_and_prints_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    judging, gone = threading.Event(), threading.Event()

    def slow_judge(parameters: Mapping[str, str]) -> Secret | None:
        judging.set()
        gone.wait(5)
        return judge(parameters)

    with Listener() as made:
        made.start(slow_judge)
        early, late = connect(made), connect(made)
        early.sendall(b"GET /callb")
        reset(early)
        late.sendall(
            f"GET /callback?code=c&state=s HTTP/1.1\r\nHost: 127.0.0.1:{port_of(made)}\r\n\r\n".encode()
        )
        assert judging.wait(5)
        reset(late)
        gone.set()
        assert made.wait(5) == Secret("c")
    assert capfd.readouterr() == ("", "")


def test_closing_ends_every_connection_and_thread_at_once() -> None:
    before = set(threading.enumerate())
    with Listener() as made:
        made.start(judge)
        open_ones = [connect(made) for _ in range(10)]
        for sock in open_ones[5:]:
            sock.sendall(b"GET /callback?code=c&sta")  # and nothing more
        get(made, "/callback?code=c&state=s")  # the others were accepted before it
        made.wait(5)
        start = time.monotonic()
    assert time.monotonic() - start < 1
    assert set(threading.enumerate()) <= before
    for sock in open_ones:
        with sock:
            until_closed(sock)  # or the socket's own timeout fails the test


def test_a_flood_of_connections_neither_grows_nor_holds_up_the_answer(listener: Listener) -> None:
    flood = [connect(listener) for _ in range(MAX_CONNECTIONS * 2)]
    try:
        assert get(listener, "/callback?code=c&state=s")[0] == 200
        assert listener.wait(5) == Secret("c")
        assert len(listener._server._open) <= MAX_CONNECTIONS
        for sock in flood[:MAX_CONNECTIONS]:  # the oldest had to go
            sock.settimeout(2)
            assert until_closed(sock) == b""
    finally:
        for sock in flood:
            sock.close()


def test_many_callbacks_at_once(listener: Listener) -> None:
    def call(number: int) -> int:
        state = "s" if number == 40 else f"wrong-{number}"
        return get(listener, f"/callback?code=c-{number}&state={state}")[0]

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(call, range(80)))
    assert [number for number, status in enumerate(found) if status == 200] == [40]
    assert set(found) == {200, 400}
    assert listener.wait(5) == Secret("c-40")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_ctrl_c_is_taken_at_once_and_leaves_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    old = signal.signal(signal.SIGALRM, signal.default_int_handler)
    start, made = time.monotonic(), Listener()

    def wait_in_vain() -> None:
        with made:
            made.start(judge)
            silent.append(connect(made))
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            made.wait(60)

    silent: list[socket.socket] = []
    try:
        with pytest.raises(KeyboardInterrupt):
            wait_in_vain()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert time.monotonic() - start < 2
    silent[0].close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        connect(made)
    assert capfd.readouterr() == ("", "")


def test_a_wait_longer_than_one_slice(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows takes Ctrl-C between two of them."""
    monkeypatch.setattr(loopback, "SLICE", 0.02)
    timer = threading.Timer(0.1, get, (listener, "/callback?code=c&state=s"))
    timer.start()
    assert listener.wait(5) == Secret("c")
    timer.join()
    with pytest.raises(SignInError, match="nobody"):
        listener.wait(0.1)


def test_no_port_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loopback, "HOST", "192.0.2.1")  # nobody's address here
    with pytest.raises(SignInError, match="no port"):
        Listener()
