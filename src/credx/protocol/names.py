"""Names, paths and bounds of the wire. Names follow RFC 8693, RFC 6749, RFC 6750 and RFC 9470."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

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
HEALTH_PATH: Final = "/healthz"  # the process lives; touches nothing
READY_PATH: Final = "/readyz"  # it can do its work
OPENAPI_PATH: Final = "/openapi.json"

MAX_BODY: Final = 64 * 1024  # bytes; an ID token (16 KiB) and an assertion (a few KiB) fit
MAX_RESOURCES: Final = 50  # design, step 3
MAX_SCOPES: Final = 20
MAX_REASON: Final = 256  # characters; SSM StartSession Reason has the same bound
MAX_ARN: Final = 2048  # IAM's bound

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # roles, scopes, groups
OPERATION = re.compile(r"creds|shell|run|forward:[A-Za-z0-9.\[\]:_-]{1,255}:[0-9]{1,5}")
FACTOR_ID = re.compile(r"[0-9a-f]{16}")
HANDLE = re.compile(r"[A-Za-z0-9_-]{16,128}")  # auth_session, factor_session, enrolment, invitation
OTP = re.compile(r"[0-9]{6}", re.ASCII)

AWS_REFUSED: Final = "aws_refused"  # an extension (RFC 6749 8.5): the policy said yes, AWS said no

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
    AWS_REFUSED: 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,  # RFC 9110 15.5.9
    "payload_too_large": 413,
    "headers_too_large": 431,  # RFC 6585 5
    "slow_down": 429,
    "server_error": 500,
    "temporarily_unavailable": 503,
}

KINDS: Final = ("webauthn", "totp", "workload")
