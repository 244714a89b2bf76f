"""Items that are not of the shape in which credx writes them: somebody else's hand, or a broken restore."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from credx.broker.seal import SealError
from credx.broker.stores import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Around the code that takes a stored ``what`` apart.

    Raises:
        StoreUnavailableError: it is malformed; nothing may be decided on it.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, SealError) as exc:
        raise StoreUnavailableError(f"the store holds a malformed {what}") from exc
