from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.urls import is_loopback, permitted_url


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.example.com",
        "https://idp.example.com:8443/realms/r?x=1",
        "https://[2001:db8::1]/",
        "http://localhost",
        "http://localhost:8080/x",
        "http://127.0.0.1:1",
        "http://127.255.0.9",
        "http://[::1]:3/",
    ],
)
def test_https_anywhere_and_http_on_this_machine(url: str) -> None:
    assert permitted_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "idp.example.com",
        "http://idp.example.com",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://0x7f.1",
        "http://2130706433",
        "http://[::ffff:127.0.0.1]",
        "ftp://localhost",
        "file:///etc/passwd",
        "https://",
        "https://:443",
        "https://host:",
        "https://host:0",
        "https://host:99999",
        "https://host:x",
        "https://user@host",
        "https://user:word@host",
        "https://host/#part",
        "https://host#",
        "https://ho st",
        "https://host\n.evil",
        "https://host\t/",
        "https://host\\@evil",
        "https://h\u00f6st",
        "https://[::1",
        "https://[v1.x]",
        "https://-host",
        "https://host/" + "x" * 2048,
        "\ud800",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    assert not permitted_url(url)


@given(st.text() | st.text(alphabet="htps:/[]@#?.%\\localhost0127"))
def test_any_text_has_an_answer(text: str) -> None:
    assert permitted_url(text) in (True, False)
    assert is_loopback(text) in (True, False)
