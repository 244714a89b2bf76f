"""What the CLI and the broker say to each other. Names follow RFC 8693, RFC 6749, RFC 9470 and WebAuthn.

``POST /token`` takes a form; every other route JSON. Both ends build and parse through this module, so a
field exists once. Nothing here does I/O or decides anything.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

from credx.errors import Refusal
from credx.model import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # RFC 8693 2.1
ID_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 -- RFC 8693 3
JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"  # RFC 8693 3
AWS_CREDENTIALS_TYPE: Final = "urn:credx:params:oauth:token-type:aws-credentials"

TOKEN_PATH: Final = "/token"  # noqa: S105
DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
JWKS_PATH: Final = "/.well-known/jwks.json"
CONFIGURATION_PATH: Final = "/.well-known/credx-configuration"
ROLES_PATH: Final = "/roles"
FACTORS_PATH: Final = "/factors"
FACTORS_BEGIN_PATH: Final = "/factors/begin"
FACTORS_COMPLETE_PATH: Final = "/factors/complete"
FACTOR_SESSIONS_PATH: Final = "/factor-sessions"
HEALTH_PATH: Final = "/healthz"

MAX_BODY: Final = 64 * 1024  # bytes; an ID token (16 KiB) and an assertion (a few KiB) fit
MAX_RESOURCES: Final = 50  # design, step 3
MAX_SCOPES: Final = 20
MAX_REASON: Final = 256  # characters; SSM StartSession Reason has the same bound
MAX_ARN: Final = 2048  # IAM's bound
DURATION_RANGE: Final = (900, 43200)  # STS AssumeRoleWithWebIdentity DurationSeconds

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # roles, scopes, groups
OPERATION = re.compile(r"creds|shell|run|forward:[A-Za-z0-9.\[\]:_-]{1,255}:[0-9]{1,5}")
HANDLE = re.compile(r"[A-Za-z0-9_-]{16,128}")  # auth_session, factor_session, enrolment, invitation
OTP = re.compile(r"[0-9]{6}", re.ASCII)

ERROR_STATUS: Final[Mapping[str, int]] = {
    "invalid_request": 400,  # RFC 6749 5.2
    "invalid_grant": 400,
    "invalid_scope": 400,
    "invalid_target": 400,  # RFC 8693 2.2.2
    "unsupported_grant_type": 400,
    "invalid_token": 401,  # RFC 6750 3.1
    "insufficient_user_authentication": 401,  # RFC 9470 3: a fresh sign-in is needed
    "insufficient_authorization": 403,  # a second factor is needed, or was not good
    "access_denied": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "payload_too_large": 413,
    "slow_down": 429,
    "server_error": 500,
    "temporarily_unavailable": 503,
}

KINDS: Final = ("webauthn", "totp", "workload")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What somebody wants: one issuance. Sorted and bounded once, so that equal asks are equal values."""

    role: str
    resources: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    operation: str = "creds"
    duration: int | None = None
    reason: str = ""

    def canonical(self) -> str:
        """The text a proof is bound to: one spelling per ask, no two asks share one."""
        parts: list[object] = [
            self.role, list(self.resources), list(self.scopes), self.operation, self.duration, self.reason,
        ]  # fmt: skip
        return json.dumps(parts, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class WebAuthnProof:
    """``assertion``: AuthenticationResponseJSON of WebAuthn Level 3, 5.1."""

    auth_session: Secret
    assertion: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TotpProof:
    auth_session: Secret
    otp: Secret


@dataclass(frozen=True, kw_only=True)
class FactorSessionProof:
    """An earlier proof that still serves, see ``factor_max_age``."""

    factor_session: Secret


Proof = WebAuthnProof | TotpProof | FactorSessionProof


@dataclass(frozen=True, kw_only=True)
class TokenRequest:
    subject_token: Secret
    ask: Ask
    proof: Proof | None = None

    def to_form(self) -> bytes:
        fields: list[tuple[str, str]] = [
            ("grant_type", GRANT_TYPE),
            ("subject_token", self.subject_token.reveal()),
            ("subject_token_type", ID_TOKEN_TYPE),
            ("audience", self.ask.role),
            *(("resource", arn) for arn in self.ask.resources),
        ]
        optional = {
            "scope": " ".join(self.ask.scopes),
            "operation": "" if self.ask.operation == "creds" else self.ask.operation,
            "duration": "" if self.ask.duration is None else str(self.ask.duration),
            "reason": self.ask.reason,
        }
        fields += [(name, value) for name, value in optional.items() if value]
        if self.proof is not None:
            proof = proof_to_json(self.proof)
            if "webauthn" in proof:
                proof["webauthn"] = json.dumps(proof["webauthn"], separators=(",", ":"))
            fields += list(proof.items())
        return urlencode(fields).encode("ascii")

    @classmethod
    def from_form(cls, body: bytes) -> TokenRequest:
        """Parse a form strictly.

        Raises:
            Refusal: unknown, empty or repeated parameters (RFC 6749 3.2), or values out of bounds.
        """
        form = _form(body)
        resources = tuple(form.pop("resource", []))
        one = {name: values[0] for name, values in form.items()}
        if one.get("grant_type") != GRANT_TYPE:
            raise Refusal("unsupported_grant_type", "grant_type must be token-exchange")
        if one.get("subject_token_type") != ID_TOKEN_TYPE:
            raise Refusal("invalid_request", "subject_token_type must be id_token")
        token = one.get("subject_token")
        if not token:
            raise Refusal("invalid_request", "subject_token is missing")
        proof_fields: dict[str, Any] = {name: one[name] for name in PROOF_FIELDS if name in one}
        if "webauthn" in proof_fields:
            proof_fields["webauthn"] = parse_json(proof_fields["webauthn"].encode())
        return cls(
            subject_token=Secret(token),
            ask=_ask(one, resources),
            proof=proof_from_json(proof_fields) if proof_fields else None,
        )


PROOF_FIELDS: Final = ("auth_session", "webauthn", "otp", "factor_session")
_FORM_FIELDS: Final = {
    "grant_type", "subject_token", "subject_token_type", "audience", "resource", "scope", "operation",
    "duration", "reason", *PROOF_FIELDS,
}  # fmt: skip


def _form(body: bytes) -> dict[str, list[str]]:
    if len(body) > MAX_BODY:
        raise Refusal("payload_too_large", "the request is too large")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            strict_parsing=True,
            keep_blank_values=True,
            max_num_fields=100,
            errors="strict",
        )
    except ValueError as exc:
        raise Refusal("invalid_request", "the body is not a form", str(exc)) from exc
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in _FORM_FIELDS:
            raise Refusal("invalid_request", "unknown parameter")
        if not value or (name in form and name != "resource"):
            raise Refusal("invalid_request", f"{name} must be given once and not be empty")
        form.setdefault(name, []).append(value)
    return form


