"""The identity provider over HTTP, as a client meets it."""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.error
import urllib.request
from hashlib import sha256
from http.cookiejar import CookieJar
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest

from credx.sandbox.idp import CLIENT_ID, Idp
from credx.sandbox.idp_tokens import SigningKey
from credx.sandbox.robot import click_through

if TYPE_CHECKING:
    from collections.abc import Iterator

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
CALLBACK = "http://127.0.0.1:1/callback"


class Clock:
    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def shared(clock: Clock) -> Iterator[Idp]:
    with Idp(now=clock) as running:
        yield running


@pytest.fixture
def idp(shared: Idp, clock: Clock) -> Iterator[Idp]:
    yield shared
    shared.down, shared.slow, shared.clock_offset, shared.token_lifetime = False, 0.0, 0.0, 3600
    shared.extra_claims, clock.offset = {}, 0.0


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


class Browser:
    """Keeps cookies, follows nothing."""

    def __init__(self) -> None:
        self.opener = urllib.request.build_opener(
            NoRedirect(), urllib.request.HTTPCookieProcessor(CookieJar())
        )

    def open(self, url: str, form: dict[str, str] | None = None) -> tuple[int, Any, str]:
        data = None if form is None else urlencode(form).encode()
        try:
            with self.opener.open(urllib.request.Request(url, data=data), timeout=5) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.headers, answer.read().decode()


def authorize_url(idp: Idp, **changes: str | None) -> str:
    parameters = {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": CALLBACK,
        "scope": "openid profile email offline_access",
        "state": "st",
        "nonce": "no",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    return f"{idp.issuer}/authorize?" + urlencode({k: v for k, v in parameters.items() if v is not None})


def csrf_of(page: str) -> str:
    return page.partition('name="csrf" value="')[2].partition('"')[0]


def sign_in(
    idp: Idp, username: str = "alice", browser: Browser | None = None, **changes: str | None
) -> dict[str, str]:
    browser, url = browser or Browser(), authorize_url(idp, **changes)
    page = browser.open(url)[2]
    status, headers, _ = browser.open(url, {"csrf": csrf_of(page), "username": username})
    assert status == 302
    assert headers["Location"].startswith(changes.get("redirect_uri") or CALLBACK)
    return answer_of(headers)


def answer_of(headers: Any) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(headers["Location"]).query).items()}


def redeem(idp: Idp, code: str, **changes: str | None) -> tuple[int, dict[str, Any]]:
    form = {
        "grant_type": "authorization_code",
        "client_id": CLIENT_ID,
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        **changes,
    }
    return token(idp, form)


def refresh(idp: Idp, value: str) -> tuple[int, dict[str, Any]]:
    return token(idp, {"grant_type": "refresh_token", "client_id": CLIENT_ID, "refresh_token": value})


def token(idp: Idp, form: dict[str, str | None]) -> tuple[int, dict[str, Any]]:
    sent = {name: value for name, value in form.items() if value is not None}
    status, headers, body = Browser().open(f"{idp.issuer}/token", sent)
    assert headers["Cache-Control"] == "no-store"
    return status, json.loads(body)


def claims_of(idp: Idp, id_token: str) -> dict[str, Any]:
    jwks = json.loads(Browser().open(f"{idp.issuer}/jwks.json")[2])
    key = jwt.PyJWKSet.from_dict(jwks)[jwt.get_unverified_header(id_token)["kid"]]
    return jwt.decode(id_token, key, algorithms=["RS256"], audience=CLIENT_ID, issuer=idp.issuer)


def test_discovery_names_endpoints_under_the_issuer(idp: Idp) -> None:
    document = json.loads(Browser().open(f"{idp.issuer}/.well-known/openid-configuration")[2])
    assert document["issuer"] == idp.issuer
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["authorization_response_iss_parameter_supported"] is True
    assert all(
        v.startswith(idp.issuer + "/") for k, v in document.items() if k.endswith(("_endpoint", "_uri"))
    )


@pytest.mark.parametrize("callback", ["http://127.0.0.1:49152/callback", "http://[::1]:1/callback"])
def test_the_code_flow_from_click_to_claims(idp: Idp, callback: str) -> None:
    answer = sign_in(idp, redirect_uri=callback)
    assert (answer["state"], answer["iss"]) == ("st", idp.issuer)
    status, tokens = redeem(idp, answer["code"], redirect_uri=callback)
    assert status == 200
    claims = claims_of(idp, tokens["id_token"])
    assert claims["nonce"] == "no"
    assert claims["auth_time"] == pytest.approx(time.time(), abs=5)
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["groups"] == ["sre", "dev"]
    assert (claims["preferred_username"], claims["email"]) == ("alice", "alice@example.com")
    assert claims["amr"] == ["pwd"]
    assert "alice" not in claims["sub"]


