"""STS: AssumeRoleWithWebIdentity as strict as the real one, and GetCallerIdentity.

Order of checks: parameters, token, roles claim ([OBS]: before the trust policy), trust policy, duration,
session policy. Keys are issued last.
"""

from __future__ import annotations

import json
import re
import uuid
import zlib
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from credx.model import Secret
from credx.sandbox.aws.claims import ROLE_ARN
from credx.sandbox.aws.faults import NAMESPACES, AwsFault
from credx.sandbox.aws.policy import Policy, PolicyError, parse_policy
from credx.sandbox.aws.sessions import Key, Session
from credx.sandbox.aws.tokens import WebIdentity, invalid, verify_web_identity
from credx.sandbox.aws.trust import check_trust, denied, trust_context
from credx.sandbox.aws.wire import Request, Response
from credx.strict import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from credx.sandbox.aws.moto_backend import Moto, Role
    from credx.sandbox.aws.sessions import Keys

VERSION: Final = "2011-06-15"
DURATION_RANGE: Final = (900, 43200)  # STS API, DurationSeconds
MAX_POLICY: Final = 2048  # characters
MAX_TOKEN: Final = 20000  # characters
PACKED_BYTES: Final = 2048  # AWS does not disclose its limit nor its packing; this is a stand-in
_SESSION_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}", re.ASCII)
_POLICY_TEXT = re.compile(r"[\t\n\r\u0020-\u00ff]+")
_REQUIRED: Final = {"Action", "Version", "RoleArn", "RoleSessionName", "WebIdentityToken"}
_OPTIONAL: Final = {"DurationSeconds", "Policy"}


def validation(message: str) -> AwsFault:
    return AwsFault("ValidationError", 400, message)


def assume_role_with_web_identity(
    request: Request, *, moto: Moto, keys: Keys, fetch: Callable[[str], bytes], now: float
) -> Response:
    """Answer one call.

    Raises:
        AwsFault: with the codes of the STS API.
    """
    form = _parameters(request)
    duration = _duration(form.get("DurationSeconds"))
    token = Secret(form["WebIdentityToken"])
    identity = verify_web_identity(token, providers=moto.providers(), fetch=fetch, now=now)
    arn = form["RoleArn"]
    if identity.aws.roles is not None and arn not in identity.aws.roles:
        raise invalid("The target role ARN is not present in the roles claim of the identity token")
    role = moto.role(arn)
    if role is None:
        raise denied(f"no role {arn!r}")
    name = form["RoleSessionName"]
    check_trust(
        identity, role, trust_context(identity, role, account=moto.account, session_name=name, now=now)
    )
    if duration > role.max_session_duration:
        raise validation("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
    policy, packed = _session_policy(form.get("Policy"), identity.aws.tags)
    session = _session(identity, role, name, policy, account=moto.account, now=int(now), duration=duration)
    return _answer(keys.issue(session), session, identity, packed)


def _session(
    identity: WebIdentity,
    role: Role,
    name: str,
    policy: Policy | None,
    *,
    account: str,
    now: int,
    duration: int,
) -> Session:
    return Session(
        role_arn=role.arn,
        role_id=role.id,
        name=name,
        arn=f"arn:aws:sts::{account}:assumed-role/{role.name}/{name}",
        provider_arn=identity.provider.arn,
        source_identity=identity.aws.source_identity,
        tags=identity.aws.tags,
        policy=policy,
        issued_at=now,
        expires_at=now + duration,
    )


def _parameters(request: Request) -> dict[str, str]:
    form = request.form() or {}
    if form.get("ProviderId") is not None:  # never for OIDC [OBS]
        raise denied("ProviderId was given")
    extra = sorted(set(form) - _REQUIRED - _OPTIONAL)
    if any(name.startswith("PolicyArns.") for name in extra):
        raise validation("PolicyArns: managed session policies are not part of this sandbox")
    missing = sorted(_REQUIRED - set(form))
    if extra or missing or request.path != "/":
        raise validation(f"Parameters missing: {missing}; not known: {[e[:40] for e in extra]}")
    if form["Version"] != VERSION:
        raise AwsFault(
            "InvalidAction", 400, "Could not find operation AssumeRoleWithWebIdentity for this version"
        )
    if not 4 <= len(form["WebIdentityToken"]) <= MAX_TOKEN:
        raise validation(
            "1 validation error detected: Value at 'webIdentityToken' failed to satisfy its length"
        )
    if not ROLE_ARN.fullmatch(form["RoleArn"]):
        raise validation("1 validation error detected: roleArn is invalid")
    if not _SESSION_NAME.fullmatch(form["RoleSessionName"]):
        raise validation(
            "1 validation error detected: Value at 'roleSessionName' failed to satisfy constraint:"
            " Member must satisfy regular expression pattern: [\\w+=,.@-]*"
        )
    return form


def _duration(text: str | None) -> int:
    if text is None:
        return 3600
    low, high = DURATION_RANGE
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII) or not low <= int(text) <= high:
        raise validation(
            "1 validation error detected: Value at 'durationSeconds' failed to satisfy constraint:"
            f" Member must have value between {low} and {high}"
        )
    return int(text)


