"""The browser of scripts: opens an authorization URL, clicks on a person, follows to the callback.

It keeps cookies, reads the form that it is shown and submits what a browser would submit; it goes
nowhere but to loopback.
"""

from __future__ import annotations

import threading
import urllib.request
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from typing import IO, TYPE_CHECKING, Final
from urllib.parse import urlencode, urljoin, urlsplit

from credx.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message

TIMEOUT: Final = 10.0  # seconds for each request
MAX_PAGE: Final = 256 * 1024  # bytes


def click_through(url: str, username: str) -> bool:
    """Sign in as ``username`` and deliver the answer to the callback.

    Returns whether the callback took it. Raises nothing for a page without that person or a server that
    is away: a browser raises nothing either.
    """
    try:
        opener = _opener()
        with opener.open(_loopback(url), timeout=TIMEOUT) as page:
            form = _Form(username)
            form.feed(page.read(MAX_PAGE).decode())
            target = urljoin(page.geturl(), form.action)
        if not form.found:
            return False
        click = urllib.request.Request(_loopback(target), data=urlencode(form.fields).encode())  # noqa: S310
        with opener.open(click, timeout=TIMEOUT) as callback:
            callback.read(MAX_PAGE)
            return bool(callback.status == 200)
    except (OSError, ValueError):
        return False


def browser_for(username: str) -> Callable[[str], bool]:
    """An ``open_browser`` that returns at once, as a real one does; the clicking goes on in a thread."""

    def open_browser(url: str) -> bool:
        threading.Thread(target=click_through, args=(url, username), daemon=True).start()
        return True

    return open_browser


class _LoopbackRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(  # noqa: PLR0917 -- urllib's signature
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        return super().redirect_request(req, fp, code, msg, headers, _loopback(newurl))  # type: ignore[arg-type]  # typeshed wants HTTPMessage


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}),  # a proxy would carry the code off the machine
        urllib.request.HTTPCookieProcessor(CookieJar()),
        _LoopbackRedirects(),
    )


def _loopback(url: str) -> str:
    """``url``, when it is http on this machine.

    Raises:
        ValueError: anything else.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not is_loopback(parts.hostname or ""):
        raise ValueError("the robot stays on this machine")
    return url


class _Form(HTMLParser):
    """The first form that has a submit button for this person: its action, and what the click sends."""

    def __init__(self, username: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: list[tuple[str, str]] = []
        self.found = False
        self._username = username
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.found and not self._inside:
            return
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action, self.fields, self._inside = given.get("action", ""), [], True
        elif self._inside and tag == "input" and given.get("type") == "hidden":
            self.fields.append((given.get("name", ""), given.get("value", "")))
        elif self._inside and tag == "button" and given.get("value") == self._username:
            self.fields.append((given.get("name", ""), self._username))
            self.found = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