def test_scopes_decide_which_claims_and_tokens_there_are(idp: Idp) -> None:
    _, tokens = redeem(idp, sign_in(idp, scope="openid")["code"])
    assert "refresh_token" not in tokens
    assert not {"email", "groups", "preferred_username"} & set(claims_of(idp, tokens["id_token"]))
    _, tokens = redeem(idp, sign_in(idp, scope="profile")["code"])
    assert "id_token" not in tokens


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "http://localhost:1/callback",
        "https://127.0.0.1:1/callback",
        "http://127.0.0.1:1/callback/x",
        "http://127.0.0.1:1/other",
        "http://127.0.0.1/callback",
        "http://127.0.0.2:1/callback",
        "http://127.0.0.1:1@evil.example/callback",
        "http://127.0.0.1:1/callback?x=1",
        None,
    ],
)
def test_other_redirect_uris_are_refused_without_a_redirect(idp: Idp, redirect_uri: str | None) -> None:
    status, headers, _ = Browser().open(authorize_url(idp, redirect_uri=redirect_uri))
    assert status == 400
    assert "Location" not in headers


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": None},
        {"code_challenge": "short"},
    ],
)
def test_pkce_with_s256_is_required(idp: Idp, changes: dict[str, str | None]) -> None:
    status, headers, _ = Browser().open(authorize_url(idp, **changes))
    assert status == 302
    answer = answer_of(headers)
    assert (answer["error"], answer["state"], answer["iss"]) == ("invalid_request", "st", idp.issuer)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:2/callback"}, "invalid_grant"),
        ({"client_id": "other"}, "invalid_client"),
        ({"client_secret": "x"}, "invalid_client"),
        ({"code": "guess"}, "invalid_grant"),
    ],
)
def test_bad_redemptions(idp: Idp, changes: dict[str, str | None], error: str) -> None:
    code = sign_in(idp)["code"]
    status, answer = redeem(idp, **{"code": code, **changes})  # type: ignore[arg-type]
    assert (status, answer["error"]) == (400, error)


def test_a_code_serves_once_and_its_reuse_ends_the_sign_in(idp: Idp) -> None:
    code = sign_in(idp)["code"]
    _, tokens = redeem(idp, code)
    assert redeem(idp, code)[1]["error"] == "invalid_grant"
    assert refresh(idp, tokens["refresh_token"])[1]["error"] == "invalid_grant"


