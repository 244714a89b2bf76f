"""The fetcher of key sets against real servers that are slow, endless or lead elsewhere."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from credx.errors import UnavailableError
from credx.http import CAP, Http
from credx.jose import RemoteKeys, TrustedIssuer, rsa_public_jwk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PUBLIC = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
DEADLINE = 0.6  # seconds; the real one is five, and only the number differs
T = 1_800_000_000.0


class Provider:
    """An identity provider on loopback; ``answer(socket, path)`` writes what it likes."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.issuer = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.trusted = TrustedIssuer(issuer=self.issuer, audience="credx-cli")
        self.asked: list[str] = []
        self.ended = threading.Event()
        self.answers: dict[str, Callable[[socket.socket, str], None]] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                chunk = connection.recv(65536)
                if not chunk:
                    return
                data += chunk
            path = data.split(b" ", 2)[1].decode()
            self.asked.append(path)
            self.answers.get(path, self.good)(connection, path)

    def good(self, connection: socket.socket, path: str) -> None:
        if path == "/jwks":
            body = json.dumps({"keys": [{**rsa_public_jwk(PUBLIC), "kid": "k1"}]})
        else:
            body = json.dumps({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"})
        whole(connection, body.encode())

    def drip(self, connection: socket.socket, _path: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not self.ended.wait(0.05):
            connection.sendall(b" ")

    def drip_headers(self, connection: socket.socket, _path: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while not self.ended.wait(0.05):
            connection.sendall(b"a")

    def silence(self, connection: socket.socket, _path: str) -> None:
        self.ended.wait(30)

    def close(self) -> None:
        self.ended.set()
        self.listener.close()


def whole(connection: socket.socket, body: bytes, status: str = "200 OK", headers: str = "") -> None:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{headers}\r\n"
    connection.sendall(head.encode() + body)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with contextlib.closing(Provider()) as one:
        yield one


@pytest.fixture
def other() -> Iterator[Provider]:
    with contextlib.closing(Provider()) as one:
        yield one


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> RemoteKeys:
    monkeypatch.setattr("credx.jose.keys.DEADLINE", DEADLINE)
    monkeypatch.setattr("credx.jose.keys.WAIT", DEADLINE)
    monkeypatch.setattr("credx.jose.keys.BLINK", DEADLINE / 16)
    return RemoteKeys(Http(environ={}).fetch)


def ask(keys: RemoteKeys, provider: Provider, now: float = T, kid: str = "k1") -> str:
    try:
        keys.key(provider.trusted, kid, "RS256", now=now)
    except UnavailableError:
        return "unavailable"
    return "ok"


def test_a_good_provider(keys: RemoteKeys, provider: Provider) -> None:
    assert [ask(keys, provider), ask(keys, provider, T + 100)] == ["ok", "ok"]
    assert provider.asked == ["/.well-known/openid-configuration", "/jwks"]


@pytest.mark.parametrize("how", ["drip", "drip_headers", "silence"])
@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks"])
def test_a_slow_provider_is_given_up_after_the_deadline(
    keys: RemoteKeys, provider: Provider, how: str, path: str
) -> None:
    provider.answers[path] = getattr(provider, how)
    start = time.monotonic()
    assert ask(keys, provider) == "unavailable"
    assert time.monotonic() - start < DEADLINE + 0.4
    before = list(provider.asked)
    start = time.monotonic()
    assert {ask(keys, provider, T + n / 10) for n in range(100)} == {"unavailable"}
    assert time.monotonic() - start < 0.5  # and nobody asks it again for a while
    assert provider.asked == before


@pytest.mark.parametrize("length", [CAP + 1, 64 * 1024 * 1024])
def test_a_huge_key_set_is_not_swallowed(keys: RemoteKeys, provider: Provider, length: int) -> None:
    sent = [0]

    def huge(connection: socket.socket, _path: str) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n".encode())
        while sent[0] < length:
            sent[0] += connection.send(b" " * min(65536, length - sent[0]))

    provider.answers["/jwks"] = huge
    assert ask(keys, provider) == "unavailable"
    assert sent[0] < 16 * 1024 * 1024  # what the kernel's buffers took


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks"])
def test_a_redirect_is_not_followed(
    keys: RemoteKeys, provider: Provider, other: Provider, path: str, status: str
) -> None:
    provider.answers[path] = lambda connection, _: whole(
        connection, b"", status, f"location: {other.issuer}{path}\r\n"
    )
    assert ask(keys, provider) == "unavailable"
    assert other.asked == []


def test_a_slow_provider_takes_no_thread_from_the_others(
    keys: RemoteKeys, provider: Provider, other: Provider
) -> None:
    """Eight threads as the broker has them, and a flood of requests of the provider that does not answer."""
    provider.answers["/jwks"] = provider.silence
    with ThreadPoolExecutor(8) as threads:
        flood = [threads.submit(ask, keys, provider) for _ in range(64)]
        start = time.monotonic()
        assert threads.submit(ask, keys, other).result(5) == "ok"
        assert threads.submit(ask, keys, other).result(5) == "ok"
        assert time.monotonic() - start < DEADLINE / 2
        assert {one.result(5) for one in flood} == {"unavailable"}


def test_the_last_good_set_serves_at_once_while_somebody_waits_for_a_slow_provider(
    keys: RemoteKeys, provider: Provider
) -> None:
    assert ask(keys, provider) == "ok"
    provider.answers["/.well-known/openid-configuration"] = provider.drip
    later = T + 3600
    with ThreadPoolExecutor(8) as threads:
        slow = threads.submit(ask, keys, provider, later)
        until = time.monotonic() + 5
        while len(provider.asked) < 3:
            assert time.monotonic() < until
            time.sleep(0.005)
        start = time.monotonic()
        assert [ask(keys, provider, later) for _ in range(100)] == ["ok"] * 100
        assert time.monotonic() - start < DEADLINE / 2
        assert slow.result(5) == "ok"
