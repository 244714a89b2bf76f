"""The wire: default deny, one bearer rule, errors that tell the outside nothing, and the contract's shapes."""

from __future__ import annotations

import json
import logging
import re
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.broker.front.answers import Request
from credx.broker.front.routes import ROUTES
from credx.broker.stores import StoreUnavailableError
from credx.model import Secret
from credx.protocol import ERROR_STATUS, GRANT_TYPE, ID_TOKEN_TYPE, Ask, StepUp, TokenRequest, WebAuthnProof

FORM = {"content-type": "application/x-www-form-urlencoded"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "")
PUBLIC = {
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/.well-known/openid-configuration",
    "/.well-known/jwks.json",
    "/.well-known/credx-configuration",
}


def path_of(route: Any) -> str:
    return re.sub(r"\(\?P<id>[^)]*\)", "0123456789abcdef", route.path.pattern.replace("\\", ""))


def form(token: Secret, role: str = "prod", **more: Any) -> bytes:
    return TokenRequest(subject_token=token, ask=Ask(role=role), **more).to_form()


# -- default deny


def test_every_route_but_the_public_ones_and_token_demands_a_bearer_token(
    world: Any,
) -> None:  # CVE-2025-66406
    guarded = [route for route in ROUTES if path_of(route) not in PUBLIC | {"/token"}]
    assert len(guarded) == len(ROUTES) - 7 == 6
    assert {path_of(route) for route in ROUTES if route.public} == PUBLIC
    for route in guarded:
        for authorization in (None, "", "Bearer", "Bearer ", "Basic YWxpY2U6eA==", "Bearer x y", "Bearer\tx"):
            headers = {} if authorization is None else {"authorization": authorization}
            response, body = world.http(route.method, path_of(route), {}, headers=headers)
            assert response.status == 401, (route, authorization)
            assert body["error"] == "invalid_token"
            assert response.headers["www-authenticate"] == (
                "Bearer" if authorization is None else 'Bearer error="invalid_token"'
            )
        response, body = world.http(
            route.method, path_of(route), _BODY.get(path_of(route)), token=Secret("a.b.c")
        )
        assert (response.status, body["error"]) == (401, "invalid_token"), route
    assert world.records() == []


_BODY = {
    "/factors/begin": {"purpose": "enrol", "kind": "totp", "name": "x"},
    "/factors/complete": {"enrolment": "x" * 43, "otp": "123456"},
}


