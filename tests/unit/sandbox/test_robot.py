"""The robot against a page of its own making; test_idp drives it against the identity provider."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from credx.sandbox.robot import browser_for, click_through

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = b"""<form method=post action="/other"><button name=username value=carol></form>
<form method=post action="/click?a=1&amp;b=2"><input type=hidden name=csrf value="x&amp;y">
<input type=text name=ignored value=1><button name=username value=alice>A</button>
<button name=username value=bob>B</button></form>
<form action=/late><input type=hidden name=late value=1></form>"""


class Site(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.redirect = "/done"
        self.seen: list[tuple[str, str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.seen.append((self.path, "", self.headers["Cookie"]))
        self.send_response(200)
        self.send_header("Set-Cookie", "session=1")
        self.end_headers()
        self.wfile.write(PAGE if self.path == "/" else b"done")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.seen.append((self.path, body, self.headers["Cookie"]))
        self.send_response(302)
        self.send_header("Location", self.server.redirect)
        self.end_headers()

    def log_message(self, *_args: object) -> None: ...


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_submits_what_a_browser_would(site: Site) -> None:
    assert click_through(site.url, "bob")
    assert site.seen == [
        ("/", "", None),
        ("/click?a=1&b=2", "csrf=x%26y&username=bob", "session=1"),
        ("/done", "", "session=1"),
    ]


def test_a_page_without_that_person(site: Site) -> None:
    assert not click_through(site.url, "mallory")
    assert len(site.seen) == 1


@pytest.mark.parametrize(
    "place", ["http://192.0.2.1/", "http://example.com/", "https://127.0.0.1/", "file:///"]
)
def test_follows_nowhere_but_to_loopback(site: Site, place: str) -> None:
    site.redirect = place
    assert not click_through(site.url, "alice")
    assert not click_through(place, "alice")


def test_a_server_that_is_away(site: Site) -> None:
    assert not click_through("http://127.0.0.1:9/", "alice")


def test_no_proxy_is_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    assert click_through(site.url, "alice")


def test_opening_a_browser_returns_at_once(site: Site) -> None:
    arrived = threading.Event()

    class Slow(Handler):
        def do_GET(self) -> None:
            super().do_GET()
            if self.path == "/done":
                arrived.set()

    site.RequestHandlerClass = Slow
    assert browser_for("alice")(site.url)
    assert arrived.wait(5)
