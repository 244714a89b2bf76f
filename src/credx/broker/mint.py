"""The web-identity token (design step 6) and the role session's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from credx.broker.policy import Person
    from credx.jose import Signer
    from credx.model import Grant, Secret


def web_identity_token(
    grant: Grant,
    person: Person,
    *,
    issuance: str,
    jti: str,
    factor_kind: str,
    issuer: str,
    signer: Signer,
    now: float,
) -> Secret:
    """Sign the one token that AWS trusts. Raises ``ValueError`` rather than mint what STS would misread."""
    raise NotImplementedError


def session_name(person: Person, issuance: str) -> str:
    """RoleSessionName: ``<readable user>-<short issuance>``."""
    raise NotImplementedError
