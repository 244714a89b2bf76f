"""The document that AWS SDKs read from a ``credential_process``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from credx.errors import CredxError
from credx.strict import timestamp

if TYPE_CHECKING:
    from credx.model import AwsCredentials

# Go and Ruby SDKs and awscrt take expired credentials as they come: the check has to be here.
MIN_LEFT: Final = 300  # seconds; JS and Java refresh up to 5 minutes early


def document(creds: AwsCredentials, now: float) -> bytes:
    """Exactly one JSON document, Version 1, with a newline. To be written at once and alone on stdout.

    Raises:
        CredxError: less than ``MIN_LEFT`` seconds are left.
    """
    left = int(creds.expiration - now)
    if left < MIN_LEFT:
        raise CredxError(
            f"the credentials expire in {max(left, 0)} s, too soon to hand out",
            hint="set the clock if it is wrong, or ask for a longer session with --duration",
        )
    fields = {
        "Version": 1,
        "AccessKeyId": creds.access_key_id,
        "SecretAccessKey": creds.secret_access_key.reveal(),
        "SessionToken": creds.session_token.reveal(),
        "Expiration": timestamp(creds.expiration),
        "AccountId": creds.account_id,
    }
    return json.dumps(fields).encode() + b"\n"
