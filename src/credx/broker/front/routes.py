"""The routes: what each takes, and which call of the broker answers it. Default deny: there are no others.

Reading comes first and apart: what ``read`` refuses was never verified. Every route but the public ones takes
the ID token as a bearer token (RFC 6750 2.1), ``/token`` as RFC 8693 puts it. Nothing here decides anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credx.broker.auth_session import CHALLENGE_LIFE
from credx.broker.front import documents
from credx.broker.front.answers import JSON, json_answer, public_document, respond, step_up
from credx.broker.front.openapi import document
from credx.broker.telemetry import ISSUED
from credx.errors import Refusal
from credx.model import Secret
from credx.protocol import (
    CONFIGURATION_PATH,
    DISCOVERY_PATH,
    FACTOR_ID,
    FACTOR_SESSIONS_PATH,
    FACTORS_BEGIN_PATH,
    FACTORS_COMPLETE_PATH,
    FACTORS_PATH,
    HANDLE,
    HEALTH_PATH,
    JWKS_PATH,
    OPENAPI_PATH,
    OTP,
    READY_PATH,
    ROLES_PATH,
    TOKEN_PATH,
    StepUp,
    TokenRequest,
    parse_json,
    proof_from_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from credx.broker.front.answers import Request, Response
    from credx.broker.front.readiness import Readiness
    from credx.broker.service import Broker
    from credx.protocol import Proof

FORM: Final = "application/x-www-form-urlencoded"

_BEARER = re.compile(r"[Bb]earer ([A-Za-z0-9._~+/-]+=*)")  # RFC 6750 2.1


class Behind(NamedTuple):
    """What the routes speak to."""

    broker: Broker
    readiness: Readiness


class NoTokenError(Refusal):
    """No ID token at all: RFC 6750 3.1 wants no error code then."""


class Route(NamedTuple):
    """``read`` takes a request apart and gives the call to make. ``template``: as OpenAPI writes a path."""

    method: str
    template: str
    read: Callable[[Behind, Request, re.Match[str]], Callable[[], Response]]
    path: re.Pattern[str]
    public: bool = False


def _token(behind: Behind, request: Request, _: re.Match[str]) -> Callable[[], Response]:
    _must_be(request, FORM)
    exchange = TokenRequest.from_form(request.body)

    def call() -> Response:
        answer = behind.broker.token(exchange, request.client)
        if isinstance(answer, StepUp):
            return step_up(answer)
        return json_answer(200, answer.to_json(), issuance=answer.issuance_id, counts=(ISSUED,))

    return call


def _roles(behind: Behind, request: Request, _: re.Match[str]) -> Callable[[], Response]:
    token = _bearer(request)
    return lambda: json_answer(200, {"roles": behind.broker.roles(token, request.client)})


def _factors(behind: Behind, request: Request, _: re.Match[str]) -> Callable[[], Response]:
    token = _bearer(request)
    return lambda: json_answer(200, {"factors": behind.broker.own_factors.listing(token, request.client)})


def _begin(behind: Behind, request: Request, _: re.Match[str]) -> Callable[[], Response]:
    token, client = _bearer(request), request.client
    match _body(request):
        case {"purpose": "prove", "auth_session": str(session), **rest} if not rest:
            handle = _handle(session)
            return lambda: json_answer(
                200,
                {
                    "public_key": behind.broker.begin_proof(token, handle, client),
                    "expires_in": CHALLENGE_LIFE,
                },
            )
        case {"purpose": "enrol", "kind": str(kind), "name": str(name), **rest}:
            invited = rest.pop("invitation", None)
            if invited is not None and not isinstance(invited, str):
                raise _unreadable()
            invitation, proof = None if invited is None else _handle(invited), _proof(rest)

            def call() -> Response:
                begun = behind.broker.enrolment.begin(
                    token, client, kind=kind, name=name, invited=invitation, proof=proof
                )
                return step_up(begun) if isinstance(begun, StepUp) else json_answer(200, begun)

            return call
    raise _unreadable()


def _complete(behind: Behind, request: Request, _: re.Match[str]) -> Callable[[], Response]:
    token, client, enrolment = _bearer(request), request.client, behind.broker.enrolment
    match _body(request):
        case {"enrolment": str(handle), "webauthn": dict(registration), **rest} if not rest:
            pending = _handle(handle)
            return lambda: json_answer(
                201,
                {"factor": enrolment.complete(token, client, pending, registration=registration)},
            )
        case {"enrolment": str(handle), "otp": str(code), **rest} if not rest and OTP.fullmatch(code):
            pending, otp = _handle(handle), Secret(code)
            return lambda: json_answer(201, {"factor": enrolment.complete(token, client, pending, otp=otp)})
    raise _unreadable()


def _remove(behind: Behind, request: Request, match: re.Match[str]) -> Callable[[], Response]:
    token, factor_id = _bearer(request), match["id"]
    proof = _proof(_body(request) if request.body else {})

    def call() -> Response:
        answer = behind.broker.own_factors.remove(token, request.client, factor_id, proof=proof)
        return respond(204, b"") if answer is None else step_up(answer)

    return call


def _end_sessions(behind: Behind, request: Request, _: re.Match[str]) -> Callable[[], Response]:
    token = _bearer(request)
    return lambda: json_answer(
        200, {"ended": behind.broker.own_factors.end_factor_sessions(token, request.client)}
    )


def _discovery(behind: Behind, _: Request, __: re.Match[str]) -> Callable[[], Response]:
    return lambda: public_document(documents.discovery(behind.broker.policy()))


def _keys(behind: Behind, _: Request, __: re.Match[str]) -> Callable[[], Response]:
    return lambda: public_document(documents.keys(behind.broker.signer))


def _configuration(behind: Behind, _: Request, __: re.Match[str]) -> Callable[[], Response]:
    return lambda: public_document(documents.configuration(behind.broker.policy()))


def _openapi(_: Behind, __: Request, ___: re.Match[str]) -> Callable[[], Response]:
    return lambda: public_document(document())


def _health(_: Behind, __: Request, ___: re.Match[str]) -> Callable[[], Response]:
    return lambda: json_answer(200, {"status": "ok"})


def _ready(behind: Behind, _: Request, __: re.Match[str]) -> Callable[[], Response]:
    def call() -> Response:
        checks = behind.readiness()
        if "failed" in checks.values():
            return json_answer(503, {"status": "unready", "checks": checks}, outcome="unready")
        return json_answer(200, {"status": "ready", "checks": checks})

    return call


def _route(method: str, template: str, read: Any, *, public: bool = False) -> Route:
    pattern = re.escape(template).replace(re.escape("{id}"), f"(?P<id>{FACTOR_ID.pattern})")
    return Route(method, template, read, re.compile(pattern), public)


ROUTES: Final = (
    _route("POST", TOKEN_PATH, _token),
    _route("GET", ROLES_PATH, _roles),
    _route("GET", FACTORS_PATH, _factors),
    _route("POST", FACTORS_BEGIN_PATH, _begin),
    _route("POST", FACTORS_COMPLETE_PATH, _complete),
    _route("DELETE", FACTORS_PATH + "/{id}", _remove),
    _route("DELETE", FACTOR_SESSIONS_PATH, _end_sessions),
    _route("GET", DISCOVERY_PATH, _discovery, public=True),
    _route("GET", JWKS_PATH, _keys, public=True),
    _route("GET", CONFIGURATION_PATH, _configuration, public=True),
    _route("GET", OPENAPI_PATH, _openapi, public=True),
    _route("GET", HEALTH_PATH, _health, public=True),
    _route("GET", READY_PATH, _ready, public=True),
)


def _bearer(request: Request) -> Secret:
    header = request.headers.get("authorization")
    if header is None:
        raise NoTokenError("invalid_token", "an ID token is needed")
    match = _BEARER.fullmatch(header)
    if match is None:
        raise Refusal("invalid_token", "the Authorization header holds no bearer token")
    return Secret(match[1])


def _must_be(request: Request, media_type: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != media_type:
        raise Refusal("invalid_request", f"the body must be {media_type}")


def _body(request: Request) -> dict[str, Any]:
    _must_be(request, JSON)
    return parse_json(request.body)


def _proof(fields: Mapping[str, Any]) -> Proof | None:
    return proof_from_json(fields) if fields else None


def _handle(text: str) -> Secret:
    if not HANDLE.fullmatch(text):
        raise Refusal("invalid_request", "a handle is not well formed")
    return Secret(text)


def _unreadable() -> Refusal:
    return Refusal("invalid_request", "the body does not hold what this route takes")
