"""The one function that makes ``VerifiedClaims``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.jose.trust import KeySource, TrustedIssuer
    from credx.model import Secret, VerifiedClaims


def verify_id_token(
    token: Secret,
    *,
    issuers: Mapping[str, TrustedIssuer],
    keys: KeySource,
    now: float,
    max_age: int | None,
    nonce: str | None = None,
) -> VerifiedClaims:
    """Verify an ID token (OpenID Connect Core 3.1.3.7)."""
    raise NotImplementedError
