"""The served document: every route, nothing else, and what the broker really answers is what it says."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from credx.broker.front.openapi import OPERATIONS, document
from credx.broker.front.routes import ROUTES
from credx.protocol import ERROR_STATUS, Ask, TokenRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

FORM = {"content-type": "application/x-www-form-urlencoded"}


def checked(method: str, template: str, response: Any) -> Any:
    """An answer against what the document says of it; its body."""
    said = document()["paths"][template][method.lower()]["responses"][str(response.status)]
    for name, header in said["headers"].items():
        jsonschema_rs.validator_for(header["schema"]).validate(response.headers[name])
    if "content" not in said:
        assert response.body == b""
        return None
    body = json.loads(response.body)
    schema = said["content"][response.headers["content-type"]]["schema"]
    whole = {**schema, "components": document()["components"]}
    jsonschema_rs.validator_for(whole).validate(body)
    return body


def walk(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for part in schema.values():
            yield from walk(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from walk(part)


def test_it_is_served_to_everybody(world: Any) -> None:
    response, body = world.http("GET", "/openapi.json")
    assert body == document()
    assert body["openapi"].startswith("3.1")
    assert response.headers["cache-control"].startswith("public")


def test_every_route_is_in_it_and_no_other() -> None:
    routes = {(route.method, route.template) for route in ROUTES}
    assert set(OPERATIONS) == routes
    written = {(method.upper(), path) for path, methods in document()["paths"].items() for method in methods}
    assert written == routes


def test_what_a_route_asks_for_is_what_the_code_asks_for() -> None:
    for route in ROUTES:
        operation = document()["paths"][route.template][route.method.lower()]
        bearer = operation["security"] == [{"idToken": []}]
        assert bearer is (not route.public and route.template != "/token")


def test_every_error_name_is_in_it_under_its_status() -> None:
    named = {
        (name, int(schema[5:]))
        for schema, made in document()["components"]["schemas"].items()
        if schema.startswith("Error")
        for name in made["properties"]["error"]["enum"]
    }
    assert named == set(ERROR_STATUS.items())


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    schemas = document()["components"]["schemas"]
    used = {part["$ref"].rpartition("/")[2] for part in walk(document()) if "$ref" in part}
    unused = set(schemas) - used
    assert used <= set(schemas)
    assert unused == {"Error405"}  # the answer to a method that is in no operation


def test_objects_have_no_other_members() -> None:
    open_ones = [
        part
        for part in walk(document()["components"]["schemas"])
        if part.get("type") == "object" and part.get("additionalProperties") is not False
    ]
    # WebAuthn's own object and its response, which later levels add to; and the document itself
    assert len(open_ones) == 3


def test_patterns_are_whole_and_compile() -> None:
    for part in walk(document()):
        if isinstance(part.get("pattern"), str):
            assert part["pattern"].startswith("^")
            re.compile(part["pattern"])
            assert jsonschema_rs.validator_for({"pattern": part["pattern"]})


def test_there_is_no_example_with_a_secret() -> None:
    text = json.dumps(document())
    assert "eyJ" not in text
    assert "ASIA" not in text


@pytest.mark.parametrize("path", [route.template for route in ROUTES if route.public])
def test_the_public_answers(world: Any, path: str) -> None:
    checked("GET", path, world.http("GET", path)[0])


def test_an_unready_broker(world: Any) -> None:
    world.store.get = lambda *_, **__: 1 / 0
    response, body = world.http("GET", "/readyz")
    assert response.status == 503
    checked("GET", "/readyz", response)
    assert body["checks"]["store"] == "failed"


def test_errors(world: Any) -> None:
    checked("GET", "/roles", world.http("GET", "/roles")[0])
    checked("GET", "/roles", world.http("GET", "/roles", token=world.token(iat=1_799_990_000))[0])
    checked("POST", "/token", world.http("POST", "/token", b"x")[0])
    checked("POST", "/token", world.http("POST", "/token", b"a" * 70_000, headers=FORM)[0])
    gone, _ = world.http("DELETE", "/factors/0123456789abcdef", token=world.token())
    assert checked("DELETE", "/factors/{id}", gone)["error"] == "not_found"
    form = TokenRequest(subject_token=world.token(), ask=Ask(role="nothing")).to_form()
    checked("POST", "/token", world.http("POST", "/token", form, headers=FORM)[0])


def test_a_whole_story(world: Any, new_key: Any) -> None:
    token, key = world.token(), new_key()

    def begin(**body: Any) -> Any:
        return checked("POST", "/factors/begin", world.http("POST", "/factors/begin", body, token=token)[0])

    def complete(**body: Any) -> Any:
        return checked(
            "POST", "/factors/complete", world.http("POST", "/factors/complete", body, token=token)[0]
        )

    def ask(role: str, proof: Any = None) -> Any:
        form = TokenRequest(subject_token=token, ask=Ask(role=role), proof=proof).to_form()
        return checked("POST", "/token", world.http("POST", "/token", form, headers=FORM)[0])

    begun = begin(purpose="enrol", kind="webauthn", name="key", invitation=world.invite().reveal())
    factor = complete(enrolment=begun["enrolment"], webauthn=key.register(begun["public_key"]))["factor"]
    begin(purpose="enrol", kind="webauthn", name="two", invitation=world.invite().reveal())
    begin(purpose="enrol", kind="totp", name="app", invitation=world.invite().reveal())
    checked("GET", "/factors", world.http("GET", "/factors", token=token)[0])
    checked("GET", "/roles", world.http("GET", "/roles", token=token)[0])
    for role in ("dev", "brokered"):
        step_up = world.step_up(token, role)
        assert ask(role)["error"] == "insufficient_authorization"
        begin(purpose="prove", auth_session=step_up.auth_session.reveal())
        assert ask(role, world.touch(token, key, step_up))["token_type"] == "N_A"
    step_up = world.step_up(token, "dev")
    assert ask("dev", world.touch(token, key, step_up, flags=1))["retry"] is True
    ended = world.http("DELETE", "/factor-sessions", token=token)[0]
    assert checked("DELETE", "/factor-sessions", ended) == {"ended": 1}
    where = f"/factors/{factor['id']}"
    response, body = world.http("DELETE", where, token=token)
    checked("DELETE", "/factors/{id}", response)
    options = begin(purpose="prove", auth_session=body["auth_session"])["public_key"]
    proof = {"auth_session": body["auth_session"], "webauthn": key.answer(options)}
    response, _ = world.http("DELETE", where, proof, token=token)
    assert response.status == 204
    checked("DELETE", "/factors/{id}", response)
