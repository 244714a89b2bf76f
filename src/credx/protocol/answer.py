"""What the broker answers to ``POST /token``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from credx.errors import UnavailableError
from credx.model import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class StepUp:
    """403 ``insufficient_authorization``: which factors would do, and the session to prove them in.

    Attributes:
        factors: ``{"kind": "webauthn" | "totp", "id": ..., "name": ...}`` of this user and this role.
        expires_in: seconds.
        retry: why an earlier proof in the same session was not good, or None.
    """

    auth_session: Secret
    expires_in: int
    factors: tuple[Mapping[str, str], ...]
    retry: str | None = None

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "error": "insufficient_authorization",
            "error_description": self.retry or "a second factor is needed",
            "auth_session": self.auth_session.reveal(),
            "expires_in": self.expires_in,
            "factors": [dict(f) for f in self.factors],
        }
        if self.retry is not None:
            body["retry"] = True  # the description says why
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> StepUp:
        """Raises ``AttributeError``, ``KeyError``, ``TypeError`` or ``ValueError`` on an answer of another shape."""
        factors = tuple({k: str(v) for k, v in f.items()} for f in body["factors"])
        return cls(
            auth_session=Secret(_text(body, "auth_session")),
            expires_in=_number(body, "expires_in"),
            factors=factors,
            retry=_text(body, "error_description") if body.get("retry") is True else None,
        )


@dataclass(frozen=True, kw_only=True)
class Issued:
    """200 of ``POST /token``.

    Attributes:
        token: the web-identity token (``issued_token_type`` jwt), or the credential document as JSON text
            with AWS's names (``AccessKeyId`` ..., ``issued_token_type`` aws-credentials).
        expires_in: seconds that ``token`` lives.
        duration: seconds to ask STS for. session_policy: compact JSON or None. session_name: RoleSessionName.
        factor_session, factor_session_expires_in: present when the role lets one proof serve for a while.
    """

    token: Secret
    issued_token_type: str
    expires_in: int
    issuance_id: str
    role_arn: str
    region: str
    session_name: str
    session_policy: str | None
    duration: int
    scopes: tuple[str, ...] = ()
    factor_session: Secret | None = None
    factor_session_expires_in: int | None = None
    factor_group: str | None = None

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "access_token": self.token.reveal(),
            "issued_token_type": self.issued_token_type,
            "token_type": "N_A",  # RFC 8693 2.2.1: not an access token
            "expires_in": self.expires_in,
            "issuance_id": self.issuance_id,
            "role_arn": self.role_arn,
            "region": self.region,
            "session_name": self.session_name,
            "duration": self.duration,
            "scope": " ".join(self.scopes),
        }
        if self.session_policy is not None:
            body["session_policy"] = self.session_policy
        if self.factor_session is not None:
            body["factor_session"] = self.factor_session.reveal()
            body["factor_session_expires_in"] = self.factor_session_expires_in
            body["factor_group"] = self.factor_group
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Issued:
        """Raises ``KeyError``, ``TypeError`` or ``ValueError`` on an answer of another shape."""
        session = body.get("factor_session")
        policy = body.get("session_policy")
        return cls(
            token=Secret(_text(body, "access_token")),
            issued_token_type=_text(body, "issued_token_type"),
            expires_in=_number(body, "expires_in"),
            issuance_id=_text(body, "issuance_id"),
            role_arn=_text(body, "role_arn"),
            region=_text(body, "region"),
            session_name=_text(body, "session_name"),
            session_policy=None if policy is None else _text(body, "session_policy"),
            duration=_number(body, "duration"),
            scopes=tuple(_text(body, "scope").split()),
            factor_session=None if session is None else Secret(_text(body, "factor_session")),
            factor_session_expires_in=None if session is None else _number(body, "factor_session_expires_in"),
            factor_group=None if session is None else _text(body, "factor_group"),
        )


def not_understood() -> UnavailableError:
    """The error for an answer of another shape than this credx knows: it is as good as none."""
    return UnavailableError(
        "the broker's answer is not understood", hint="credx --version: the broker may be of another one"
    )


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body[key]
    if not isinstance(value, str):
        raise TypeError(key)
    return value


def _number(body: Mapping[str, Any], key: str) -> int:
    value = body[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(key)
    return value
