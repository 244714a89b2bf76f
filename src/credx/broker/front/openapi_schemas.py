"""JSON Schemas (2020-12) of what goes over the wire; every bound and pattern is the one that the code checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from credx.aws_limits import DURATION_RANGE, REGION
from credx.broker.enroll import MAX_NAME
from credx.broker.front import readiness
from credx.protocol import (
    AWS_CREDENTIALS_TYPE,
    ERROR_STATUS,
    FACTOR_ID,
    GRANT_TYPE,
    HANDLE,
    ID_TOKEN_TYPE,
    JWT_TYPE,
    KINDS,
    MAX_ARN,
    MAX_REASON,
    MAX_RESOURCES,
    NAME,
    OPERATION,
    OTP,
)

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

Schema = dict[str, Any]

PROVABLE: Final = tuple(kind for kind in KINDS if kind != "workload")  # what a person can enrol


def matching(pattern: re.Pattern[str], **more: Any) -> Schema:
    """A string that is the pattern from end to end (JSON Schema looks for a part)."""
    return {"type": "string", "pattern": f"^(?:{pattern.pattern})$", **more}


def text(**more: Any) -> Schema:
    return {"type": "string", **more}


def one_of(*values: Any) -> Schema:
    return {"enum": list(values)}


def number(**more: Any) -> Schema:
    return {"type": "integer", "minimum": 0, **more}


def listing(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def record(required: Schema, optional: Schema | None = None, **more: Any) -> Schema:
    """An object with these members and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def error_of(status: int) -> Schema:
    """The error names that come with a status."""
    names = [name for name, its in ERROR_STATUS.items() if its == status]
    return record({"error": one_of(*names), "error_description": text()})


_BASE64URL = text(pattern="^[A-Za-z0-9_-]+$")
_SECONDS = number(description="seconds")
_HANDLE = matching(HANDLE)
_KIND = one_of(*KINDS)
_FACTOR = {"id": matching(FACTOR_ID), "kind": one_of(*PROVABLE), "name": text(maxLength=MAX_NAME)}
_DESCRIPTOR = record({"type": {"const": "public-key"}, "id": _BASE64URL}, {"transports": listing(text())})
_UV = one_of("required", "preferred")
_URL = text(format="uri")
_ARN = text(pattern="^arn:", maxLength=MAX_ARN)
_CREDENTIAL: Schema = {  # of WebAuthn Level 3, which later levels may add to: so others are let through here
    "type": "object",
    "properties": {
        "id": _BASE64URL,
        "rawId": _BASE64URL,
        "type": {"const": "public-key"},
        "response": {"type": "object"},
    },
    "required": ["id", "rawId", "type", "response"],
}


def _proofs() -> Sequence[Schema]:
    return (
        {"auth_session": _HANDLE, "webauthn": ref("WebAuthnResponse")},
        {"auth_session": _HANDLE, "otp": matching(OTP)},
        {"factor_session": _HANDLE},
    )


def _token_request() -> Schema:
    form = {
        "grant_type": {"const": GRANT_TYPE},
        "subject_token": text(minLength=1, description="the ID token"),
        "subject_token_type": {"const": ID_TOKEN_TYPE},
        "audience": matching(NAME, description="the name of a role"),
    }
    name = NAME.pattern
    optional = {
        "resource": listing(
            text(minLength=1, maxLength=MAX_ARN), minItems=1, maxItems=MAX_RESOURCES, uniqueItems=True
        ),
        "scope": text(pattern=f"^{name}(?: {name})*$", description="different names, one space between them"),
        "operation": matching(OPERATION),
        "duration": text(pattern="^[1-9][0-9]{0,5}$", description="seconds"),
        "reason": text(minLength=1, maxLength=MAX_REASON, description="one printable line"),
    }
    assertion = text(minLength=2, contentMediaType="application/json", description="a WebAuthnResponse")
    proofs = [{**proof, **({"webauthn": assertion} if "webauthn" in proof else {})} for proof in _proofs()]
    return {"oneOf": [record({**form, **proof}, optional) for proof in ({}, *proofs)]}


def _begin_request() -> Schema:
    enrol = {
        "purpose": {"const": "enrol"},
        "kind": one_of(*PROVABLE),
        "name": text(minLength=1, maxLength=MAX_NAME),
    }
    invited = {"invitation": _HANDLE}
    return {
        "oneOf": [
            record({"purpose": {"const": "prove"}, "auth_session": _HANDLE}),
            record(enrol, invited),
            *(record({**enrol, **proof}, invited) for proof in _proofs()),
        ]
    }


def _role() -> Schema:
    duration = number(minimum=DURATION_RANGE[0], maximum=DURATION_RANGE[1])
    held = "what holds a session to what was asked, even against the person's own client"
    scope = record({
        "name": matching(NAME),
        "description": text(),
        "enforcement": one_of("broker", "signed", "signed+narrowing", "narrowing") | {"description": held},
    })  # fmt: skip
    return record({
        "name": matching(NAME),
        "account": text(pattern="^[0-9]{12}$"),
        "arn": _ARN,
        "region": matching(REGION),
        "description": text(),
        "duration": duration,
        "max_duration": duration,
        "sts": one_of("client", "broker"),
        "factor_max_age": _SECONDS,
        "factor_group": matching(NAME),
        "factors": listing(_KIND),
        "requires_target": {"type": "boolean"},
        "requires_reason": {"type": "boolean"},
        "operations": listing(text()),
        "enforcement": one_of("broker", "signed", "trust-policy") | {"description": held},
        "scopes": listing(scope),
    })  # fmt: skip


