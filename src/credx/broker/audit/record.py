"""The shape of one audit record: which fields, how long, and what its hash covers. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from credx.protocol import MAX_RESOURCES

if TYPE_CHECKING:
    from collections.abc import Mapping

STARTED: Final = "started"  # the first record of a chain; ``Audit`` alone writes it
EVENTS: Final = frozenset({
    "granted", "issued", "failed", "refused",  # one issuance, design steps 5 and 8
    "enrolled", "removed", "invited", "logged_out",
    "unlocked", "disabled", "enabled", "factors_reset", "invitation_revoked",  # by an administrator
})  # fmt: skip

NAMES: Final = frozenset({
    "issuance", "user", "user_key", "issuer", "subject", "role", "operation", "factor_kind", "factor_id",
    "policy_version", "token_hash", "jti", "access_key_id", "administrator",
})  # fmt: skip
TEXTS: Final = frozenset({"reason", "client", "detail", "error"})
LISTS: Final = frozenset({"resources", "scopes"})
NUMBERS: Final = frozenset({"duration"})

GENESIS: Final = "0" * 64  # ``prev`` of a writer's first record
MAX_NAME: Final = 2048  # characters; an ARN's bound. A longer name is refused: cut, it would name another
MAX_TEXT: Final = 1000  # characters; a longer text is cut, so that a long AWS error still has its record

_NOT_HASHED: Final = frozenset({"hash", "signature", "mint_signature"})


def checked(record: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's part of a record; fields that are None are left out.

    Raises:
        ValueError: an unknown event or field, or a name or list too long.
        TypeError: a value of another type, such as a Secret.
    """
    if record.get("event") not in EVENTS:
        raise ValueError("an audit record needs a known event")
    return {name: _value(name, value) for name, value in record.items() if value is not None}


def _value(name: str, value: object) -> object:
    if name in NUMBERS:
        if type(value) is not int:
            raise TypeError(f"audit field {name} is no integer")
        return value
    if name in LISTS:
        if not isinstance(value, list | tuple) or len(value) > MAX_RESOURCES:
            raise ValueError(f"audit field {name} is no list of at most {MAX_RESOURCES}")
        return [_text(name, part) for part in value]
    if name == "event" or name in NAMES or name in TEXTS:
        return _text(name, value)
    raise ValueError(f"unknown audit field {name}")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"audit field {name} is no text")
    if name in TEXTS:
        return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…"
    if len(value) > MAX_NAME:
        raise ValueError(f"audit field {name} is too long")
    return value


def link(fields: Mapping[str, Any], *, at: int, writer: str, seq: int, prev: str) -> dict[str, Any]:
    """A record in its place, with its hash and not signed yet.

    ``at`` in seconds since 1970, ``prev`` the hash of the writer's record before.
    """
    record = {**fields, "at": at, "writer": writer, "seq": seq, "prev": prev}
    return {**record, "hash": digest(record)}


def digest(record: Mapping[str, Any]) -> str:
    """Hex SHA-256 over ``canonical`` of everything but the hash and the signatures over it."""
    rest = {name: value for name, value in record.items() if name not in _NOT_HASHED}
    return hashlib.sha256(canonical(rest).encode("ascii")).hexdigest()


def canonical(record: Mapping[str, Any]) -> str:
    r"""JSON in one spelling: members sorted by code point, no white space, all but ASCII as ``\uXXXX``.

    Records hold no fractions, so any JSON library can write it.

    Raises:
        ValueError: a number that JSON does not have.
    """
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def signed_part(digest_of_record: str) -> bytes:
    """What the writer's key signs: through ``prev`` the hash speaks for all before it. It has spaces, so it
    cannot be the signing input of a JWT (RFC 7515 5.1), nor ``mint_signed_part``.
    """
    return f"credx audit record v2 {digest_of_record}".encode("ascii", "replace")


def mint_signed_part(digest_of_record: str) -> bytes:
    """What the mint key signs, of a chain's first record: that this broker made the writer's key."""
    return f"credx audit writer v2 {digest_of_record}".encode("ascii", "replace")