def test_a_code_raced_for_has_one_winner(idp: Idp) -> None:
    code = sign_in(idp)["code"]
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(redeem(idp, code)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(200) <= 1
    assert results.count(400) >= 7


def test_a_code_lives_sixty_seconds(idp: Idp, clock: Clock) -> None:
    code = sign_in(idp)["code"]
    clock.offset = 61
    assert redeem(idp, code)[1]["error"] == "invalid_grant"


def test_refresh_tokens_rotate_and_reuse_ends_the_family(idp: Idp, clock: Clock) -> None:
    _, first = redeem(idp, sign_in(idp)["code"])
    before = claims_of(idp, first["id_token"])
    clock.offset = 30
    status, second = refresh(idp, first["refresh_token"])
    assert status == 200
    clock.offset = 0
    # pyjwt refuses a token from 30 s ahead, so the claims are read without it
    after = json.loads(base64.urlsafe_b64decode(second["id_token"].split(".")[1] + "=="))
    assert after["auth_time"] == before["auth_time"]
    assert after["iat"] >= before["iat"] + 29
    assert after["sub"] == before["sub"]
    assert "nonce" not in after
    assert second["refresh_token"] != first["refresh_token"]
    assert refresh(idp, first["refresh_token"])[0] == 400
    assert refresh(idp, second["refresh_token"])[0] == 400


def test_a_refresh_token_is_no_code_and_the_other_way_round(idp: Idp) -> None:
    code = sign_in(idp)["code"]
    assert refresh(idp, code)[0] == 400
    _, tokens = redeem(idp, sign_in(idp)["code"])
    assert redeem(idp, tokens["refresh_token"])[0] == 400


def test_revocation(idp: Idp) -> None:
    _, tokens = redeem(idp, sign_in(idp)["code"])
    form = {"client_id": CLIENT_ID, "token": tokens["refresh_token"], "token_type_hint": "refresh_token"}
    assert Browser().open(f"{idp.issuer}/revoke", form)[0] == 200
    assert refresh(idp, tokens["refresh_token"])[0] == 400
    assert Browser().open(f"{idp.issuer}/revoke", {**form, "token": "unknown"})[0] == 200  # RFC 7009 2.2


def test_the_form_is_worth_nothing_without_the_page(idp: Idp) -> None:
    url, browser = authorize_url(idp), Browser()
    csrf = csrf_of(browser.open(url)[2])
    assert Browser().open(url, {"csrf": csrf, "username": "alice"})[0] == 400  # another browser
    other = authorize_url(idp, state="mine")
    assert browser.open(other, {"csrf": csrf, "username": "alice"})[0] == 400  # another request
    assert browser.open(url, {"username": "alice"})[0] == 400
    assert browser.open(url, {"csrf": csrf, "username": "mallory"})[0] == 400


def test_refusing_on_the_page(idp: Idp) -> None:
    url, browser = authorize_url(idp), Browser()
    page = browser.open(url)[2]
    answer = answer_of(browser.open(url, {"csrf": csrf_of(page), "refuse": "1"})[1])
    assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", "st", idp.issuer)


def test_the_page_is_closed_and_loads_nothing(idp: Idp) -> None:
    _, headers, page = Browser().open(authorize_url(idp, state='"><script>'))
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "form-action 'self' http://127.0.0.1:1;" in headers["Content-Security-Policy"]
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "prefers-color-scheme: dark" in page


def test_login_hint_puts_that_person_first(idp: Idp) -> None:
    page = Browser().open(authorize_url(idp, login_hint="bob@example.com"))[2]
    assert page.index('value="bob"') < page.index('value="alice"')


def test_prompt_none_and_max_age(idp: Idp, clock: Clock) -> None:
    browser = Browser()
    assert answer_of(browser.open(authorize_url(idp, prompt="none"))[1])["error"] == "login_required"
    sign_in(idp, browser=browser)
    clock.offset = 100
    silent = answer_of(browser.open(authorize_url(idp, prompt="none"))[1])
    _, tokens = redeem(idp, silent["code"])
    body = json.loads(base64.urlsafe_b64decode(tokens["id_token"].split(".")[1] + "=="))
    assert body["iat"] - body["auth_time"] >= 99
    old = answer_of(browser.open(authorize_url(idp, prompt="none", max_age="50"))[1])
    assert old["error"] == "login_required"


def test_the_knobs(idp: Idp) -> None:
    idp.token_lifetime, idp.clock_offset, idp.extra_claims = 60, -7200, {"amr": ["mfa"], "name": None}
    claims = jwt.decode(idp.id_token_for("bob"), options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 60
    assert claims["iat"] == pytest.approx(time.time() - 7200, abs=5)
    assert claims["amr"] == ["mfa"]
    assert "name" not in claims
    idp.down = True
    assert Browser().open(f"{idp.issuer}/jwks.json")[0] == 503
    idp.down, idp.slow = False, 0.2
    started = time.monotonic()
    Browser().open(f"{idp.issuer}/jwks.json")
    assert time.monotonic() - started >= 0.2


def test_minting_good_and_bad_tokens(idp: Idp) -> None:
    assert claims_of(idp, idp.id_token_for("alice"))["iss"] == idp.issuer
    other = idp.id_token_for("alice", issuer="https://evil.example", audience=["a", "b"], groups=None)
    claims = jwt.decode(other, options={"verify_signature": False})
    assert (claims["iss"], claims["aud"], "groups" in claims) == ("https://evil.example", ["a", "b"], False)
    with pytest.raises(jwt.InvalidSignatureError):
        claims_of(idp, idp.id_token_for("alice", key=SigningKey().private))
    assert idp.id_token_for("alice", algorithm="none").endswith(".")
    # the key-confusion token, which pyjwt itself would refuse to make (CVE-2022-29217)
    confused = idp.id_token_for("alice", algorithm="HS256", key=b"-----BEGIN PUBLIC KEY-----")
    assert jwt.get_unverified_header(confused)["alg"] == "HS256"
    twins = idp.id_token_for("alice", payload=b'{"sub":"a","sub":"b"}', headers={"kid": None})
    assert jwt.get_unverified_header(twins) == {"alg": "RS256", "typ": "JWT"}


def test_keys_rotate() -> None:
    with Idp() as idp:
        old = idp.id_token_for("alice")
        idp.rotate_key()
        assert claims_of(idp, idp.id_token_for("alice"))
        assert claims_of(idp, old)
        idp.rotate_key(keep_old=False)
        with pytest.raises(KeyError):
            claims_of(idp, old)


def test_the_robot_signs_in(idp: Idp) -> None:
    got: list[str] = []

    class Callback(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            got.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Callback) as listener:
        thread = threading.Thread(target=listener.handle_request)
        thread.start()
        callback = f"http://127.0.0.1:{listener.server_port}/callback"
        assert click_through(authorize_url(idp, redirect_uri=callback), "bob")
        thread.join()
    code = parse_qs(urlsplit(got[0]).query)["code"][0]
    _, tokens = redeem(idp, code, redirect_uri=callback)
    assert claims_of(idp, tokens["id_token"])["preferred_username"] == "bob"


def test_stopping_leaves_no_listener_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    idp = Idp()
    idp.start()
    Browser().open(f"{idp.issuer}/jwks.json")
    idp.stop()
    with pytest.raises(urllib.error.URLError):
        Browser().open(f"{idp.issuer}/jwks.json")
    assert capfd.readouterr() == ("", "")
