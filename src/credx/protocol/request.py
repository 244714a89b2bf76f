"""What is asked for, and what proves the second factor: the request of ``POST /token``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

from credx.errors import Refusal
from credx.model import Secret
from credx.protocol.body import parse_json
from credx.protocol.names import (
    GRANT_TYPE,
    HANDLE,
    ID_TOKEN_TYPE,
    MAX_ARN,
    MAX_BODY,
    MAX_REASON,
    MAX_RESOURCES,
    MAX_SCOPES,
    NAME,
    OPERATION,
    OTP,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


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
            if not OTP.fullmatch(otp):  # ASCII only: pyotp folds other digits into these
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
