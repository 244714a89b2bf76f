"""The keys that identity providers publish: fetched, bounded, kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from credx.jose.trust import TrustedIssuer, VerificationKey


class RemoteKeys:
    """A ``KeySource``."""

    def __init__(self, fetch: Callable[[str], bytes]) -> None:
        self._fetch = fetch

    def key(self, issuer: TrustedIssuer, kid: str, algorithm: str, *, now: float) -> VerificationKey:
        raise NotImplementedError