def _ask(one: Mapping[str, str], resources: tuple[str, ...]) -> Ask:
    role = one.get("audience", "")
    if not NAME.fullmatch(role):
        raise Refusal("invalid_target", "audience must be the name of a role")
    ordered = tuple(sorted(set(resources)))
    if (
        len(ordered) != len(resources)
        or len(resources) > MAX_RESOURCES
        or any(len(r) > MAX_ARN for r in resources)
    ):
        raise Refusal("invalid_target", f"resource must be at most {MAX_RESOURCES} different ARNs")
    words = one["scope"].split(" ") if "scope" in one else []
    scopes = tuple(sorted(set(words)))
    if len(scopes) != len(words) or len(scopes) > MAX_SCOPES or not all(NAME.fullmatch(s) for s in scopes):
        raise Refusal("invalid_scope", "scope must be different names of scopes")
    operation = one.get("operation", "creds")
    if not OPERATION.fullmatch(operation):
        raise Refusal("invalid_request", "operation is not known")
    duration = one.get("duration")
    if duration is not None and not re.fullmatch(r"[1-9][0-9]{0,5}", duration):
        raise Refusal("invalid_request", "duration must be whole seconds")
    reason = one.get("reason", "")
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise Refusal(
            "invalid_request", f"reason must be one printable line of at most {MAX_REASON} characters"
        )
    return Ask(
        role=role,
        resources=ordered,
        scopes=scopes,
        operation=operation,
        duration=int(duration) if duration else None,
        reason=reason,
    )


def proof_to_json(proof: Proof) -> dict[str, Any]:
    match proof:
        case WebAuthnProof():
            return {"auth_session": proof.auth_session.reveal(), "webauthn": dict(proof.assertion)}
        case TotpProof():
            return {"auth_session": proof.auth_session.reveal(), "otp": proof.otp.reveal()}
        case FactorSessionProof():
            return {"factor_session": proof.factor_session.reveal()}


def proof_from_json(fields: Mapping[str, Any]) -> Proof:
    """Exactly one kind of proof.

    Raises:
        Refusal: anything but one of the three forms.
    """
    match dict(fields):
        case {"auth_session": str(session), "webauthn": dict(assertion), **rest} if not rest:
            return WebAuthnProof(auth_session=_handle(session), assertion=assertion)
        case {"auth_session": str(session), "otp": str(otp), **rest} if not rest:
            if not OTP.fullmatch(otp):  # ASCII only: pyotp folds other digits (past-faults 3)
                raise Refusal(
                    "insufficient_authorization", "a code is six digits", "otp is not six ASCII digits"
                )
            return TotpProof(auth_session=_handle(session), otp=Secret(otp))
        case {"factor_session": str(session), **rest} if not rest:
            return FactorSessionProof(factor_session=_handle(session))
    raise Refusal("invalid_request", "give auth_session with webauthn or otp, or factor_session alone")


def _handle(text: str) -> Secret:
    if not HANDLE.fullmatch(text):
        raise Refusal("insufficient_authorization", "the session is not known", "handle is not well formed")
    return Secret(text)


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object from outside: bounded, UTF-8, no duplicate member, no NaN, no huge number.

    Raises:
        Refusal: anything else.
    """
    if len(body) > MAX_BODY:
        raise Refusal("payload_too_large", "the request is too large")
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_no_twins,
            parse_constant=_no_constant,
            parse_int=_bounded_int,
            parse_float=_bounded_float,
        )
    except (ValueError, RecursionError) as exc:
        raise Refusal("invalid_request", "the body is not a JSON object") from exc
    if not isinstance(value, dict):
        raise Refusal("invalid_request", "the body is not a JSON object")
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate member")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _bounded_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError("number too long")
    return int(digits)


def _bounded_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("number too large")
    return number


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
