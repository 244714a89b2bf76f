from __future__ import annotations

import pytest

from credx.urls import origin


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://idp.example.com/realm?x=1", "https://idp.example.com"),
        ("https://IDP.example.com:443/", "https://idp.example.com"),
        ("https://idp.example.com:8443", "https://idp.example.com:8443"),
        ("http://localhost:80/", "http://localhost"),
        ("http://[::1]:5000/a", "http://[::1]:5000"),
    ],
)
def test_an_origin_has_one_spelling(url: str, expected: str) -> None:
    assert origin(url) == expected


@pytest.mark.parametrize(
    "url", ["http://idp.example.com/", "https://a@idp.example.com", "ftp://localhost/", "x", ""]
)
def test_what_is_not_permitted_has_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match="not a permitted URL"):
        origin(url)
