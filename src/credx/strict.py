"""Decoding without leniency: one spelling per value, bounded work, no surprises; and writing that spelling."""

from __future__ import annotations

import base64
import json
import math
import re
from datetime import UTC, datetime
from typing import Any, Final

MAX_DEPTH: Final = 16  # levels; ID tokens and key sets of the known providers need four
MAX_NUMBER: Final = 40  # characters of one JSON number: a 64-bit integer has 20, a double at most 25

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


def base64url(text: str) -> bytes:
    """Decode unpadded base64url (RFC 7515 2), refusing every other spelling of the same bytes.

    Raises:
        ValueError: padding, a stray character, an impossible length, or trailing bits that are not zero
            (RFC 4648 3.5).
    """
    if not _BASE64URL.fullmatch(text):
        raise ValueError("not base64url")
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if to_base64url(raw) != text:
        raise ValueError("not canonical base64url")
    return raw


def to_base64url(raw: bytes) -> str:
    """Unpadded base64url (RFC 7515 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def timestamp(seconds: float) -> str:
    """RFC 3339 with ``Z`` and whole seconds: what every AWS SDK parses (the Rust SDK takes nothing else)."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def json_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object in UTF-8 (RFC 8259 8.1).

    Raises:
        ValueError: another encoding, a byte order mark, a duplicate member, a number that is not finite or
            too long, a lone surrogate, more than ``MAX_DEPTH`` levels, or something else than an object.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_no_twins,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 -- one kind of error for every malformed text
    _walk(value, MAX_DEPTH)
    return value


def _walk(value: object, levels: int) -> None:
    if isinstance(value, str):
        value.encode(
            "utf-8"
        )  # a lone surrogate, smuggled in as an escape: UnicodeEncodeError is a ValueError
    elif isinstance(value, dict | list):
        if not levels:
            raise ValueError("nested too deeply")
        for item in value:
            _walk(item, levels - 1)
        if isinstance(value, dict):
            for item in value.values():
                _walk(item, levels - 1)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate member")
    return found


def _no_constant(_name: str) -> float:
    raise ValueError("not a number")


def _integer(digits: str) -> int:
    if len(digits) > MAX_NUMBER:
        raise ValueError("number too long")
    return int(digits)


def _finite(digits: str) -> float:
    if len(digits) > MAX_NUMBER or not math.isfinite(number := float(digits)):
        raise ValueError("number too large")
    return number