def _session_policy(text: str | None, tags: Mapping[str, str]) -> tuple[Policy | None, int]:
    """The parsed policy and its packed size in percent, which counts the tags too."""
    if text is not None and len(text) > MAX_POLICY:
        raise validation("1 validation error detected: Value at 'policy' failed to satisfy its length (2048)")
    if text is not None and not _POLICY_TEXT.fullmatch(text):
        raise AwsFault("MalformedPolicyDocument", 400, "The policy has characters that are not allowed")
    try:
        policy = None if text is None else parse_policy(text, "session")
    except PolicyError as exc:
        raise AwsFault("MalformedPolicyDocument", 400, f"Syntax errors in policy: {exc}") from exc
    plain = (text or "") + (json.dumps(dict(tags)) if tags else "")
    packed = -(-100 * len(zlib.compress(plain.encode())) // PACKED_BYTES) if plain else 0
    if packed > 100:
        message = f"Packed size of session tags consumes {packed}% of allotted space."
        raise AwsFault("PackedPolicyTooLarge", 400, message)
    return policy, packed


def _answer(key: Key, session: Session, identity: WebIdentity, packed: int) -> Response:
    token = key.token.reveal() if key.token else ""
    source = session.source_identity
    parts = [
        "<Credentials>", _tag("AccessKeyId", key.access_key_id), _tag("SecretAccessKey", key.secret.reveal()),
        _tag("SessionToken", token), _tag("Expiration", timestamp(session.expires_at)), "</Credentials>",
        _tag("SubjectFromWebIdentityToken", identity.subject),
        "<AssumedRoleUser>", _tag("AssumedRoleId", session.user_id), _tag("Arn", session.arn),
        "</AssumedRoleUser>", _tag("PackedPolicySize", str(packed)), _tag("Provider", identity.provider.arn),
        _tag("Audience", identity.audience), _tag("SourceIdentity", source) if source else "",
    ]  # fmt: skip
    return _xml("AssumeRoleWithWebIdentity", "".join(parts))


def get_caller_identity(key: Key, account: str) -> Response:
    """Who am I; needs no permission and cannot be denied (STS API)."""
    session = key.session
    arn = session.arn if session else f"arn:aws:iam::{account}:root"
    user = session.user_id if session else account
    return _xml("GetCallerIdentity", _tag("Arn", arn) + _tag("UserId", user) + _tag("Account", account))


def _tag(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def _xml(action: str, body: str) -> Response:
    request_id = str(uuid.uuid4())
    text = (
        f'<{action}Response xmlns="{NAMESPACES["sts"]}"><{action}Result>{body}</{action}Result>'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    )
    return Response(200, (("Content-Type", "text/xml"), ("x-amzn-RequestId", request_id)), text.encode())
