"""The front door as a process has it: bounds, what is believed of a proxy, and nothing in between."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from credx.broker.front.wsgi import run_until, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def door(world: Any) -> Iterator[Callable[..., int]]:
    running: list[tuple[Any, threading.Thread]] = []
    stopping = threading.Event()

    def start(**how: Any) -> int:
        server = serve(world.broker, port=0, **how)
        thread = threading.Thread(target=run_until, args=(server, stopping), daemon=True)
        thread.start()
        running.append((server, thread))
        return int(server.effective_port)

    yield start
    stopping.set()
    for _, thread in running:
        thread.join(5)
        assert not thread.is_alive()


def ask(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[Any, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_it_serves_and_says_nothing_of_itself(door: Callable[..., int], world: Any) -> None:
    port = door()
    response, body = ask(port, "GET", "/healthz")
    assert (response.status, json.loads(body)) == (200, {"status": "ok"})
    assert response.getheader("server") in (None, "")
    assert response.getheader("via") is None
    response, body = ask(port, "GET", "/factors", Authorization=f"Bearer {world.token().reveal()}")
    assert (response.status, json.loads(body)) == (200, {"factors": []})


def test_a_query_makes_no_route(door: Callable[..., int]) -> None:
    assert ask(door(), "GET", "/healthz?x")[0].status == 404


def test_bounds_on_headers_and_bodies(door: Callable[..., int]) -> None:
    port = door()
    assert ask(port, "GET", "/healthz", X_Large="a" * 40_000)[0].status == 431
    assert ask(port, "POST", "/token", b"a" * 70_000)[0].status == 413
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(b"POST /token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.sendall((b"8000\r\n" + b"a" * 0x8000 + b"\r\n") * 3 + b"0\r\n\r\n")
        assert b" 413 " in raw.recv(100)


def test_the_address_is_the_sockets_unless_a_configured_proxy_speaks(
    door: Callable[..., int], world: Any
) -> None:
    def address(port: int) -> str:
        token = world.token(groups="nothing").reveal()
        ask(
            port, "DELETE", "/factor-sessions", Authorization=f"Bearer {token}", X_Forwarded_For="203.0.113.9"
        )
        return str(world.records()[-1]["client"])

    assert address(door()) == "127.0.0.1"
    assert address(door(trusted_proxy="192.0.2.1")) == "127.0.0.1"
    assert address(door(trusted_proxy="127.0.0.1")) == "203.0.113.9"


@pytest.mark.parametrize("length", ["-1", "x", "1_0", "+5"])
def test_a_strange_length_is_no_body(world: Any, length: str) -> None:
    from io import BytesIO

    from credx.broker.front.api import Api
    from credx.broker.front.wsgi import application

    statuses: list[str] = []
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/token",
        "CONTENT_LENGTH": length,
        "wsgi.input": BytesIO(b"x" * 100),
    }
    list(application(Api(world.broker))(environ, lambda status, _: statuses.append(status)))  # type: ignore[arg-type,return-value]
    assert statuses == ["400 Bad Request"]