def test_every_method_on_every_path_is_404_405_or_a_route(world: Any) -> None:
    for path in {path_of(route) for route in ROUTES}:
        allowed = {route.method for route in ROUTES if path_of(route) == path}
        for method in METHODS:
            if method not in allowed:
                response, body = world.http(method, path)
                assert response.status == 405
                assert response.headers["allow"] == ", ".join(sorted(allowed))
                assert body["error"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "//token", "/token/", "/Token", "/token?x=1", "/factors/", "/factors/..", "/factors/x",
        "/factors/0123456789ABCDEF", "/factors/0123456789abcdef\n", "/factors/0123456789abcdef/x", "/admin",
        "/healthz\n", "/.well-known/../token", "/%74oken",
    ],
)  # fmt: skip
def test_what_is_no_route_is_not_there(world: Any, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert world.http(method, path)[0].status == 404


@given(method=st.sampled_from(METHODS), path=st.text(max_size=30), body=st.binary(max_size=200))
def test_nothing_makes_the_api_raise(method: str, path: str, body: bytes) -> None:
    world = _shared_world()
    for where in [path, *(path_of(route) for route in ROUTES)]:
        response = world.api.handle(
            Request(
                method=method, path=where, headers={"authorization": "Bearer a.b.c"}, body=body, client="x"
            )
        )
        assert response.status in {200, 400, 401, 404, 405}
        json.loads(response.body)


_WORLDS: list[Any] = []


@pytest.fixture(autouse=True)
def _share(new_world: Any) -> None:
    if not _WORLDS:
        _WORLDS.append(new_world())


def _shared_world() -> Any:
    return _WORLDS[0]


# -- errors


def test_every_refusal_says_no_store_and_nothing_private(world: Any) -> None:
    world.add_key()
    response, body = world.http("POST", "/token", form(world.token(), "foreign"), headers=FORM)
    assert response.status == 403
    assert set(body) == {"error", "error_description"}
    private = world.records("refused")[-1]["detail"]
    assert private == "in none of the role's groups"
    assert private not in body["error_description"]
    for response, _ in (
        world.http("GET", "/roles"),
        world.http("GET", "/nothing"),
        world.http("POST", "/token", b"", headers=FORM),
    ):
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-type"] == "application/json"


def test_an_old_sign_in_says_how_fresh_it_must_be(world: Any) -> None:  # RFC 9470 3
    old = world.token(iat=int(world.clock()) - 3700)
    response, body = world.http("GET", "/roles", token=old)
    assert (response.status, body["error"]) == (401, "insufficient_user_authentication")
    assert response.headers["www-authenticate"] == (
        'Bearer error="insufficient_user_authentication", max_age="3600"'
    )


def test_an_unexpected_error_tells_nobody_anything(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError(f"secret {world.token().reveal()}")

    world.broker.roles = broken
    with caplog.at_level(logging.DEBUG):
        response, body = world.http("GET", "/roles", token=world.token())
    assert (response.status, body["error"]) == (500, "server_error")
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text + response.body.decode()


def test_a_failing_store_is_503_with_a_time_to_come_back(world: Any) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError

    world.store.get = broken
    response, body = world.http("GET", "/factors", token=world.token())
    assert (response.status, body["error"]) == (503, "temporarily_unavailable")
    assert response.headers["retry-after"] == "2"


def test_a_malformed_request_is_a_line_in_the_security_log(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    token = world.token()
    world.http("POST", "/token", form(token) + b"&audience=dev", headers=FORM)
    assert "request_refused" in caplog.text
    assert token.reveal() not in caplog.text
    assert world.records() == []


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"[]",
        b'{"purpose":"prove","purpose":"enrol"}',
        b'{"purpose":"prove"}',
        b'{"purpose":"prove","auth_session":5}',
        b'{"purpose":"prove","auth_session":"short"}',
        b'{"purpose":"prove","auth_session":"' + b"x" * 43 + b'","more":1}',
        b'{"purpose":"enrol","kind":"totp","name":"x","invitation":5}',
        b'{"purpose":"enrol","kind":"totp","name":"x","otp":"123456"}',
        b'{"purpose":"enrol","kind":"totp","name":"x","surprise":1}',
        b'{"purpose":"enrol","kind":["totp"],"name":"x"}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
    ],
)
def test_a_body_of_another_shape_is_a_400(world: Any, body: bytes | None) -> None:
    response, answer = world.http("POST", "/factors/begin", body, token=world.token())
    assert (response.status, answer["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_json_is_sent_as_json_and_forms_as_forms(world: Any, kind: str) -> None:
    response, _ = world.http(
        "POST", "/factors/begin", {"purpose": "prove"}, token=world.token(), headers={"content-type": kind}
    )
    assert response.status == 400
    assert world.http("POST", "/token", form(world.token()))[0].status == 400


def test_a_large_body_is_413(world: Any) -> None:
    assert world.http("POST", "/token", b"a" * 70_000, headers=FORM)[0].status == 413
    assert world.http("POST", "/factors/begin", b"a" * 70_000, token=world.token())[0].status == 413


def test_a_token_in_the_query_or_the_form_of_another_route_is_no_token(world: Any) -> None:
    token = world.token().reveal()
    assert world.http("GET", f"/roles?access_token={token}")[0].status == 404
    pairs = [("grant_type", GRANT_TYPE), ("subject_token_type", ID_TOKEN_TYPE), ("audience", "prod")]
    body = urlencode(pairs).encode()
    assert world.http("POST", "/token", body, token=world.token(), headers=FORM)[0].status == 400


def test_every_error_name_of_the_broker_has_a_status() -> None:
    import ast
    from pathlib import Path

    import credx.broker

    used = set()
    for path in Path(credx.broker.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {
                "Refusal",
                "_NoTokenError",
                "_No",
            }:
                used |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
    assert len(used) > 5
    assert used <= set(ERROR_STATUS)


# -- the shapes of the contract


def test_the_whole_story_over_the_wire(world: Any, new_key: Any) -> None:
    token, key = world.token(), new_key()
    response, body = world.http(
        "POST",
        "/factors/begin",
        {"purpose": "enrol", "kind": "webauthn", "name": "key", "invitation": world.invite().reveal()},
        token=token,
    )
    assert (response.status, body["expires_in"]) == (200, 300)
    options = body["public_key"]
    assert options["rp"] == {"id": "credx.example.com", "name": "Example Corp"}
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert [p["alg"] for p in options["pubKeyCredParams"]] == [-7, -8, -257]
    assert options["attestation"] == "none"
    answer = {"enrolment": body["enrolment"], "webauthn": key.register(options)}
    response, body = world.http("POST", "/factors/complete", answer, token=token)
    assert response.status == 201
    assert set(body["factor"]) == {"id", "kind", "name", "created_at", "last_used_at"}
    factor_id = body["factor"]["id"]

    response, body = world.http("POST", "/token", form(token), headers=FORM)
    assert response.status == 403
    step_up = StepUp.from_json(body)
    begin = {"purpose": "prove", "auth_session": step_up.auth_session.reveal()}
    response, body = world.http("POST", "/factors/begin", begin, token=token)
    assert (response.status, body["expires_in"]) == (200, 120)
    bad = WebAuthnProof(auth_session=step_up.auth_session, assertion=key.answer(body["public_key"], flags=1))
    response, body = world.http("POST", "/token", form(token, proof=bad), headers=FORM)
    assert response.status == 403
    assert StepUp.from_json(body).auth_session == step_up.auth_session
    assert StepUp.from_json(body).retry
    _, body = world.http("POST", "/factors/begin", begin, token=token)
    good = WebAuthnProof(auth_session=step_up.auth_session, assertion=key.answer(body["public_key"]))
    response, body = world.http("POST", "/token", form(token, proof=good), headers=FORM)
    assert response.status == 200
    assert body["token_type"] == "N_A"
    assert response.headers["cache-control"] == "no-store"

    _, body = world.http("GET", "/factors", token=token)
    assert [f["id"] for f in body["factors"]] == [factor_id]
    _, body = world.http("GET", "/roles", token=token)
    assert "prod" in [r["name"] for r in body["roles"]]
    _, body = world.http("DELETE", "/factor-sessions", token=token)
    assert body == {"ended": 0}

    response, body = world.http("DELETE", f"/factors/{factor_id}", {}, token=token)
    assert response.status == 403
    begin["auth_session"] = body["auth_session"]
    _, options = world.http("POST", "/factors/begin", begin, token=token)
    proof = {"auth_session": body["auth_session"], "webauthn": key.answer(options["public_key"])}
    response, body = world.http("DELETE", f"/factors/{factor_id}", proof, token=token)
    assert (response.status, response.body) == (204, b"")


def test_an_app_over_the_wire(world: Any) -> None:
    import pyotp

    token = world.token()
    _, body = world.http(
        "POST",
        "/factors/begin",
        {"purpose": "enrol", "kind": "totp", "name": "app", "invitation": world.invite().reveal()},
        token=token,
    )
    assert set(body) == {"enrolment", "expires_in", "secret", "uri"}
    code = pyotp.TOTP(body["secret"]).at(int(world.clock()))
    response, _ = world.http(
        "POST", "/factors/complete", {"enrolment": body["enrolment"], "otp": code}, token=token
    )
    assert response.status == 201
    response, body = world.http(
        "POST", "/factors/begin", {"purpose": "enrol", "kind": "totp", "name": "two"}, token=token
    )
    assert response.status == 403
    assert body["error"] == "insufficient_authorization"


def test_the_public_documents(world: Any) -> None:
    response, discovery = world.http("GET", "/.well-known/openid-configuration")
    assert response.headers["cache-control"] == "public, max-age=300"
    assert discovery["issuer"] == "https://credx.example.com"
    assert discovery["jwks_uri"] == "https://credx.example.com/.well-known/jwks.json"
    _, keys = world.http("GET", "/.well-known/jwks.json")
    assert [set(key) for key in keys["keys"]] == [{"kty", "kid", "use", "alg", "n", "e"}]
    _, configuration = world.http("GET", "/.well-known/credx-configuration")
    assert configuration["token_endpoint"] == "https://credx.example.com/token"
    assert configuration["identity_providers"][0] == {
        "issuer": "https://idp.example.com",
        "client_id": "credx-cli",
        "scopes": ["openid", "profile"],
    }
    assert configuration["webauthn"] == {"rp_id": "credx.example.com"}
    assert configuration["regions"] == ["eu-central-1"]
    assert world.http("GET", "/healthz")[1] == {"status": "ok"}
