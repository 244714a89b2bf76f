"""Credentials as environment variables, for five readers and for a child process."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from credx.credentials import process
from credx.errors import CredxError, UsageError
from credx.strict import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.model import AwsCredentials

FORMATS: Final = ("env", "fish", "powershell", "dotenv", "json", "process")

# What would win over our keys or stand in for them when they fail. botocore reads AWS_SECURITY_TOKEN before
# AWS_SESSION_TOKEN, an SDK may prefer a profile, and a container's or web identity's role is another role.
FOREIGN: Final = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SECURITY_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
)

_PLAIN = re.compile(r"[A-Za-z0-9_./+=:@-]*")


def variables(creds: AwsCredentials) -> dict[str, str]:
    """The variables of one session.

    Raises:
        CredxError: a value holds a character that no credential has (and that could end a line).
    """
    values = {
        "AWS_ACCESS_KEY_ID": creds.access_key_id,
        "AWS_SECRET_ACCESS_KEY": creds.secret_access_key.reveal(),
        "AWS_SESSION_TOKEN": creds.session_token.reveal(),
        "AWS_CREDENTIAL_EXPIRATION": timestamp(creds.expiration),
        "AWS_REGION": creds.region,
        "AWS_DEFAULT_REGION": creds.region,
    }
    bad = [name for name, value in values.items() if not value.isprintable()]
    if bad:
        raise CredxError(f"the value for {bad[0]} is not printable text", hint="credx roles")
    return values


def render(creds: AwsCredentials, fmt: str, now: float) -> str:
    """The credentials in one of ``FORMATS``, ending with a newline.

    Shell formats also unset what would win over the new values.

    Raises:
        UsageError: a format that is not in ``FORMATS``.
        CredxError: see ``variables`` and ``process.document``.
    """
    if fmt == "process":
        return process.document(creds, now).decode()
    values = variables(creds)
    match fmt:
        case "env":
            lines = [f"unset {' '.join(FOREIGN)}"]
            lines += [f"export {name}={_posix(value)}" for name, value in values.items()]
        case "fish":
            lines = [f"set -e {name}" for name in FOREIGN]
            lines += [f"set -gx {name} {_fish(value)}" for name, value in values.items()]
        case "powershell":
            lines = [f"Remove-Item Env:{name} -ErrorAction SilentlyContinue" for name in FOREIGN]
            lines += [f"$Env:{name} = {_powershell(value)}" for name, value in values.items()]
        case "dotenv":
            lines = [f"{name}={_dotenv(name, value)}" for name, value in values.items()]
        case "json":
            lines = [_json(creds)]
        case _:
            raise UsageError(f"there is no format {fmt!r}", hint=f"--format {'|'.join(FORMATS)}")
    return "\n".join(lines) + "\n"


def child_environment(creds: AwsCredentials, environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` with these credentials and no others: a failure must not fall through to another role."""
    kept = {name: value for name, value in environ.items() if name.upper() not in FOREIGN}
    return kept | variables(creds) | {"AWS_EC2_METADATA_DISABLED": "true"}


def _posix(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _fish(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _powershell(value: str) -> str:
    # PowerShell ends a single-quoted string at the typographic quotes too
    return "'" + re.sub("(['\u2018\u2019\u201a\u201b])", r"\1\1", value) + "'"


def _dotenv(name: str, value: str) -> str:
    """Bare where every dialect agrees (``docker --env-file`` knows no quotes), else single-quoted."""
    if _PLAIN.fullmatch(value):
        return value
    if "'" in value or "\\" in value:
        raise CredxError(f"the value for {name} cannot be written as dotenv", hint="--format json")
    return f"'{value}'"


def _json(creds: AwsCredentials) -> str:
    fields = {
        "AccessKeyId": creds.access_key_id,
        "SecretAccessKey": creds.secret_access_key.reveal(),
        "SessionToken": creds.session_token.reveal(),
        "Expiration": timestamp(creds.expiration),
        "AccountId": creds.account_id,
        "Region": creds.region,
        "RoleArn": creds.role_arn,
    }
    return json.dumps(fields, indent=2)
