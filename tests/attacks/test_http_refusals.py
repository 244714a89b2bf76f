"""What the front door itself turns away, before anybody's ID token is looked at."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from credx.broker.front.routes import ROUTES
from credx.protocol import MAX_BODY, Ask, TokenRequest

if TYPE_CHECKING:
    from support.front import Front

    from credx.model import Secret

PATHS = {re.sub(r"\(\?P<id>[^)]*\)", "0123456789abcdef", r.path.pattern.replace("\\", "")): r for r in ROUTES}
GUARDED = [path for path, route in PATHS.items() if not route.public and path != "/token"]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X")


def form(front: Front, token: Secret | None = None, **more: Any) -> bytes:
    return TokenRequest(subject_token=token or front.world.token(), ask=Ask(role="prod", **more)).to_form()


def test_the_list_of_routes_is_whole() -> None:
    assert len(ROUTES) == 13
    assert len(GUARDED) == 6


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize(
    "sent",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic YWxpY2U6eA==",
        "Bearer a.b.c x",
        "Bearer a.b.c, Bearer d.e.f",
        "a.b.c",
    ],
)
def test_a_route_without_a_bearer_token(front: Front, path: str, sent: str | None) -> None:
    headers = [] if sent is None else [("Authorization", sent)]
    answer = front.refused(
        lambda: front.send(PATHS[path].method, path, {}, headers=headers), "invalid_token", verified=False
    )
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_two_bearer_tokens(front: Front) -> None:
    token = front.world.token()
    twice = [("Authorization", f"Bearer {token.reveal()}"), ("Authorization", "Bearer a.b.c")]
    front.refused(lambda: front.send("GET", "/roles", headers=twice), "invalid_token", verified=False)


def test_a_bearer_token_where_the_form_should_have_it(front: Front) -> None:
    token = front.world.token()
    rest = b"&".join(
        pair for pair in form(front, token).split(b"&") if not pair.startswith(b"subject_token=")
    )
    front.refused(
        lambda: front.send("POST", "/token", rest, token=token, kind="application/x-www-form-urlencoded"),
        "invalid_request",
        verified=False,
    )


def test_a_token_in_the_query(front: Front) -> None:
    token = front.world.token().reveal()
    for query in (f"access_token={token}", f"id_token={token}", f"Authorization=Bearer%20{token}"):
        front.refused(
            lambda query=query: front.send("GET", f"/roles?{query}"),
            "not_found",
            verified=False,
            line="no_route",
        )
    assert token[:20] not in json.dumps(front.lines)  # not a cut one either


@pytest.mark.parametrize("path", PATHS)
def test_a_method_that_a_route_does_not_have(front: Front, path: str) -> None:
    allowed = {route.method for other, route in PATHS.items() if other == path}
    for method in METHODS:
        if method in allowed or method == "HEAD":
            continue
        answer = front.refused(
            lambda method=method: front.send(method, path, token=front.world.token()),
            "method_not_allowed",
            verified=False,
            line="no_route",
        )
        assert answer.headers["allow"] == ", ".join(sorted(allowed))
    if "HEAD" not in allowed:
        answer = front.send("HEAD", path, token=front.world.token())
        assert (answer.status, answer.raw) == (405, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/", "/Token", "/token/", "/token;x=1", "/token?x=1", "/token/../roles", "/./roles", "/roles/.", "/roles//",
        "/roles%00", "/roles%0a", "/roles%20", "/roles%3f", "/roles%2f", "/r%c3%b6les", "/factors/", "/factors/..",
        "/factors/0123456789ABCDEF", "/factors/0123456789abcde", "/factors/0123456789abcdef0", "/factors/%2e%2e/roles",
        "/factors/0123456789abcdef/../0123456789abcdef", "/factors/begin/", "/admin", "/users", "/metrics", "/debug",
        "/.well-known/", "/.well-known/../roles", "/.well-known/jwks.json/",
    ],
)  # fmt: skip
def test_an_address_that_is_no_route(front: Front, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        front.refused(
            lambda method=method: front.send(method, path, token=front.world.token()),
            "not_found",
            verified=False,
            line="no_route",
        )


@pytest.mark.parametrize(
    "path", ["/token", "/factors/begin", "/factors/complete", "/factors/0123456789abcdef"]
)
def test_a_body_that_is_too_large(front: Front, path: str) -> None:
    for size in (MAX_BODY + 1, 10 * MAX_BODY):
        before = len(front.lines)
        try:
            answer = front.send(PATHS[path].method, path, b"a" * size, token=front.world.token())
        except ConnectionError:  # the server need not read what it does not take
            continue
        assert answer.status == 413
        assert len(front.lines) == before
    assert front.world.records() == []


def test_a_body_that_says_it_is_short(front: Front) -> None:
    """What follows a body is the next request, never a part of this one."""
    token = front.world.token().reveal()
    body = form(front)
    smuggled = f"GET /factors HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    with socket.create_connection((front.host, front.port), timeout=5) as raw:
        head = f"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw.sendall(head.encode() + body + smuggled)
        assert b" 400 " in raw.recv(4096).split(b"\r\n")[0]
    assert front.world.records() == []


@pytest.mark.parametrize("kind", ["", "text/plain", "application/json", "multipart/form-data; boundary=x"])
def test_a_token_request_that_is_not_a_form(front: Front, kind: str) -> None:
    body = form(front)
    front.refused(lambda: front.send("POST", "/token", body, kind=kind), "invalid_request", verified=False)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_a_body_that_is_not_json(front: Front, kind: str) -> None:
    body = {"purpose": "prove", "auth_session": "x" * 43}
    token = front.world.token()
    front.refused(
        lambda: front.send("POST", "/factors/begin", body, token=token, kind=kind),
        "invalid_request",
        verified=False,
    )


REPEATED = (
    "audience=dev", "audience=prod", "subject_token=a.b.c", "grant_type=x", "subject_token_type=x", "duration=900",
    "scope=x", "operation=creds", "reason=x", "auth_session=" + "x" * 43, "otp=123456", "factor_session=" + "x" * 43,
)  # fmt: skip


@pytest.mark.parametrize("pair", REPEATED)
def test_a_parameter_given_twice(front: Front, pair: str) -> None:
    once = form(front, duration=900, reason="x", scopes=("x",))
    name = pair.partition("=")[0]
    body = once + b"&" + pair.encode() + (b"" if f"{name}=".encode() in once else b"&" + pair.encode())
    front.refused(lambda: front.form(body), "invalid_request", verified=False)


@pytest.mark.parametrize(
    "tail",
    [
        b"&client_id=x", b"&Audience=dev", b"&audience[]=dev", b"&actor_token=x", b"&x=1", b"&", b"&audience",
        b"&scope=", b"&otp=123456", b"&auth_session=short&otp=123456", b"&otp=%ff", b"&reason=a%0ab", b"&reason=%00",
        b"&reason=%E2%80%AE", b"&duration=1e3", b"&duration=-900", b"&duration=%D9%A9%D9%A0%D9%A0",
        b"&operation=root", b"&operation=forward:x:1:2%0a", b"\xff",
    ],
)  # fmt: skip
def test_a_form_with(front: Front, tail: bytes) -> None:
    body = form(front) + tail
    shape = b"auth_session=short" in tail
    front.refused(
        lambda: front.form(body), "insufficient_authorization" if shape else "invalid_request", verified=False
    )


def test_another_grant(front: Front) -> None:
    body = form(front).replace(
        quote("urn:ietf:params:oauth:grant-type:token-exchange", safe="").encode(), b"password"
    )
    front.refused(lambda: front.form(body), "unsupported_grant_type", verified=False)


@pytest.mark.parametrize(
    "body",
    [
        b'{"purpose":"prove","purpose":"enrol","auth_session":"%s"}' % (b"x" * 43),
        b'{"purpose":"enrol","kind":"totp","kind":"webauthn","name":"x"}',
        b'{"purpose":"enrol","kind":"totp","name":"x","user":"bob"}',
        b'{"purpose":"enrol","kind":"totp","name":{"$ne":1}}',
        b'{"purpose":"enrol","kind":"totp","name":"\\ud800"}',
        b'{"purpose":"remove"}',
        b'\xef\xbb\xbf{"purpose":"enrol","kind":"totp","name":"x"}',
        '{"purpose":"enrol","kind":"totp","name":"x"}'.encode("utf-16"),
        b'{"purpose":"enrol","kind":"totp","name":"x"} {}',
        b'{"purpose":NaN}',
        b"[" * 30_000,
        b"",
    ],
)
def test_json_that_can_be_read_in_two_ways(front: Front, body: bytes) -> None:
    token = front.world.token()
    front.refused(
        lambda: front.send("POST", "/factors/begin", body, token=token), "invalid_request", verified=False
    )


@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X_Forwarded_For", "True-Client-IP", "X-Forwarded-Host"],
)
def test_an_address_that_the_client_says_it_has(front: Front, header: str) -> None:
    said = "for=203.0.113.9" if header == "Forwarded" else "203.0.113.9"
    token = front.world.token(groups=[])
    form_body = form(front, token)
    kind = "application/x-www-form-urlencoded"
    front.refused(
        lambda: front.send("POST", "/token", form_body, headers=[(header, said)], kind=kind), "access_denied"
    )
    assert front.world.records()[-1]["client"] == "127.0.0.1"
    front.refused(
        lambda: front.send("GET", "/roles", headers=[(header, said)]), "invalid_token", verified=False
    )
    assert front.lines[-1]["client"] == "127.0.0.1"


def test_a_line_that_an_address_would_break(front: Front) -> None:
    front.refused(
        lambda: front.send("GET", "/x%0a%7b%22event%22:%22granted%22%7d%1b[2J"),
        "not_found",
        verified=False,
        line="no_route",
    )
    assert "\n" not in front.lines[-1]["path"]
    assert "\x1b" not in front.lines[-1]["path"]
