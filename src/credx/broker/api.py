"""The routes, whatever carries them (here WSGI): a ``Request`` in, a ``Response`` out, never an exception.

Default deny: what is not in ``ROUTES`` does not exist. Every route but the public ones takes the ID token as a
bearer token (RFC 6750 2.1), ``/token`` as RFC 8693 puts it. Nothing here decides anything.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credx.broker import documents
from credx.broker.auth_session import CHALLENGE_LIFE
from credx.errors import Refusal
from credx.model import Secret
from credx.protocol import (
    CONFIGURATION_PATH,
    DISCOVERY_PATH,
    ERROR_STATUS,
    FACTOR_SESSIONS_PATH,
    FACTORS_BEGIN_PATH,
    FACTORS_COMPLETE_PATH,
    FACTORS_PATH,
    HANDLE,
    HEALTH_PATH,
    JWKS_PATH,
    OTP,
    ROLES_PATH,
    TOKEN_PATH,
    StepUp,
    TokenRequest,
    parse_json,
    proof_from_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from credx.broker.service import Broker
    from credx.protocol import Proof

LOGGER = logging.getLogger("credx.broker")

KEYS_MAX_AGE: Final = (
    300  # seconds that others may keep the public documents; bounds how soon a new key is known
)
RETRY_AFTER: Final = 2  # seconds, with 503
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"

_BEARER = re.compile(r"[Bb]earer ([A-Za-z0-9._~+/-]+=*)")  # RFC 6750 2.1
_ALWAYS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "strict-transport-security": "max-age=31536000",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """``headers``: lower-case names. ``path``: decoded, without query. ``client``: address of the peer."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    client: str


