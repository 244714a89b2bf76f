"""The access keys this AWS knows: one administrator per world, and the sessions that STS issued."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from credx.model import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.sandbox.aws.policy import Policy

_BASE32: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SECRET_BYTES: Final = 30  # 40 characters of base64, as AWS's secret keys have
_TOKEN_BYTES: Final = 300  # session tokens are some hundred characters; their length is no promise


@dataclass(frozen=True, kw_only=True)
class Session:
    """One assumed role.

    Attributes:
        role_arn, role_id: of the IAM role.
        name: RoleSessionName.
        arn: ``arn:aws:sts::ACCOUNT:assumed-role/ROLE/NAME``.
        tags: session tags of the token; they win over the role's own tags.
        policy: the session policy, or None.
        issued_at, expires_at: seconds since 1970.
    """

    role_arn: str
    role_id: str
    name: str
    arn: str
    provider_arn: str
    source_identity: str | None
    tags: Mapping[str, str]
    policy: Policy | None
    issued_at: int
    expires_at: int

    @property
    def user_id(self) -> str:
        """``aws:userid`` of an assumed role."""
        return f"{self.role_id}:{self.name}"


@dataclass(frozen=True, kw_only=True)
class Key:
    """``session`` is None for the administrator, who may do everything."""

    access_key_id: str
    secret: Secret = field(repr=False)
    token: Secret | None = field(repr=False)
    session: Session | None


class Keys:
    """All keys of one world, in memory."""

    def __init__(self) -> None:
        self.admin = _key("AKIA", None, None)
        self._keys = {self.admin.access_key_id: self.admin}

    def issue(self, session: Session) -> Key:
        key = _key("ASIA", Secret(secrets.token_urlsafe(_TOKEN_BYTES)), session)
        self._keys[key.access_key_id] = key
        return key

    def find(self, access_key_id: str) -> Key | None:
        return self._keys.get(access_key_id)


def _key(prefix: str, token: Secret | None, session: Session | None) -> Key:
    tail = "".join(secrets.choice(_BASE32) for _ in range(16))
    secret = Secret(secrets.token_urlsafe(_SECRET_BYTES))
    return Key(access_key_id=prefix + tail, secret=secret, token=token, session=session)
