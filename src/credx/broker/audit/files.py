"""What leaves the store and comes back to be compared: exported records, saved heads, retired mint keys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from credx.broker.audit.chain import Named, named_heads
from credx.broker.audit.record import canonical
from credx.jose.jwk import usable_keys
from credx.strict import json_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from credx.broker.audit.verify import PublicKeys

HEADS_VERSION: Final = 1


def exported(record: Mapping[str, Any]) -> str:
    """One line of JSON: the record as it is stored, in the spelling over which its hash is made."""
    return canonical(record) + "\n"


def imported(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """The records of an export.

    Raises:
        ValueError: a line is no JSON object; which one is said.
    """
    for number, line in enumerate(lines, 1):
        try:
            yield json_object(line.encode("utf-8"))
        except ValueError as exc:
            raise ValueError(f"line {number} is no record") from exc


def heads_text(heads: Sequence[Named], now: float) -> str:
    named = [head._asdict() for head in heads]
    return json.dumps({"version": HEADS_VERSION, "at": int(now), "heads": named}, indent=1) + "\n"


def read_heads(raw: bytes) -> list[Named]:
    """What ``heads_text`` wrote.

    Raises:
        ValueError: it is not that, or a head in it is not well formed: to leave it out would be to trust less.
    """
    document = json_object(raw)
    heads = named_heads(document)
    members = document.get("heads")
    if (
        document.get("version") != HEADS_VERSION
        or not isinstance(members, list)
        or len(members) != len(heads)
    ):
        raise ValueError("no file of audit heads")
    return heads


def mint_keys(raw: bytes) -> PublicKeys:
    """The RSA keys of a JWK Set (RFC 7517 5), such as the broker's own ``jwks_uri`` serves.

    Raises:
        ValueError: it is none, or holds no usable one.
    """
    usable = {kid for kid, algorithm in usable_keys(raw) if algorithm == "RS256"}
    members = json_object(raw)["keys"]
    return {jwk["kid"]: jwk for jwk in members if isinstance(jwk, dict) and jwk.get("kid") in usable}
