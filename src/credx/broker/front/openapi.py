"""The OpenAPI 3.1 document: what each route takes and every answer it can give. Served, and kept true by tests.

Built out of the constants that the code itself checks with; ``ROUTES`` and this table name the same routes.
"""

from __future__ import annotations

import functools
from typing import Any, Final, NamedTuple

import credx
from credx.broker.front.answers import ALWAYS, KEYS_MAX_AGE
from credx.broker.front.openapi_schemas import Schema, matching, ref, schemas
from credx.protocol import (
    CONFIGURATION_PATH,
    DISCOVERY_PATH,
    FACTOR_ID,
    FACTOR_SESSIONS_PATH,
    FACTORS_BEGIN_PATH,
    FACTORS_COMPLETE_PATH,
    FACTORS_PATH,
    HEALTH_PATH,
    JWKS_PATH,
    OPENAPI_PATH,
    READY_PATH,
    ROLES_PATH,
    TOKEN_PATH,
)

VERSION: Final = "3.1.0"

_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"
# what the front door can say to anything, before there is a route
_ANYWHERE: Final = (400, 408, 413, 429, 431, 500, 503)
_PERSONAL: Final = (401, 403)


class Operation(NamedTuple):
    """``answers``: status to the name of a schema, None for an empty one; errors beside ``_ANYWHERE``'s."""

    name: str
    summary: str
    answers: dict[int, str | None]
    errors: tuple[int, ...] = ()
    body: str | None = None
    media: str = _JSON
    must: bool = True
    public: bool = False
    bearer: bool = True


def _public(name: str, summary: str, schema: str, **more: Any) -> Operation:
    return Operation(name, summary, {200: schema}, public=True, bearer=False, **more)


OPERATIONS: Final[dict[tuple[str, str], Operation]] = {
    ("POST", TOKEN_PATH): Operation(
        "issue", "An ID token and a second factor for a web-identity token or AWS credentials (RFC 8693)",
        {200: "Issued", 403: "StepUp"}, (401, 403), "TokenRequest", _FORM, bearer=False,
    ),
    ("GET", ROLES_PATH): Operation("roles", "What this person may ask for", {200: "Roles"}, _PERSONAL),
    ("GET", FACTORS_PATH): Operation("factors", "The person's own factors", {200: "Factors"}, _PERSONAL),
    ("POST", FACTORS_BEGIN_PATH): Operation(
        "begin", "A challenge for a proof, or the beginning of an enrolment",
        {200: "Begun", 403: "StepUp"}, _PERSONAL, "BeginRequest",
    ),
    ("POST", FACTORS_COMPLETE_PATH): Operation(
        "complete", "The end of an enrolment", {201: "Completed"}, _PERSONAL, "CompleteRequest",
    ),
    ("DELETE", FACTORS_PATH + "/{id}"): Operation(
        "remove", "Remove a factor", {204: None, 403: "StepUp"}, (*_PERSONAL, 404), "Proof", must=False,
    ),
    ("DELETE", FACTOR_SESSIONS_PATH): Operation(
        "logout", "No earlier proof serves any more", {200: "Ended"}, _PERSONAL
    ),
    ("GET", DISCOVERY_PATH): _public("discovery", "What AWS STS reads", "Discovery"),
    ("GET", JWKS_PATH): _public("keys", "The keys that tokens are signed with", "Keys"),
    ("GET", CONFIGURATION_PATH): _public("configuration", "What `credx init` reads", "Configuration"),
    ("GET", OPENAPI_PATH): _public("openapi", "This document", "OpenApi"),
    ("GET", HEALTH_PATH): _public("health", "The process lives; nothing is touched", "Health"),
    ("GET", READY_PATH): Operation(
        "ready", "The broker can do its work", {200: "Ready", 503: "Ready"}, public=True, bearer=False
    ),
}  # fmt: skip


@functools.cache
def document() -> dict[str, Any]:
    """The document. Not to be changed by the caller."""
    paths: dict[str, Any] = {}
    for (method, template), operation in OPERATIONS.items():
        paths.setdefault(template, {})[method.lower()] = _operation(operation, template)
    return {
        "openapi": VERSION,
        "info": {
            "title": "credx broker",
            "version": credx.__version__,
            "description": "An ID token and a second factor in, short-lived AWS credentials out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "idToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "an ID token of a configured identity provider (RFC 6750 2.1)",
                }
            },
        },
    }


def _operation(operation: Operation, template: str) -> Schema:
    made: Schema = {
        "operationId": operation.name,
        "summary": operation.summary,
        "security": [{"idToken": []}] if operation.bearer else [],
        "responses": _responses(operation),
    }
    if "{id}" in template:
        made["parameters"] = [
            {"name": "id", "in": "path", "required": True, "schema": matching(FACTOR_ID)},
        ]
    if operation.body is not None:
        made["requestBody"] = {
            "required": operation.must,
            "content": {operation.media: {"schema": ref(operation.body)}},
        }
    return made


def _responses(operation: Operation) -> Schema:
    found: dict[int, list[Schema]] = {}
    for status, name in operation.answers.items():
        found.setdefault(status, []).extend([] if name is None else [ref(name)])
    for status in (*_ANYWHERE, *operation.errors):
        found.setdefault(status, []).append(ref(f"Error{status}"))
    return {
        str(status): _response(status, bodies, cached=operation.public and status == 200)
        for status, bodies in sorted(found.items())
    }


def _response(status: int, bodies: list[Schema], *, cached: bool) -> Schema:
    headers = {name: _header({"const": value}) for name, value in ALWAYS.items()}
    if cached:  # the health of a process is not
        either = [ALWAYS["cache-control"], f"public, max-age={KEYS_MAX_AGE}"]
        headers["cache-control"] = _header({"enum": either})
    if status == 401:
        headers["www-authenticate"] = _header({"type": "string", "pattern": "^Bearer"})
    if status == 429:
        headers["retry-after"] = _header({"type": "string", "pattern": "^[0-9]+$"})
    made: Schema = {"description": _MEANING[status], "headers": headers}
    if bodies:
        schema = bodies[0] if len(bodies) == 1 else {"oneOf": bodies}
        made["content"] = {_JSON: {"schema": schema}}
    return made


def _header(schema: Schema) -> Schema:
    return {"required": True, "schema": schema}


_MEANING: Final = {
    200: "Done",
    201: "Enrolled",
    204: "Removed",
    400: "The request is not what this route takes",
    401: "No ID token, one that is not accepted, or a sign-in that is too old (RFC 6750 3, RFC 9470 3)",
    403: "A second factor is needed first, or the policy or AWS says no",
    404: "There is no such thing of this person",
    408: "The request took too long to arrive",
    413: "The request is too large",
    429: "Too many requests of this person or from this address were refused",
    431: "The headers are too large or too many",
    500: "The broker failed; its log says where",
    503: "Not now: try again",
}
