"""What goes over the wire and how an answer is made: one writer of bodies, headers and errors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from credx.broker.telemetry import OK
from credx.protocol import ERROR_STATUS, StepUp

if TYPE_CHECKING:
    from collections.abc import Mapping

JSON: Final = "application/json"
KEYS_MAX_AGE: Final = (
    300  # seconds that others may keep the public documents; bounds how soon a new key is known
)
RETRY_AFTER: Final = 2  # seconds, with 503
SLOW_DOWN: Final = 10  # seconds, with 429: two refusals of a person (``pace.RATE``) have become room again
STEP_UP: Final = "step_up"

ALWAYS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "strict-transport-security": "max-age=31536000",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """``headers``: lower-case names. ``path``: as it was sent, nothing decoded. ``client``: address of the peer."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    client: str


@dataclass(frozen=True, kw_only=True)
class Response:
    """``outcome``, ``issuance`` and ``counts`` are for the log line alone, see ``telemetry.request_served``."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    outcome: str = OK
    issuance: str | None = None
    counts: tuple[str, ...] = ()


def respond(status: int, body: bytes, headers: Mapping[str, str] | None = None, **told: Any) -> Response:
    return Response(status=status, headers={**ALWAYS, **(headers or {})}, body=body, **told)


def json_answer(
    status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None, **told: Any
) -> Response:
    text = json.dumps(body, separators=(",", ":")).encode("ascii")
    return respond(status, text, {"content-type": JSON, **(headers or {})}, **told)


def public_document(document: Mapping[str, Any]) -> Response:
    return json_answer(200, document, {"cache-control": f"public, max-age={KEYS_MAX_AGE}"})


def step_up(answer: StepUp) -> Response:
    return json_answer(ERROR_STATUS["insufficient_authorization"], answer.to_json(), outcome=STEP_UP)


def status_of(code: str) -> int:
    return ERROR_STATUS.get(code, 500)


def error(
    code: str,
    public: str,
    headers: Mapping[str, str] | None = None,
    *,
    outcome: str | None = None,
    counts: tuple[str, ...] = (),
) -> Response:
    """An error name of ``protocol.ERROR_STATUS`` with what the caller may read."""
    status = status_of(code)
    more = dict(headers or {})
    if status in (429, 503):
        more["retry-after"] = str(SLOW_DOWN if status == 429 else RETRY_AFTER)
    body = {"error": code, "error_description": public}
    return json_answer(status, body, more, outcome=outcome or code, counts=counts)
