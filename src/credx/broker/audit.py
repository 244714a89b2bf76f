"""The audit trail: one hash chain per writer, in the store, written together with what it records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from credx.broker.handles import Rng
    from credx.broker.stores import Store, Write

EVENTS = frozenset({
    "granted", "issued", "failed", "refused", "enrolled", "removed", "invited", "logged_out",
    "locked", "unlocked", "disabled", "enabled",
})  # fmt: skip


class Broken(NamedTuple):
    writer: str
    seq: int
    why: str


def new_writer_id(now: float, rng: Rng) -> str:
    """One per process start."""
    raise NotImplementedError


class Audit:
    def __init__(
        self, store: Store, writer_id: str, *, copy: Callable[[Mapping[str, Any]], None] | None = None
    ) -> None: ...

    def commit(self, writes: Sequence[Write], record: Mapping[str, Any], *, now: float) -> None:
        """The caller's writes, the record and the chain head in one ``Store.apply``.

        Raises:
            ConflictError: an expectation of the caller's writes did not hold; nothing was written.
            StoreUnavailableError: issue nothing.
            ValueError, TypeError: a record with an unknown field, a Secret or a value of another shape.
        """
        raise NotImplementedError

    def append(self, record: Mapping[str, Any], *, now: float) -> None:
        raise NotImplementedError

    def read(
        self,
        now: float,
        *,
        user: str | None = None,
        role: str | None = None,
        issuance: str | None = None,
        event: str | None = None,
        access_key_id: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        raise NotImplementedError

    def verify(self, now: float) -> Broken | None:
        raise NotImplementedError

    def security_log(self, event: str, **fields: object) -> None:
        raise NotImplementedError
