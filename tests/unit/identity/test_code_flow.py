from __future__ import annotations

import os
import socket
import threading
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from support.ui import FakeUI

from credx.errors import SignInError, UnavailableError
from credx.identity import code_flow
from credx.jose import TokenError
from credx.model import Secret


@dataclass
class Browser:
    """Follows the authorization request with what a provider would send back; ``again`` are later requests."""

    idp: Any
    answer: dict[str, str] = field(default_factory=lambda: {"code": "the-code"})
    token: dict[str, Any] = field(default_factory=dict)
    response: dict[str, Any] = field(default_factory=dict)
    before: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    works: bool = True

    def __call__(self, url: str) -> bool:
        self.opened.append(url)
        query = {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}
        token = self.idp.id_token(**{"nonce": query["nonce"], **self.token})
        self.idp.answers.append(
            (200, {"token_type": "Bearer", "id_token": token, "access_token": "a", **self.response})
        )
        threading.Thread(target=self._follow, args=(query,)).start()
        return self.works

    def _follow(self, query: dict[str, str]) -> None:
        good = urlencode({"state": query["state"], **self.answer})
        for bad in [*self.before, f"{query['redirect_uri']}?{good}"]:
            url = bad.replace("CALLBACK", query["redirect_uri"])
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                    url, timeout=5
                ) as page:
                    page.read()
            except OSError as error:
                if isinstance(error, urllib.request.HTTPError):
                    error.close()


def sign_in(
    idp: Any, provider: Any, browser: Any, now: float, ui: FakeUI | None = None, **kwargs: Any
) -> code_flow.TokenSet:
    return code_flow.sign_in(
        provider,
        client_id="credx-cli",
        scopes=("openid", "offline_access"),
        http=idp,
        keys=idp.keys,
        ui=ui or FakeUI(),
        open_browser=browser,
        now=lambda: now,
        rng=os.urandom,
        **{"deadline": 5, **kwargs},
    )


def test_a_sign_in(idp: Any, provider: Any, now: int) -> None:
    browser, ui = Browser(idp, response={"refresh_token": "r-1"}), FakeUI()
    tokens = sign_in(idp, provider, browser, now, ui)
    assert tokens.claims.subject == "u-1"
    assert tokens.refresh_token == Secret("r-1")
    assert tokens.id_token.reveal().count(".") == 2
    (form,) = idp.forms
    query = parse_qs(urlsplit(browser.opened[0]).query)
    assert form["_url"] == provider.token_endpoint
    assert form["code"] == "the-code"
    assert [form["redirect_uri"]] == query["redirect_uri"]
    assert "client_secret" not in form
    assert ui.notes == ["sign in at https://idp.example.com in the browser window that has opened"]
    assert idp.fetched == ["https://keys.example.net/jwks"]  # where the provider said, without asking again
    port = urlsplit(form["redirect_uri"]).port or 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_where_no_browser_opens_the_address_is_shown(idp: Any, provider: Any, now: int) -> None:
    browser, ui = Browser(idp, works=False), FakeUI()
    sign_in(idp, provider, browser, now, ui)
    assert ui.notes == [f"open this address in a browser on this machine to sign in: {browser.opened[0]}"]


def test_strangers_at_the_door_do_not_end_the_wait(idp: Any, provider: Any, now: int) -> None:
    before = ["CALLBACK?code=evil&state=evil", "CALLBACK?error=access_denied&state=evil", "CALLBACK"]
    assert sign_in(idp, provider, Browser(idp, before=before), now).claims.subject == "u-1"
    assert [form["code"] for form in idp.forms] == ["the-code"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            {"error": "access_denied", "error_description": "not \x1b[31mtoday"},
            "refused: not \ufffd.31mtoday",
        ),
        ({"code": "c", "iss": "https://evil.example"}, "another identity provider"),
        ({"code": ""}, "no usable code"),
    ],
)
def test_an_answer_that_ends_the_sign_in(
    idp: Any, provider: Any, now: int, answer: dict[str, str], said: str
) -> None:
    with pytest.raises(SignInError, match=said):
        sign_in(idp, provider, Browser(idp, answer=answer), now)
    assert idp.forms == []


