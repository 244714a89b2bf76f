"""What the broker's answer holds, and what a person reads about an ask."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from credx.model import AwsCredentials, Secret
from credx.protocol import AWS_CREDENTIALS_TYPE, JWT_TYPE, not_understood
from credx.strict import json_object
from credx.ui import clock_apart

if TYPE_CHECKING:
    from credx.config import Settings
    from credx.protocol import Ask, Issued
    from credx.ui import UI

AWS_SKEW_WORTH_NAMING = 60  # seconds; the answer's way here is in it
SHOWN_TARGETS = 3  # of up to 50; the count says the rest


def described(ask: Ask) -> str:
    """What a touch approves, in words: role, targets, scopes, operation, duration, reason."""
    parts = [ask.role]
    if ask.resources:
        shown = ", ".join(arn.rpartition(":")[2] for arn in ask.resources[:SHOWN_TARGETS])
        more = len(ask.resources) - SHOWN_TARGETS
        parts.append(f"on {shown}" + (f" and {more} more" if more > 0 else ""))
    if ask.scopes:
        parts.append(f"with {', '.join(ask.scopes)}")
    if ask.operation != "creds":
        parts.append(f"to {ask.operation}")
    if ask.duration is not None:
        hours, minutes = divmod(ask.duration // 60, 60)
        parts.append("for " + " ".join(f"{n} {u}" for n, u in ((hours, "h"), (minutes, "min")) if n))
    if ask.reason:
        parts.append(f"({ask.reason})")
    return " ".join(parts)


def credentials_of(issued: Issued, settings: Settings) -> AwsCredentials:
    """Step 5: credentials for the broker's answer.

    Raises:
        AwsRefusedError: STS said no.
        UnavailableError: STS is out of reach, or the broker answered what nobody understands.
    """
    if issued.issued_token_type == JWT_TYPE:
        from credx.sts import assume_role_with_web_identity  # noqa: PLC0415 -- boto's 200 ms

        return assume_role_with_web_identity(
            token=issued.token,
            role_arn=issued.role_arn,
            session_name=issued.session_name,
            duration=issued.duration,
            policy=issued.session_policy,
            region=issued.region,
            endpoint=settings.sts_endpoint,
            ca_file=settings.ca_file,
        )
    if issued.issued_token_type == AWS_CREDENTIALS_TYPE:
        return _from_document(issued)
    raise not_understood()


def tell_skew(issued: Issued, creds: AwsCredentials, now: float, ui: UI) -> None:
    """Say how far the clock here is from AWS's: fresh credentials end one duration from now.

    They are good, but a clock behind will take them for good when they have ended.
    """
    skew = clock_apart(now + issued.duration - creds.expiration, "AWS's", worth=AWS_SKEW_WORTH_NAMING)
    if skew:
        ui.note(f"{skew}: set it")


def _from_document(issued: Issued) -> AwsCredentials:
    from credx.sts import names_region, names_role  # noqa: PLC0415

    # as strict as the other way: SDKs make a host name of the region, and look elsewhere for empty keys
    if not (names_role(issued.role_arn) and names_region(issued.region)):
        raise not_understood()
    try:
        fields = json_object(issued.token.reveal().encode())
        # without a zone it would be read as local time
        expires = datetime.strptime(fields["Expiration"], "%Y-%m-%dT%H:%M:%S%z")
        return AwsCredentials(
            access_key_id=_text(fields["AccessKeyId"]),
            secret_access_key=Secret(_text(fields["SecretAccessKey"])),
            session_token=Secret(_text(fields["SessionToken"])),
            expiration=int(expires.timestamp()),
            account_id=issued.role_arn.split(":")[4],
            region=issued.region,
            role_arn=issued.role_arn,
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        raise not_understood() from None  # the cause would carry the document


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not (value.isascii() and value.isprintable()):
        raise ValueError("no credential")
    return value