@dataclass(frozen=True, kw_only=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Route(NamedTuple):
    """``read`` takes a request apart and gives the call to make: what it refuses was never verified."""

    method: str
    path: re.Pattern[str]
    read: Callable[[Api, Request, re.Match[str]], Callable[[], Response]]
    public: bool = False


class Api:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def handle(self, request: Request) -> Response:
        """Answer a request."""
        try:
            return self._answer(request)
        except Refusal as refusal:
            return self._refused(refusal)
        except Exception as exc:  # noqa: BLE001 -- whatever it was, it says nothing to the outside
            # by its class alone: a message or a traceback can hold a secret
            LOGGER.error("unexpected %s at %s", type(exc).__name__, _where(exc))  # noqa: TRY400
            return self._refused(Refusal("server_error", "the broker failed: see its log"))

    def _answer(self, request: Request) -> Response:
        here = [(route, m) for route in ROUTES if (m := route.path.fullmatch(request.path))]
        if not here:
            return self._no_route(request, Refusal("not_found", "there is nothing here"))
        for route, match in here:
            if route.method == request.method:
                try:
                    call = route.read(self, request, match)
                except Refusal as refusal:
                    self._broker.audit.security_log(
                        "request_refused", error=refusal.code, path=request.path, client=request.client
                    )
                    raise
                return call()
        allow = ", ".join(sorted(route.method for route, _ in here))
        return self._no_route(
            request, Refusal("method_not_allowed", "not with this method"), {"allow": allow}
        )

    def _no_route(
        self, request: Request, refusal: Refusal, headers: Mapping[str, str] | None = None
    ) -> Response:
        # an event of its own: whoever tries addresses must not use up the lines of other refusals
        self._broker.audit.security_log(
            # a query is what a misled client puts tokens and codes into: it is no route, and no text for a log
            "no_route",
            error=refusal.code,
            path=request.path.partition("?")[0],
            client=request.client,
        )
        return self._refused(refusal, headers)

    def _refused(self, refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
        status = ERROR_STATUS.get(refusal.code, 500)
        more = dict(headers or {})
        if status == 401:
            more["www-authenticate"] = self._challenge(refusal)
        if status == 503:
            more["retry-after"] = str(RETRY_AFTER)
        return _json(status, {"error": refusal.code, "error_description": refusal.public}, more)

    def _challenge(self, refusal: Refusal) -> str:
        """RFC 6750 3: no error code for a request without a token. RFC 9470 3: how fresh a sign-in must be."""
        if refusal.code == "insufficient_user_authentication":
            return f'Bearer error="{refusal.code}", max_age="{self._broker.policy().broker.max_token_age}"'
        return "Bearer" if isinstance(refusal, _NoTokenError) else f'Bearer error="{refusal.code}"'

    def _token(self, request: Request, _: re.Match[str]) -> Callable[[], Response]:
        _must_be(request, FORM)
        exchange = TokenRequest.from_form(request.body)

        def call() -> Response:
            answer = self._broker.token(exchange, request.client)
            return _step_up(answer) if isinstance(answer, StepUp) else _json(200, answer.to_json())

        return call

    def _roles(self, request: Request, _: re.Match[str]) -> Callable[[], Response]:
        token = _bearer(request)
        return lambda: _json(200, {"roles": self._broker.roles(token, request.client)})

    def _factors(self, request: Request, _: re.Match[str]) -> Callable[[], Response]:
        token = _bearer(request)
        return lambda: _json(200, {"factors": self._broker.own_factors.listing(token, request.client)})

    def _begin(self, request: Request, _: re.Match[str]) -> Callable[[], Response]:
        token, client = _bearer(request), request.client
        match _body(request):
            case {"purpose": "prove", "auth_session": str(session), **rest} if not rest:
                handle = _handle(session)
                return lambda: _json(
                    200,
                    {
                        "public_key": self._broker.begin_proof(token, handle, client),
                        "expires_in": CHALLENGE_LIFE,
                    },
                )
            case {"purpose": "enrol", "kind": str(kind), "name": str(name), **rest}:
                invited = rest.pop("invitation", None)
                if invited is not None and not isinstance(invited, str):
                    raise _unreadable()
                invitation, proof = None if invited is None else _handle(invited), _proof(rest)

                def call() -> Response:
                    begun = self._broker.enrolment.begin(
                        token, client, kind=kind, name=name, invited=invitation, proof=proof
                    )
                    return _step_up(begun) if isinstance(begun, StepUp) else _json(200, begun)

                return call
        raise _unreadable()

    def _complete(self, request: Request, _: re.Match[str]) -> Callable[[], Response]:
        token, client, enrolment = _bearer(request), request.client, self._broker.enrolment
        match _body(request):
            case {"enrolment": str(handle), "webauthn": dict(registration), **rest} if not rest:
                pending = _handle(handle)
                return lambda: _json(
                    201,
                    {"factor": enrolment.complete(token, client, pending, registration=registration)},
                )
            case {"enrolment": str(handle), "otp": str(code), **rest} if not rest and OTP.fullmatch(code):
                pending, otp = _handle(handle), Secret(code)
                return lambda: _json(201, {"factor": enrolment.complete(token, client, pending, otp=otp)})
        raise _unreadable()

    def _remove(self, request: Request, match: re.Match[str]) -> Callable[[], Response]:
        token, factor_id = _bearer(request), match["id"]
        proof = _proof(_body(request) if request.body else {})

        def call() -> Response:
            answer = self._broker.own_factors.remove(token, request.client, factor_id, proof=proof)
            return _respond(204, b"") if answer is None else _step_up(answer)

        return call

    def _end_sessions(self, request: Request, _: re.Match[str]) -> Callable[[], Response]:
        token = _bearer(request)
        return lambda: _json(
            200, {"ended": self._broker.own_factors.end_factor_sessions(token, request.client)}
        )

    def _discovery(self, _: Request, __: re.Match[str]) -> Callable[[], Response]:
        return lambda: _public(documents.discovery(self._broker.policy()))

    def _keys(self, _: Request, __: re.Match[str]) -> Callable[[], Response]:
        return lambda: _public(documents.keys(self._broker.signer))

    def _configuration(self, _: Request, __: re.Match[str]) -> Callable[[], Response]:
        return lambda: _public(documents.configuration(self._broker.policy()))

    def _health(self, _: Request, __: re.Match[str]) -> Callable[[], Response]:
        return lambda: _json(200, {"status": "ok"})


def _at(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path))


ROUTES: Final = (
    Route("POST", _at(TOKEN_PATH), Api._token),  # noqa: SLF001 -- its own class
    Route("GET", _at(ROLES_PATH), Api._roles),  # noqa: SLF001
    Route("GET", _at(FACTORS_PATH), Api._factors),  # noqa: SLF001
    Route("POST", _at(FACTORS_BEGIN_PATH), Api._begin),  # noqa: SLF001
    Route("POST", _at(FACTORS_COMPLETE_PATH), Api._complete),  # noqa: SLF001
    Route("DELETE", re.compile(re.escape(FACTORS_PATH) + "/(?P<id>[0-9a-f]{16})"), Api._remove),  # noqa: SLF001
    Route("DELETE", _at(FACTOR_SESSIONS_PATH), Api._end_sessions),  # noqa: SLF001
    Route("GET", _at(DISCOVERY_PATH), Api._discovery, public=True),  # noqa: SLF001
    Route("GET", _at(JWKS_PATH), Api._keys, public=True),  # noqa: SLF001
    Route("GET", _at(CONFIGURATION_PATH), Api._configuration, public=True),  # noqa: SLF001
    Route("GET", _at(HEALTH_PATH), Api._health, public=True),  # noqa: SLF001
)


class _NoTokenError(Refusal):
    """No ID token at all: RFC 6750 3.1 wants no error code then."""


def _bearer(request: Request) -> Secret:
    header = request.headers.get("authorization")
    if header is None:
        raise _NoTokenError("invalid_token", "an ID token is needed")
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


def _step_up(answer: StepUp) -> Response:
    return _json(ERROR_STATUS["insufficient_authorization"], answer.to_json())


def _public(document: Mapping[str, Any]) -> Response:
    return _json(200, document, {"cache-control": f"public, max-age={KEYS_MAX_AGE}"})


def _json(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(body, separators=(",", ":")).encode("ascii")
    return _respond(status, text, {"content-type": JSON, **(headers or {})})


def _respond(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status=status, headers={**_ALWAYS, **(headers or {})}, body=body)


def _where(exc: BaseException) -> str:
    """File and line that raised, without any value."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
