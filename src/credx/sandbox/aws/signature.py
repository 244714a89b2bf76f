"""AWS Signature Version 4 in the Authorization header (IAM user guide, "Create a signed AWS API request").

Refused by design: presigned URLs, SigV4A, chunked uploads (``STREAMING-...``), unsigned bodies except for
S3's ``UNSIGNED-PAYLOAD``, and any ``x-amz-*`` header that the signature does not cover.
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote_to_bytes

from credx.model import Secret
from credx.sandbox.aws.faults import Mishap, fault

if TYPE_CHECKING:
    from credx.sandbox.aws.sessions import Key, Keys
    from credx.sandbox.aws.wire import Request

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SKEW_SECONDS: Final = 15 * 60  # AWS general reference, signing
_UNRESERVED: Final = "-_.~"
_AUTHORIZATION = re.compile(
    ALGORITHM + r" +Credential=(?P<key>[A-Z0-9]{16,128})/(?P<day>[0-9]{8})/(?P<region>[a-z0-9-]{1,40})"
    r"/(?P<service>[a-z0-9-]{1,40})/aws4_request, *SignedHeaders=(?P<signed>[a-z0-9;_-]{1,2000})"
    r", *Signature=(?P<signature>[0-9a-f]{64})",
    re.ASCII,
)
_WHEN = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)


@dataclass(frozen=True)
class Scope:
    """What an Authorization header claims; nothing in it is verified."""

    access_key_id: str
    day: str
    region: str
    service: str
    signed: tuple[str, ...]
    signature: str


def claimed_scope(request: Request, fallback: str) -> Scope:
    """Read the Authorization header.

    Args:
        request: as it came.
        fallback: the service in whose words a refusal is made.

    Raises:
        AwsFault: unsigned, presigned, or another signing method.
    """
    text = request.header("authorization")
    if text is None:
        if "x-amz-signature=" in request.query.lower():
            raise fault(fallback, Mishap.NOT_BUILT, "presigned URLs are not part of this sandbox")
        raise fault(fallback, Mishap.UNSIGNED)
    match = _AUTHORIZATION.fullmatch(text)
    if match is None:
        raise fault(fallback, Mishap.INCOMPLETE, "the Authorization header is not SigV4 with all its parts")
    signed = tuple(match["signed"].split(";"))
    return Scope(match["key"], match["day"], match["region"], match["service"], signed, match["signature"])


def verify(request: Request, scope: Scope, keys: Keys, *, now: float) -> Key:
    """Check who signed, then that nothing changed since; the key's own expiry last, as AWS does.

    Raises:
        AwsFault: in the words of the service that the scope names.
    """
    service = scope.service
    key = keys.find(scope.access_key_id)
    if key is None:
        raise fault(service, Mishap.UNKNOWN_KEY)
    token = request.header("x-amz-security-token")
    if (token is None) is not (key.token is None) or (token and Secret(token) != key.token):
        raise fault(service, Mishap.BAD_TOKEN)
    when = _check_time(request, scope, now)
    _check_coverage(request, scope)
    payload = _payload_hash(request, service)
    expected = _sign(key, scope, when, _canonical(request, scope, payload))
    if not hmac.compare_digest(expected, scope.signature):
        raise fault(service, Mishap.BAD_SIGNATURE)
    if key.session is not None and now >= key.session.expires_at:
        raise fault(service, Mishap.EXPIRED)
    return key


def _check_time(request: Request, scope: Scope, now: float) -> str:
    when = request.header("x-amz-date") or ""
    if not _WHEN.fullmatch(when) or not when.startswith(scope.day):
        raise fault(scope.service, Mishap.INCOMPLETE, "x-amz-date is missing or not of the credential's day")
    try:
        signed_at = calendar.timegm(time.strptime(when, "%Y%m%dT%H%M%SZ"))
    except ValueError as exc:
        raise fault(scope.service, Mishap.INCOMPLETE, "x-amz-date is no date") from exc
    if abs(now - signed_at) > SKEW_SECONDS:
        raise fault(scope.service, Mishap.SKEWED)
    return when


def _check_coverage(request: Request, scope: Scope) -> None:
    present = [name for name, _ in request.headers]
    needed = {"host", *(name for name in present if name.startswith("x-amz-"))}
    ordered = tuple(sorted(set(scope.signed)))
    covered = needed <= set(scope.signed) <= set(present)
    repeated = any(present.count(name) > 1 for name in scope.signed)
    if not covered or repeated or ordered != scope.signed:
        raise fault(
            scope.service,
            Mishap.BAD_SIGNATURE,
            detail="SignedHeaders does not cover host and x-amz-*, once each",
        )


def _payload_hash(request: Request, service: str) -> str:
    actual = hashlib.sha256(request.body).hexdigest()
    declared = request.header("x-amz-content-sha256")
    if declared is None:
        return actual
    if service == "s3" and declared == "UNSIGNED-PAYLOAD":
        return declared
    if declared.startswith("STREAMING-"):
        raise fault(service, Mishap.NOT_BUILT, "chunked uploads are not part of this sandbox")
    if not hmac.compare_digest(declared.encode(), actual.encode()):
        raise fault(service, Mishap.BAD_SIGNATURE, detail="x-amz-content-sha256 is not the body's hash")
    return actual


def _canonical(request: Request, scope: Scope, payload: str) -> str:
    if scope.service == "s3":  # encoded once; every other service encodes the encoded path again
        path = quote(unquote_to_bytes(request.path), safe="/" + _UNRESERVED)
    else:
        path = quote(request.path, safe="/" + _UNRESERVED)
    try:
        pairs = request.query_pairs()
    except ValueError as exc:
        raise fault(scope.service, Mishap.MALFORMED) from exc
    encoded = sorted((quote(n, safe=_UNRESERVED), quote(v, safe=_UNRESERVED)) for n, v in pairs)
    headers = "".join(f"{name}:{' '.join((request.header(name) or '').split())}\n" for name in scope.signed)
    query = "&".join(f"{n}={v}" for n, v in encoded)
    return "\n".join((request.method, path, query, headers, ";".join(scope.signed), payload))


def _sign(key: Key, scope: Scope, when: str, canonical: str) -> str:
    credential = f"{scope.day}/{scope.region}/{scope.service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    derived = ("AWS4" + key.secret.reveal()).encode()
    for part in credential.split("/"):
        derived = hmac.digest(derived, part.encode(), "sha256")
    return hmac.digest(derived, f"{ALGORITHM}\n{when}\n{credential}\n{digest}".encode(), "sha256").hex()
