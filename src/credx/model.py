"""Values that carry trust. Each says who may construct it.

``VerifiedClaims`` come out of ``credx.jose`` alone, ``Grant`` out of the broker's policy alone
(``tests/unit/test_trust_types.py`` holds both), so that skipping a check is a type error.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Never

if TYPE_CHECKING:
    from collections.abc import Mapping


class Secret:
    """A string that does not print itself.

    ``str``, ``repr`` and formatting are masked, pickling is refused, comparison takes constant time.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself; every caller is a place where it may leave the process."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]  # a secret is no dictionary key

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> Never:
        raise TypeError("a Secret cannot be pickled")


@dataclass(frozen=True, kw_only=True)
class VerifiedClaims:
    """An ID token whose signature, issuer, audience and times were checked. Made by ``credx.jose`` alone.

    Attributes:
        issuer, subject: the person; no other claim identifies anybody.
        issued_at, expires_at, auth_time: seconds since 1970.
        amr: as in OpenID Connect Core 2.
        token_hash: hex SHA-256 of the signing input ``header.payload``. Never of the whole token: a
            signature has twins (malleable ES256, trailing ``=``), the signing input has none.
        claims: every claim, read-only.
    """

    issuer: str
    subject: str
    audience: str
    issued_at: int
    expires_at: int
    auth_time: int | None
    amr: tuple[str, ...]
    token_hash: str
    claims: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Grant:
    """The policy's yes to one ask: everything that is minted follows from it. Made by ``broker.policy`` alone.

    Attributes:
        role: the name in the policy. role_arn, account, partition, region: where it is in AWS.
        resources: sorted full ARNs that the session is for; empty when the role needs none.
        target: value of the tag ``credx-target``: the last part of the one resource's ARN, or None.
        scopes: sorted names.
        operation, reason: as asked.
        duration: seconds of the AWS session.
        session_policy: the composed IAM session policy as compact JSON, or None.
        tags: principal tags of the policy's scopes; ``credx-*`` are added when the token is minted.
        factors: accepted kinds (``webauthn``, ``totp``, ``workload``).
        user_verification: a WebAuthn proof must carry UV.
        factor_max_age: seconds for which one proof serves; 0 means a proof per issuance.
        factor_group: name within which a factor session serves.
        sts: ``client`` or ``broker``: who makes the STS call.
        roles_claim: the trust policy asks for ``sts:RoleAuthorizedByIdp``.
    """

    role: str
    role_arn: str
    account: str
    partition: str
    region: str
    resources: tuple[str, ...]
    target: str | None
    scopes: tuple[str, ...]
    operation: str
    reason: str
    duration: int
    session_policy: str | None
    tags: Mapping[str, str]
    factors: tuple[str, ...]
    user_verification: bool
    factor_max_age: int
    factor_group: str
    sts: str
    roles_claim: bool


@dataclass(frozen=True, kw_only=True)
class Denial:
    """The policy's no. ``code`` is an OAuth error name, ``public`` may be shown, ``reason`` is for the audit."""

    code: str
    public: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class AwsCredentials:
    """Temporary credentials of one role session. ``expiration`` is in seconds since 1970."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret
    expiration: int
    account_id: str
    region: str
    role_arn: str
