"""What a sign-in must refuse, over real sockets: the sandbox's provider, a robot for a browser, and servers
that misbehave in the place of endpoints. Each test is named after what is refused.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

import pytest
from support.ui import FakeUI

from credx.config import Settings
from credx.credentials.store import NoVault
from credx.errors import SignInError, UnavailableError
from credx.flow import Flow
from credx.http import Http, Response
from credx.identity import code_flow
from credx.identity.discovery import Provider, discover
from credx.jose import RemoteKeys, TokenError
from credx.model import Secret
from credx.sandbox.idp import Idp
from credx.sandbox.robot import click_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Clock:
    offset: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


class Wire(Http):
    """Remembers what was sent and received; ``hasty`` replaces every deadline."""

    def __init__(self, hasty: float | None = None) -> None:
        super().__init__(environ={})
        self.hasty = hasty
        self.posted: list[tuple[str, dict[str, str]]] = []
        self.received: list[bytes] = []

    def request(self, method: str, url: str, **how: Any) -> Response:
        if method == "POST":
            self.posted.append((url, dict(parse_qsl(how["body"].decode()))))
        if self.hasty is not None:
            how["deadline"] = self.hasty
        response = super().request(method, url, **how)
        self.received.append(response.body)
        return response


class Stand(ThreadingHTTPServer):
    """Gives one answer to everybody: ``status``, ``headers`` and ``body``, after ``slow`` seconds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.status, self.headers, self.body, self.slow = 200, {}, b"{}", 0.0
        self.seen: list[str] = []
        self.stopping = threading.Event()

    status: int
    headers: dict[str, str]
    body: bytes
    slow: float

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what is tested here."""


class _Answer(BaseHTTPRequestHandler):
    server: Stand

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.server.seen.append(f"{self.command} {self.path} {self.rfile.read(length).decode()}")
        self.server.stopping.wait(self.server.slow)
        self.send_response_only(self.server.status)
        for name, value in {"Content-Length": str(len(self.server.body)), **self.server.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_args: object) -> None: ...


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def running(clock: Clock) -> Iterator[Idp]:
    with Idp(now=clock) as idp:
        yield idp


@pytest.fixture
def idp(running: Idp, clock: Clock) -> Iterator[Idp]:
    yield running
    running.down, running.slow, running.clock_offset, running.token_lifetime = False, 0.0, 0.0, 3600
    running.extra_claims, clock.offset = {}, 0.0


@pytest.fixture
def stand() -> Iterator[Stand]:
    with Stand() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.stopping.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def wire() -> Wire:
    return Wire()


def provider_of(idp: Idp) -> Provider:
    return discover(idp.issuer, Http(environ={}))


def alice(url: str) -> bool:
    threading.Thread(target=click_through, args=(url, "alice"), daemon=True).start()
    return True


def tampered(change: Callable[[dict[str, str]], dict[str, str]]) -> Callable[[str], bool]:
    """A browser in which somebody else has rewritten the authorization request."""

    def open_browser(url: str) -> bool:
        parts = urlsplit(url)
        query = urlencode(change(dict(parse_qsl(parts.query))))
        return alice(urlunsplit(parts._replace(query=query)))

    return open_browser


def sign_in(
    provider: Provider,
    wire: Wire,
    browser: Callable[[str], bool] = alice,
    *,
    now: Callable[[], float] = time.time,
    ui: FakeUI | None = None,
) -> code_flow.TokenSet:
    return code_flow.sign_in(
        provider,
        client_id="credx-cli",
        scopes=("openid", "profile", "offline_access"),
        http=wire,
        keys=RemoteKeys(Http(environ={}).fetch),
        ui=ui or FakeUI(interactive=False),
        open_browser=browser,
        now=now,
        rng=os.urandom,
        deadline=10,
    )


def refresh(provider: Provider, token: Secret, wire: Wire, now: float | None = None) -> code_flow.TokenSet:
    keys = RemoteKeys(Http(environ={}).fetch)
    return code_flow.refresh(provider, "credx-cli", token, wire, keys, time.time() if now is None else now)


# -- codes and tokens of somebody else ---------------------------------------------------------------


def test_a_code_that_was_got_with_another_verifier(idp: Idp, wire: Wire) -> None:
    """Code injection: Keycloak CVE-2026-16089, RFC 9700 4.5."""
    other = tampered(lambda query: {**query, "code_challenge": "A" * 43})
    with pytest.raises(SignInError, match="refused"):
        sign_in(provider_of(idp), wire, other)
    assert len(wire.posted) == 1


def test_an_id_token_that_was_made_for_another_sign_in(idp: Idp, wire: Wire) -> None:
    with pytest.raises(TokenError) as caught:
        sign_in(provider_of(idp), wire, tampered(lambda query: {**query, "nonce": "of-another"}))
    assert caught.value.reason == "nonce"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "another-client"}, "wrong-audience"),
        ({"aud": ["credx-cli", "another-client"]}, "wrong-audience"),
        ({"azp": "another-client"}, "wrong-audience"),
        ({"iss": "https://evil.example"}, "unknown-issuer"),
        ({"sub": "a\nb"}, "claims"),
        ({"exp": None}, "claims"),
    ],
)
def test_an_id_token_for_somebody_else(idp: Idp, wire: Wire, claims: dict[str, Any], reason: str) -> None:
    idp.extra_claims = claims
    with pytest.raises(TokenError) as caught:
        sign_in(provider_of(idp), wire)
    assert caught.value.reason == reason


def test_the_answer_of_another_provider_brings_its_code_nowhere(idp: Idp, wire: Wire) -> None:
    """The mix-up of RFC 9207: a code of one provider must not reach the token endpoint of another."""
    with Idp() as evil, pytest.raises(SignInError, match="another identity provider"):
        sign_in(provider_of(idp), wire, lambda url: alice(url.replace(idp.issuer, evil.issuer)))
    assert wire.posted == []


def test_a_key_that_the_provider_does_not_publish(idp: Idp, wire: Wire, stand: Stand) -> None:
    with Idp() as evil:
        stand.body = json.dumps({"id_token": evil.id_token_for("alice", issuer=idp.issuer)}).encode()
    with pytest.raises(TokenError) as caught:
        refresh(replace(provider_of(idp), token_endpoint=stand.url), Secret("r"), wire)
    assert caught.value.reason == "unknown-key"


# -- renewing ----------------------------------------------------------------------------------------


def test_a_refresh_token_that_was_used_before(idp: Idp, wire: Wire) -> None:
    provider = provider_of(idp)
    first = sign_in(provider, wire).refresh_token
    assert first is not None
    second = refresh(provider, first, wire).refresh_token
    assert second is not None
    assert second != first
    with pytest.raises(SignInError, match="refused"):
        refresh(provider, first, wire)
    with pytest.raises(SignInError, match="refused"):  # somebody had a copy: all of them end
        refresh(provider, second, wire)


def test_a_refresh_token_that_was_revoked(idp: Idp, wire: Wire) -> None:
    provider = provider_of(idp)
    token = sign_in(provider, wire).refresh_token
    assert token is not None
    assert code_flow.revoke(provider, "credx-cli", token, wire)
    with pytest.raises(SignInError, match="refused") as caught:
        refresh(provider, token, wire)
    assert caught.value.hint == "credx login"


@dataclass
class Laptop:
    """Commands of one person, one after another, over one vault."""

    issuer: str
    now: Clock
    wire: Wire = field(default_factory=Wire)
    vault: NoVault = field(default_factory=NoVault)

    def flow(self, browser: Callable[[str], bool] | None = None) -> Flow:
        settings = Settings(broker="https://credx.example.com", issuer=self.issuer, client_id="credx-cli")
        return Flow(
            settings=replace(settings, id_scopes=("openid", "offline_access")),
            vault=self.vault, http=self.wire, ui=FakeUI(interactive=False), devices=list, open_browser=browser,
            now=self.now, rng=os.urandom, environ={}, stdin=None,
        )  # fmt: skip


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "00u8b3d6g1j5p7r2t4w9"},
        {"sub": "00U1F7K2M9Q4X8C3V5N6"},
        {"auth_time": 1_700_000_000},
        {"iss": "https://evil.example"},
        {"iss": "http://127.0.0.1"},
    ],
)
def test_a_renewal_that_changes_the_person_the_issuer_or_the_authentication(
    idp: Idp, clock: Clock, claims: dict[str, Any]
) -> None:
    """OpenID Connect Core 12.2, as a command meets it: the old sign-in stays, and nobody is somebody else."""
    laptop = Laptop(idp.issuer, clock)
    signed_in = laptop.flow(alice).sign_in()
    kept = laptop.flow().id_token()
    clock.offset = 3595  # too old to be used again, and nearly expired
    idp.extra_claims = claims
    with pytest.raises(SignInError, match="would have asked"):
        laptop.flow().id_token()
    status = laptop.flow().status()["signed_in"]
    assert (status["issuer"], status["subject"]) == (signed_in.issuer, signed_in.subject)
    clock.offset = 0
    assert laptop.flow().id_token() == kept


def test_a_good_renewal_is_taken(idp: Idp, clock: Clock) -> None:
    """Or the test above would show nothing."""
    laptop = Laptop(idp.issuer, clock)
    laptop.flow(alice).sign_in()
    kept = laptop.flow().id_token()
    clock.offset = 3595
    assert laptop.flow().id_token() != kept
    idp.extra_claims = {"auth_time": None}  # only where both say when
    clock.offset = 2 * 3595
    assert laptop.flow().id_token() != kept


def test_a_refresh_token_goes_to_no_other_provider(idp: Idp, clock: Clock, stand: Stand) -> None:
    laptop = Laptop(idp.issuer, clock)
    laptop.flow(alice).sign_in()
    laptop.issuer = stand.url
    with pytest.raises(SignInError, match="would have asked"):
        laptop.flow().id_token()
    assert stand.seen == []


# -- clocks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "lifetime", "said"),
    [(-600, 3600, "behind"), (600, 300, "ahead of"), (86_400, 3600, "ahead of")],
)
def test_a_wrong_clock_here_is_named_in_seconds(
    idp: Idp, wire: Wire, wrong: int, lifetime: int, said: str
) -> None:
    idp.token_lifetime = lifetime
    with pytest.raises(SignInError) as caught:
        sign_in(provider_of(idp), wire, now=Clock(wrong))
    words = caught.value.message.split()
    seconds = int(words[words.index("seconds") - 1])
    assert abs(seconds - abs(wrong)) <= 5
    assert f"seconds {said} the identity provider's" in caught.value.message
    assert "set the clock" in (caught.value.hint or "")
    assert caught.value.exit_code == 4


def test_a_clock_that_is_a_little_wrong_does_no_harm(idp: Idp, wire: Wire) -> None:
    for wrong in (-50, 50):
        tokens = sign_in(provider_of(idp), wire, now=Clock(wrong))
        assert tokens.claims.subject == idp.people["alice"].subject


def test_a_bad_time_in_the_token_is_not_blamed_on_the_clock_here(idp: Idp, wire: Wire, clock: Clock) -> None:
    clock.offset = 600  # what makes the tokens is wrong, what writes Date is right
    with pytest.raises(TokenError) as caught:
        sign_in(provider_of(idp), wire)
    assert caught.value.reason == "not-yet-valid"
    assert "the clock here" not in caught.value.message


def test_a_wrong_clock_is_not_blamed_for_another_fault(idp: Idp, wire: Wire) -> None:
    idp.extra_claims = {"aud": "another-client"}
    with pytest.raises(TokenError) as caught:
        sign_in(provider_of(idp), wire, now=Clock(-600))
    assert caught.value.reason == "wrong-audience"
    assert "clock" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 99 Nov 99999 99:99:99 GMT", "\x80", "0" * 500])
def test_a_date_that_is_none(idp: Idp, wire: Wire, stand: Stand, date: str | None) -> None:
    stand.body = json.dumps({"id_token": idp.id_token_for("alice")}).encode()
    stand.headers = {} if date is None else {"Date": date}
    provider = replace(provider_of(idp), token_endpoint=stand.url)
    with pytest.raises(TokenError, match="from the future") as caught:
        refresh(provider, Secret("r"), wire, now=time.time() - 600)
    assert "the clock here" not in caught.value.message
    stand.headers = {"Date": formatdate(usegmt=True)}
    with pytest.raises(TokenError, match=r"(599|600|601) seconds behind"):
        refresh(provider, Secret("r"), wire, now=time.time() - 600)


# -- endpoints that misbehave ------------------------------------------------------------------------


def test_a_provider_that_is_down(idp: Idp, wire: Wire) -> None:
    provider = provider_of(idp)
    idp.down = True
    with pytest.raises(UnavailableError, match="503"):
        refresh(provider, Secret("r"), wire)
    with pytest.raises(UnavailableError, match="503"):
        discover(idp.issuer, wire)
    assert not code_flow.revoke(provider, "credx-cli", Secret("r"), wire)
    with pytest.raises(UnavailableError, match="no connection"):
        refresh(replace(provider, token_endpoint="http://127.0.0.1:9/token"), Secret("r"), wire)


def test_a_provider_that_takes_too_long(idp: Idp) -> None:
    provider, wire = provider_of(idp), Wire(hasty=0.2)
    idp.slow = 30
    start = time.monotonic()
    with pytest.raises(UnavailableError, match="did not answer within"):
        refresh(provider, Secret("r"), wire)
    with pytest.raises(UnavailableError, match="did not answer within"):
        discover(idp.issuer, wire)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_with_a_code_in_the_hand(
    idp: Idp, wire: Wire, stand: Stand, status: int
) -> None:
    stand.status, stand.headers = status, {"Location": f"{stand.url}/elsewhere"}
    provider = replace(provider_of(idp), token_endpoint=f"{stand.url}/token")
    with pytest.raises(UnavailableError, match="redirect"):
        sign_in(provider, wire)
    assert [line.split()[:2] for line in stand.seen] == [["POST", "/token"]]


def test_discovery_is_not_redirected(stand: Stand, idp: Idp, wire: Wire) -> None:
    """Fulcio GHSA-f5mr-q85p-6hh6."""
    stand.status = 302
    stand.headers = {"Location": f"{idp.issuer}/.well-known/openid-configuration"}
    with pytest.raises(UnavailableError, match="redirect"):
        discover(stand.url, wire)


def test_discovery_in_the_name_of_another(stand: Stand, idp: Idp, wire: Wire) -> None:
    stand.body = Http(environ={}).fetch(f"{idp.issuer}/.well-known/openid-configuration")
    with pytest.raises(SignInError, match="another name"):
        discover(stand.url, wire)


def test_an_issuer_on_the_open_network_without_tls(wire: Wire) -> None:
    with pytest.raises(UnavailableError, match="neither https"):
        discover("http://idp.example.com", wire)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>log in</html>", "no tokens"),
        (200, b"", "no tokens"),
        (200, b"[1]", "no tokens"),
        (200, b"\xff\xfe", "no tokens"),
        (200, b'{"id_token":' + b"[" * 100_000, "no tokens"),
        (200, b'{"id_token":"' + b"a" * 200_000 + b'"}', "more than 131072 bytes"),
        (204, b"", "no tokens"),
        (429, b'{"error":"slow_down"}', "status 429"),
        (500, b'{"error":"server_error"}', "status 500"),
    ],
)
def test_what_is_no_token_response(  # noqa: PLR0917
    idp: Idp, wire: Wire, stand: Stand, status: int, body: bytes, said: str
) -> None:
    stand.status, stand.body = status, body
    with pytest.raises(UnavailableError, match=said):
        refresh(replace(provider_of(idp), token_endpoint=stand.url), Secret("r"), wire)


# -- secrets -----------------------------------------------------------------------------------------


def test_an_error_that_quotes_our_secrets_is_not_passed_on(idp: Idp, wire: Wire, stand: Stand) -> None:
    class Parrot(_Answer):
        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            values = " ".join(value for _, value in parse_qsl(form))
            self.server.status = 400
            self.server.body = json.dumps({"error": "invalid_grant", "error_description": values}).encode()
            self.headers.replace_header("Content-Length", "0")
            self.do_GET()

    stand.RequestHandlerClass = Parrot
    provider = replace(provider_of(idp), token_endpoint=stand.url)
    with pytest.raises(SignInError, match=r"refused: invalid_grant\Z"):
        sign_in(provider, wire)
    with pytest.raises(SignInError, match=r"refused: invalid_grant\Z"):
        refresh(provider, Secret("hunter2"), wire)


def test_nothing_secret_is_logged_printed_or_shown(
    idp: Idp, wire: Wire, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    provider, ui = provider_of(idp), FakeUI(interactive=False)
    opened: list[str] = []

    def browser(url: str) -> bool:
        opened.append(url)
        return alice(url)

    tokens = sign_in(provider, wire, browser, ui=ui)
    assert tokens.refresh_token is not None
    renewed = refresh(provider, tokens.refresh_token, wire)
    idp.extra_claims = {"aud": "another-client"}
    with pytest.raises(SignInError) as first:
        sign_in(provider, wire, browser, ui=ui)
    with pytest.raises(SignInError) as second:
        refresh(provider, renewed.refresh_token or Secret(""), wire)
    errors: list[SignInError] = [first.value, second.value]
    shown = "".join([caplog.text, *capfd.readouterr(), *ui.notes, repr(errors)])
    shown += "".join(f"{error.message} {error.hint} {error.args}" for error in errors)
    secrets = {
        *(form[name] for _, form in wire.posted for name in form if name in ("code", "code_verifier")),
        *(form["refresh_token"] for _, form in wire.posted if "refresh_token" in form),
        *(parse_qs(urlsplit(url).query)[name][0] for url in opened for name in ("state", "nonce")),
        *(json.loads(body)["id_token"] for body in wire.received if b"id_token" in body),
    }
    assert len(secrets) == 14
    assert [secret for secret in secrets if secret in shown] == []
    assert tokens.id_token.reveal() not in repr(tokens)
    assert tokens.refresh_token.reveal() not in repr(tokens)