def _issued() -> Schema:
    return record(
        {
            "access_token": text(description="a web-identity token, or AWS's credential document as JSON"),
            "issued_token_type": one_of(JWT_TYPE, AWS_CREDENTIALS_TYPE),
            "token_type": {"const": "N_A"},
            "expires_in": _SECONDS,
            "issuance_id": text(pattern="^[0-9a-f]{32}$"),
            "role_arn": _ARN,
            "region": matching(REGION),
            "session_name": text(maxLength=64),
            "duration": _SECONDS,
            "scope": text(),
        },
        {
            "session_policy": text(),
            "factor_session": _HANDLE,
            "factor_session_expires_in": _SECONDS,
            "factor_group": matching(NAME),
        },
        dependentRequired={"factor_session": ["factor_session_expires_in", "factor_group"]},
    )


def _step_up() -> Schema:
    return record(
        {
            "error": {"const": "insufficient_authorization"},
            "error_description": text(),
            "auth_session": _HANDLE,
            "expires_in": _SECONDS,
            "factors": listing(record(_FACTOR)),
        },
        {"retry": {"const": True, "description": "an earlier proof was not good; the description says why"}},
    )


def _creation_options() -> Schema:
    return record({
        "rp": record({"id": text(), "name": text()}),
        "user": record({"id": _BASE64URL, "name": text(), "displayName": text()}),
        "challenge": _BASE64URL,
        "pubKeyCredParams": listing(record({"type": {"const": "public-key"}, "alg": {"type": "integer"}})),
        "excludeCredentials": listing(_DESCRIPTOR),
        "authenticatorSelection": record({
            "residentKey": {"const": "discouraged"},
            "requireResidentKey": {"const": False},
            "userVerification": _UV,
        }),
        "attestation": {"const": "none"},
    })  # fmt: skip


def _request_options() -> Schema:
    return record({
        "challenge": _BASE64URL,
        "rpId": text(),
        "allowCredentials": listing(_DESCRIPTOR),
        "userVerification": _UV,
    })  # fmt: skip


def _configuration() -> Schema:
    provider = record({"issuer": _URL, "client_id": text(), "scopes": listing(text())})
    return record({
        "issuer": _URL,
        "broker": _URL,
        "token_endpoint": _URL,
        "identity_providers": listing(provider),
        "webauthn": record({"rp_id": text()}),
        "regions": listing(matching(REGION)),
        "version": text(),
    })  # fmt: skip


def _discovery() -> Schema:
    words = listing(text())
    return record({
        "issuer": _URL,
        "jwks_uri": _URL,
        "response_types_supported": words,
        "subject_types_supported": words,
        "id_token_signing_alg_values_supported": words,
        "claims_supported": words,
    })  # fmt: skip


def schemas() -> dict[str, Schema]:
    """``components.schemas``."""
    begun = {"enrolment": _HANDLE, "expires_in": _SECONDS}
    check = one_of(*readiness.STATES)
    jwk = {
        "kty": {"const": "RSA"},
        "kid": text(),
        "use": {"const": "sig"},
        "alg": {"const": "RS256"},
        "n": _BASE64URL,
        "e": _BASE64URL,
    }
    factor = record({**_FACTOR, "created_at": _SECONDS, "last_used_at": {"type": ["integer", "null"]}})
    return {
        "TokenRequest": _token_request(),
        "Issued": _issued(),
        "StepUp": _step_up(),
        "WebAuthnResponse": _CREDENTIAL,
        "Proof": {"oneOf": [record(proof) for proof in _proofs()]},
        "BeginRequest": _begin_request(),
        "Begun": {
            "oneOf": [
                record({"public_key": _request_options(), "expires_in": _SECONDS}),
                record({**begun, "public_key": _creation_options()}),
                record({**begun, "secret": text(pattern="^[A-Z2-7]+$"), "uri": text(pattern="^otpauth:")}),
            ]
        },
        "CompleteRequest": {
            "oneOf": [
                record({"enrolment": _HANDLE, "webauthn": ref("WebAuthnResponse")}),
                record({"enrolment": _HANDLE, "otp": matching(OTP)}),
            ]
        },
        "Factor": factor,
        "Completed": record({"factor": ref("Factor")}),
        "Factors": record({"factors": listing(ref("Factor"))}),
        "Role": _role(),
        "Roles": record({"roles": listing(ref("Role"))}),
        "Ended": record({"ended": number(description="how many proofs served until now")}),
        "Keys": record({"keys": listing(record(jwk))}),
        "Discovery": _discovery(),
        "Configuration": _configuration(),
        "Health": record({"status": {"const": "ok"}}),
        "Ready": record({
            "status": one_of("ready", "unready"),
            "checks": record({"store": check, "policy": check, "signing_key": check}),
        }),
        "OpenApi": {"type": "object", "required": ["openapi", "info", "paths"]},
        **{f"Error{status}": error_of(status) for status in sorted(set(ERROR_STATUS.values()))},
    }  # fmt: skip
