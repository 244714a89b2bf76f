"""JSON from outside."""

from __future__ import annotations

import json
import math
from typing import Any

from credx.errors import Refusal
from credx.protocol.names import MAX_BODY


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object from outside: bounded, UTF-8, no duplicate member, no NaN, no huge number.

    Raises:
        Refusal: anything else.
    """
    if len(body) > MAX_BODY:
        raise Refusal("payload_too_large", "the request is too large")
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_no_twins,
            parse_constant=_no_constant,
            parse_int=_bounded_int,
            parse_float=_bounded_float,
        )
    except (ValueError, RecursionError) as exc:
        raise Refusal("invalid_request", "the body is not a JSON object") from exc
    if not isinstance(value, dict):
        raise Refusal("invalid_request", "the body is not a JSON object")
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate member")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _bounded_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("number too long")
    return int(digits)


def _bounded_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("number too large")
    return number
