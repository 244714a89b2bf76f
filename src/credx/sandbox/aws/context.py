"""What a condition may ask about one request.

Three answers exist for a key: a value, "absent in this request" (IAM has rules for that), and "this sandbox
does not know the key", which no rule may guess at.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = str | tuple[str, ...]  # a tuple is a multivalued key, even with one member


class Unknown(enum.Enum):
    """Neither true nor false: an Allow must not count on it, a Deny must not be skipped because of it."""

    UNKNOWN = "unknown"

    def __bool__(self) -> bool:
        raise TypeError("unknown is neither true nor false")


UNKNOWN: Final = Unknown.UNKNOWN
Truth = bool | Unknown


def all_of(parts: list[Truth]) -> Truth:
    """Kleene's and: one False settles it, else one unknown makes it unknown."""
    if any(part is False for part in parts):
        return False
    return UNKNOWN if any(part is UNKNOWN for part in parts) else True


def any_of(parts: list[Truth]) -> Truth:
    """Kleene's or."""
    if any(part is True for part in parts):
        return True
    return UNKNOWN if any(part is UNKNOWN for part in parts) else False


def negate(part: Truth) -> Truth:
    return UNKNOWN if isinstance(part, Unknown) else not part


@dataclass(frozen=True)
class Context:
    """Condition keys of one request.

    Attributes:
        values: present keys; names are compared without case (IAM reference, condition keys).
        known: names that may be asked for although absent; an entry ending in ``/`` stands for a family
            such as ``aws:PrincipalTag/``.
    """

    values: Mapping[str, Value]
    known: frozenset[str] = frozenset()
    _values: Mapping[str, Value] = field(init=False, repr=False, compare=False)
    _known: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_values", {k.lower(): v for k, v in self.values.items()})
        object.__setattr__(self, "_known", frozenset(k.lower() for k in self.known))

    def lookup(self, key: str) -> Value | Unknown | None:
        """The value, None when absent, ``UNKNOWN`` when this sandbox does not know the key."""
        name = key.lower()
        value = self._values.get(name)
        if value is not None:
            return value if value != () else None
        family, slash, tag = name.partition("/")
        if name in self._known or (slash and tag and family + "/" in self._known):
            return None
        return UNKNOWN

    def plus(self, values: Mapping[str, Value], known: frozenset[str] = frozenset()) -> Context:
        return Context({**self.values, **values}, self.known | known)


_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_DEFAULTED = re.compile(r"([^,]+?)\s*,\s*'([^']*)'")
_LITERALS: Final = ("*", "?", "$")  # ${*}, ${?}, ${$} stand for the characters themselves


def resolve(
    text: str, context: Context, *, wildcards: bool, fold: bool = False
) -> re.Pattern[str] | Unknown | None:
    """A policy string with variables, as an anchored pattern.

    What a variable brings in is always literal: a ``*`` in a tag value matches a ``*`` only. None when a
    variable is absent in this request: then nothing matches (IAM reference, policy variables).
    """
    pieces: list[str] = []
    position = 0
    for match in _VARIABLE.finditer(text):
        pieces.append(_fixed(text[position : match.start()], wildcards=wildcards))
        position = match.end()
        value = _variable(match.group(1), context)
        if value is None or isinstance(value, Unknown):
            return value
        pieces.append(re.escape(value))
    rest = text[position:]
    if "${" in rest:
        return UNKNOWN
    pieces.append(_fixed(rest, wildcards=wildcards))
    return re.compile("".join(pieces), re.DOTALL | (re.IGNORECASE if fold else 0))


def _variable(body: str, context: Context) -> str | Unknown | None:
    if body in _LITERALS:
        return body
    default: str | None = None
    defaulted = _DEFAULTED.fullmatch(body)
    if defaulted:
        body, default = defaulted.groups()
    value = context.lookup(body.strip())
    if isinstance(value, tuple):
        return UNKNOWN  # variables take single-valued keys only
    return default if value is None else value


def _fixed(text: str, *, wildcards: bool) -> str:
    escaped = re.escape(text)
    return escaped.replace(r"\*", ".*").replace(r"\?", ".") if wildcards else escaped
