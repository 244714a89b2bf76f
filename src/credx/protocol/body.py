"""JSON from outside."""

from __future__ import annotations

from typing import Any

from credx.errors import Refusal
from credx.protocol.names import MAX_BODY
from credx.strict import json_object


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object, as strict as ``strict.json_object`` and at most ``MAX_BODY`` bytes.

    Raises:
        Refusal: anything else.
    """
    if len(body) > MAX_BODY:
        raise Refusal("payload_too_large", "the request is too large")
    try:
        return json_object(body)
    except ValueError as exc:
        raise Refusal("invalid_request", "the body is not a JSON object") from exc