def test_nobody_signs_in(idp: Any, provider: Any, now: int) -> None:
    with pytest.raises(SignInError, match="nobody"):
        sign_in(idp, provider, lambda _: True, now, deadline=0.1)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ({"nonce": "another"}, "nonce"),
        ({"nonce": None}, "claims"),
        ({"aud": "another"}, "wrong-audience"),
        ({"iss": "https://evil.example"}, "unknown-issuer"),
        ({"exp": 1_799_999_000, "iat": 1_799_998_000}, "expired"),
    ],
)
def test_an_id_token_that_is_not_for_this_sign_in(
    idp: Any, provider: Any, now: int, token: Any, reason: str
) -> None:
    with pytest.raises(TokenError) as caught:
        sign_in(idp, provider, Browser(idp, token=token), now)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "response",
    [
        {"id_token": None},
        {"id_token": 1},
        {"refresh_token": 1},
        {"refresh_token": ""},
        {"id_token": ["a.b.c"]},
    ],
)
def test_a_token_response_of_another_form(idp: Any, provider: Any, now: int, response: Any) -> None:
    with pytest.raises(SignInError, match="sent"):
        sign_in(idp, provider, Browser(idp, response=response), now)


def renew(idp: Any, provider: Any, now: float, **kwargs: Any) -> code_flow.TokenSet:
    return code_flow.refresh(provider, "credx-cli", Secret("r-1"), idp, idp.keys, now, **kwargs)


def test_renewing_with_and_without_rotation(idp: Any, provider: Any, now: int) -> None:
    idp.answers = [
        (200, {"id_token": idp.id_token(), "refresh_token": "r-2"}),
        (200, {"id_token": idp.id_token()}),
    ]
    assert renew(idp, provider, now).refresh_token == Secret("r-2")
    assert renew(idp, provider, now, subject="u-1").refresh_token == Secret("r-1")
    assert idp.forms[0] == {
        "_url": provider.token_endpoint,
        "grant_type": "refresh_token",
        "refresh_token": "r-1",
        "client_id": "credx-cli",
    }


def test_renewing_never_changes_the_person(idp: Any, provider: Any, now: int) -> None:
    idp.answers = [(200, {"id_token": idp.id_token(sub="u-2")})]
    with pytest.raises(SignInError, match="another person"):
        renew(idp, provider, now, subject="u-1")
    idp.answers = [(200, {"id_token": idp.id_token(iss="https://evil.example")})]
    with pytest.raises(TokenError):
        renew(idp, provider, now)


@pytest.mark.parametrize(
    ("status", "answer", "error", "said"),
    [
        (400, {"error": "invalid_grant"}, SignInError, "refused: invalid_grant"),
        (401, {"error": "x", "error_description": "\u202egone\n"}, SignInError, "refused: \ufffdgone\ufffd"),
        (200, {}, UnavailableError, "status 200 and no tokens"),
        (200, b"<html>", UnavailableError, "no tokens"),
        (200, b'{"id_token":"a.b.c","id_token":"d.e.f"}', UnavailableError, "no tokens"),
        (200, {"access_token": "a"}, SignInError, "no ID token"),
        (400, b"<html>", UnavailableError, "status 400"),
        (400, {"error": 1}, UnavailableError, "status 400"),
        (503, {"error": "temporarily_unavailable"}, UnavailableError, "status 503"),
    ],
)
def test_answers_of_the_token_endpoint(  # noqa: PLR0917
    idp: Any, provider: Any, now: int, status: int, answer: Any, error: type[Exception], said: str
) -> None:
    idp.answers = [(status, answer)]
    with pytest.raises(error, match=said) as caught:
        renew(idp, provider, now)
    assert "r-1" not in str(caught.value)


def test_revoking(idp: Any, provider: Any) -> None:
    idp.answers = [(200, b""), (503, b""), (400, {"error": "unsupported_token_type"})]
    assert [code_flow.revoke(provider, "credx-cli", Secret("r-1"), idp) for _ in range(3)] == [
        True,
        False,
        False,
    ]
    assert idp.forms[0] == {
        "_url": provider.revocation_endpoint,
        "token": "r-1",
        "token_type_hint": "refresh_token",
        "client_id": "credx-cli",
    }
    idp.down = True
    assert not code_flow.revoke(provider, "credx-cli", Secret("r-1"), idp)


def test_a_provider_without_revocation(idp: Any, provider: Any) -> None:
    object.__setattr__(provider, "revocation_endpoint", None)
    assert not code_flow.revoke(provider, "credx-cli", Secret("r-1"), idp)
    assert idp.forms == []
