"""What CTAP commands look like: CBOR maps by number, checked before anything is done with them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from fido2 import cbor
from fido2.ctap import CtapError

ERR = CtapError.ERR
Shape = Callable[[Any], bool]


def parameters(data: bytes, shapes: Mapping[int, Shape], *, required: int) -> Mapping[int, Any]:
    """The parameters of a command by number; the first ``required`` must be there (8.1)."""
    try:
        given = cbor.decode(data)
    except (ValueError, LookupError, TypeError, struct.error, RecursionError) as exc:
        raise CtapError(ERR.INVALID_CBOR) from exc
    if not isinstance(given, Mapping):
        raise CtapError(ERR.CBOR_UNEXPECTED_TYPE)
    if any(number not in given for number in range(1, required + 1)):
        raise CtapError(ERR.MISSING_PARAMETER)
    if not all(shapes[number](value) for number, value in given.items() if number in shapes):
        raise CtapError(ERR.CBOR_UNEXPECTED_TYPE)
    return given


def _is(kind: type) -> Shape:
    return lambda value: isinstance(value, kind)


def _has(key: str, kind: type) -> Shape:
    return lambda value: isinstance(value, Mapping) and isinstance(value.get(key), kind)


def _all(shape: Shape) -> Shape:
    return lambda value: isinstance(value, list | tuple) and all(map(shape, value))


def _user(value: Any) -> bool:
    return _has("id", bytes)(value) and all(isinstance(v, str) for k, v in value.items() if k != "id")


# 6.1 and 6.2: the parameters that are looked at here
MAKE_CREDENTIAL: Final[Mapping[int, Shape]] = {
    1: _is(bytes),
    2: _has("id", str),
    3: _user,
    4: _all(_has("alg", int)),
    5: _all(_has("id", bytes)),
    7: _is(Mapping),
}
GET_ASSERTION: Final[Mapping[int, Shape]] = {
    1: _is(str),
    2: _is(bytes),
    3: _all(_has("id", bytes)),
    5: _is(Mapping),
}
