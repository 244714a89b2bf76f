"""IAM condition operators (IAM reference, condition operators), three-valued.

An operator or a key that is not known here makes a condition ``UNKNOWN``, never true.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import TYPE_CHECKING, Final

from credx.sandbox.aws.context import UNKNOWN, Context, Truth, Unknown, Value, all_of, any_of, negate, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    Compare = Callable[[str, str, Context], Truth]

ARN_PARTS: Final = 6  # arn:partition:service:region:account:resource


@dataclass(frozen=True)
class Condition:
    """One operator on one key. ``values`` are or-ed (negated operators: none of them may match)."""

    operator: str
    key: str
    values: tuple[str, ...]

    def holds(self, context: Context) -> Truth:
        """Whether the condition is met; ``UNKNOWN`` when it cannot be told."""
        quantifier, _, rest = self.operator.rpartition(":")
        value = context.lookup(self.key)
        if isinstance(value, Unknown):
            return UNKNOWN
        if rest == "Null":
            return UNKNOWN if quantifier else self._null(value)
        name, if_exists = rest.removesuffix("IfExists"), rest.endswith("IfExists")
        negated, compare = OPERATORS.get(name, (False, None))
        if compare is None or quantifier not in ("", "ForAllValues", "ForAnyValue"):
            return UNKNOWN
        if value is None:  # IAM: absent satisfies negation, IfExists and ForAllValues, nothing else
            return if_exists or (quantifier == "ForAllValues") or (negated and not quantifier)
        if isinstance(value, tuple) and not quantifier:
            return UNKNOWN  # IAM wants ForAnyValue or ForAllValues for a multivalued key
        members = value if isinstance(value, tuple) else (value,)
        each = [self._one(compare, member, context, negated=negated) for member in members]
        return any_of(each) if quantifier == "ForAnyValue" else all_of(each)

    def _one(self, compare: Compare, member: str, context: Context, *, negated: bool) -> Truth:
        matched = any_of([compare(wanted, member, context) for wanted in self.values])
        return negate(matched) if negated else matched

    def _null(self, value: Value | None) -> Truth:
        if any(wanted.lower() not in ("true", "false") for wanted in self.values):
            return UNKNOWN
        return any((wanted.lower() == "true") == (value is None) for wanted in self.values)


def _text(*, wildcards: bool, fold: bool = False, negated: bool = False) -> Compare:
    """``negated``: what compares is turned round later, so an absent variable must not become a yes."""

    def compare(wanted: str, actual: str, context: Context) -> Truth:
        pattern = resolve(wanted, context, wildcards=wildcards, fold=fold)
        if isinstance(pattern, Unknown):
            return UNKNOWN
        if pattern is None:
            return UNKNOWN if negated else False
        return pattern.fullmatch(actual) is not None

    return compare


def match_arn(wanted: str, actual: str, context: Context, *, negated: bool = False) -> Truth:
    """ArnLike: six parts, wildcards within a part only. ArnEquals behaves the same (IAM reference)."""
    wanted_parts, actual_parts = split_arn(wanted), actual.split(":", ARN_PARTS - 1)
    if wanted_parts is None:
        return UNKNOWN
    if len(actual_parts) != ARN_PARTS:
        return False
    like = _text(wildcards=True, negated=negated)
    return all_of([like(w, a, context) for w, a in zip(wanted_parts, actual_parts, strict=True)])


def split_arn(text: str) -> list[str] | None:
    """The six parts of an ARN pattern; colons inside ``${...}`` separate nothing."""
    parts: list[str] = [""]
    depth = 0
    for index, char in enumerate(text):
        depth += (text[index : index + 2] == "${") - (char == "}" and depth > 0)
        if char == ":" and depth == 0 and len(parts) < ARN_PARTS:
            parts.append("")
        else:
            parts[-1] += char
    return parts if len(parts) == ARN_PARTS and parts[0] == "arn" else None


def _ordered(parse: Callable[[str], Decimal], accept: Callable[[int], bool]) -> Compare:
    def compare(wanted: str, actual: str, _context: Context) -> Truth:
        try:
            left, right = parse(actual), parse(wanted)
        except (ValueError, InvalidOperation):
            return UNKNOWN
        return accept((left > right) - (left < right))

    return compare


def _number(text: str) -> Decimal:
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError("not a number")
    return number


def _date(text: str) -> Decimal:
    """ISO 8601 with a zone (a date alone means midnight UTC), or seconds since 1970."""
    if text.isascii() and text.isdigit():
        return Decimal(text)
    moment = datetime.fromisoformat(text + "T00:00:00Z" if len(text) == len("2026-01-31") else text)
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone")
    return Decimal(moment.timestamp())


def _bool(wanted: str, actual: str, _context: Context) -> Truth:
    if wanted.lower() not in ("true", "false"):
        return UNKNOWN
    return wanted.lower() == actual.lower()


def _ip(wanted: str, actual: str, _context: Context) -> Truth:
    try:
        return ipaddress.ip_address(actual) in ipaddress.ip_network(wanted)
    except ValueError:
        return UNKNOWN


def _comparisons(prefix: str, parse: Callable[[str], Decimal]) -> dict[str, tuple[bool, Compare]]:
    return {
        prefix + "Equals": (False, _ordered(parse, lambda order: order == 0)),
        prefix + "NotEquals": (True, _ordered(parse, lambda order: order == 0)),
        prefix + "LessThan": (False, _ordered(parse, lambda order: order < 0)),
        prefix + "LessThanEquals": (False, _ordered(parse, lambda order: order <= 0)),
        prefix + "GreaterThan": (False, _ordered(parse, lambda order: order > 0)),
        prefix + "GreaterThanEquals": (False, _ordered(parse, lambda order: order >= 0)),
    }


OPERATORS: Final[dict[str, tuple[bool, Compare]]] = {  # name -> (negated, comparison of one pair)
    "StringEquals": (False, _text(wildcards=False)),
    "StringNotEquals": (True, _text(wildcards=False, negated=True)),
    "StringEqualsIgnoreCase": (False, _text(wildcards=False, fold=True)),
    "StringNotEqualsIgnoreCase": (True, _text(wildcards=False, fold=True, negated=True)),
    "StringLike": (False, _text(wildcards=True)),
    "StringNotLike": (True, _text(wildcards=True, negated=True)),
    "ArnEquals": (False, match_arn),
    "ArnNotEquals": (True, partial(match_arn, negated=True)),
    "ArnLike": (False, match_arn),
    "ArnNotLike": (True, partial(match_arn, negated=True)),
    "Bool": (False, _bool),
    "IpAddress": (False, _ip),
    "NotIpAddress": (True, _ip),
    **_comparisons("Numeric", _number),
    **_comparisons("Date", _date),
}


def known_operator(name: str) -> bool:
    """Whether an operator, with its quantifier and ``IfExists``, is one that ``Condition`` can decide."""
    quantifier, _, rest = name.rpartition(":")
    if quantifier not in ("", "ForAllValues", "ForAnyValue"):
        return False
    return rest.removesuffix("IfExists") in OPERATORS or (rest == "Null" and not quantifier)
