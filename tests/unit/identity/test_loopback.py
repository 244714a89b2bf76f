from __future__ import annotations

import http.client
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from credx.errors import SignInError
from credx.identity.loopback import Listener
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
