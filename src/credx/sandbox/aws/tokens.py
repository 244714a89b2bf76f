"""Is this web-identity token good for this account? As STS asks it (IAM User Guide, OIDC federation).

Stricter than STS where that is known to be lenient: times are JSON integers, ``kid`` is required, only RS256
and ES256. Laxer in one point: an issuer may be http on loopback, with a port. Keys are fetched for every call.
Verified with joserfc, so that a fault in ``credx.jose`` does not hide itself.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from credx.errors import UnavailableError
from credx.sandbox.aws.claims import AwsClaims, read_aws_claims
from credx.sandbox.aws.faults import AwsFault
from credx.urls import permitted_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from credx.model import Secret

LEEWAY_SECONDS: Final = 300  # [OBS] exp, iat and nbf
MIN_RSA_BITS: Final = 2048  # RFC 7518 3.3
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_PRIVATE: Final = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
_NO_KEY: Final = "Couldn't retrieve verification key from your identity provider, please reference \
AssumeRoleWithWebIdentity documentation for requirements"


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An IAM OIDC provider: ``url`` has no scheme, as IAM keeps it."""

    arn: str
    url: str
    client_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class WebIdentity:
    """A token that was verified. ``audience`` is ``azp`` where that is present, as STS has it."""

    provider: Provider
    subject: str
    audience: str
    amr: tuple[str, ...]
    azp: str | None
    aws: AwsClaims


def invalid(message: str, detail: str = "") -> AwsFault:
    return AwsFault("InvalidIdentityToken", 400, message, detail=detail)


def verify_web_identity(
    token: Secret, *, providers: Mapping[str, Provider], fetch: Callable[[str], bytes], now: float
) -> WebIdentity:
    """Verify signature, then issuer, times, audience and the claims in AWS's namespace.

    Args:
        token: a compact JWS.
        providers: by URL without scheme.
        fetch: GET of a URL, at most 5 s and a bounded size; raises ``UnavailableError`` or ``ValueError``.
        now: seconds since 1970.

    Raises:
        AwsFault: InvalidIdentityToken, ExpiredTokenException or IDPCommunicationError.
    """
    text = token.reveal()
    if not _SHAPE.fullmatch(text):
        raise invalid(
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)"
        )
    try:
        unverified = jws.extract_compact(text.encode("ascii"))
        header, unverified_claims = unverified.headers(), _object(unverified.payload)
    except (JoseError, ValueError, RecursionError) as exc:
        raise invalid("The ID Token provided is not a valid JWT", str(type(exc))) from exc
    issuer = unverified_claims.get("iss")
    provider = _provider(issuer, providers)
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in ("RS256", "ES256") or not isinstance(kid, str) or "crit" in header:
        raise invalid("Token header is not acceptable: RS256 or ES256 with a kid", repr(header)[:200])
    key = _key(_jwks(str(issuer), fetch), kid, algorithm)
    try:
        payload = jws.deserialize_compact(
            text, key, algorithms=[algorithm], registry=_registry(algorithm)
        ).payload
    except (JoseError, ValueError) as exc:
        raise invalid("Token signature invalid", str(type(exc))) from exc
    claims = _object(payload or b"")
    _check_times(claims, now)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or not subject.isprintable():
        raise invalid("Missing a required claim: sub")
    audience, azp = _audience(claims)
    if audience not in provider.client_ids:
        raise invalid("Incorrect token audience", repr(audience))
    return WebIdentity(
        provider=provider,
        subject=subject,
        audience=audience,
        amr=_amr(claims.get("amr")),
        azp=azp,
        aws=read_aws_claims(claims),
    )


def _registry(algorithm: str) -> jws.JWSRegistry:
    return jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)


def _provider(issuer: Any, providers: Mapping[str, Provider]) -> Provider:
    if not isinstance(issuer, str):
        raise invalid("Missing a required claim: iss")
    provider = providers.get(issuer.partition("://")[2])
    if provider is None or not permitted_url(issuer) or "?" in issuer:
        raise invalid("No OpenIDConnect provider found in your account for " + issuer[:255])
    return provider


def _jwks(issuer: str, fetch: Callable[[str], bytes]) -> list[Any]:
    try:
        document = _object(fetch(issuer.rstrip("/") + "/.well-known/openid-configuration"))
        where = document.get("jwks_uri")
        if document.get("issuer") != issuer or not isinstance(where, str) or not permitted_url(where):
            raise invalid(_NO_KEY, "discovery document names another issuer or no acceptable jwks_uri")
        keys = _object(fetch(where)).get("keys")
    except UnavailableError as exc:
        raise AwsFault("IDPCommunicationError", 400, _NO_KEY, detail=str(exc)) from exc
    except (ValueError, RecursionError) as exc:
        raise invalid(_NO_KEY, f"unusable answer: {exc}") from exc
    return keys if isinstance(keys, list) else _no_key("JWKS without keys")


def _key(keys: list[Any], kid: str, algorithm: str) -> RSAKey | ECKey:
    """[OBS]: the last of two equal kids counts; key_ops and ``use: enc`` make a key unusable."""
    named = [k for k in keys if isinstance(k, dict) and k.get("kid") == kid]
    if not named:
        _no_key("no key with the token's kid")
    jwk = named[-1]
    if "key_ops" in jwk or jwk.get("use", "sig") != "sig" or _PRIVATE & set(jwk):
        _no_key("the JWK has key_ops, another use or private members")
    try:
        if algorithm == "RS256" and jwk.get("kty") == "RSA":
            modulus = base64.b64decode(jwk["n"] + "==", altchars=b"-_")
            if int.from_bytes(modulus).bit_length() < MIN_RSA_BITS:
                _no_key("the RSA key is too short")
            return RSAKey.import_key(jwk)
        if algorithm == "ES256" and jwk.get("kty") == "EC" and jwk.get("crv") == "P-256":
            return ECKey.import_key(jwk)
    except (JoseError, ValueError, KeyError, TypeError) as exc:
        raise invalid(_NO_KEY, f"the JWK cannot be read: {type(exc)}") from exc
    return _no_key("the JWK's type does not fit the token's algorithm")


def _no_key(detail: str) -> NoReturn:
    raise invalid(_NO_KEY, detail)


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name)
        if (value is None and name != "nbf") or isinstance(value, bool) or not isinstance(value, int | None):
            raise invalid(
                f"Missing a required claim: {name}" if value is None else f"{name} is not an integer"
            )
    exp = int(claims["exp"])
    if now > exp + LEEWAY_SECONDS:
        message = f"Token expired: current date/time {int(now)} must be before the expiration date/time {exp}"
        raise AwsFault("ExpiredTokenException", 400, message)
    if max(claims["iat"], claims.get("nbf") or 0) > now + LEEWAY_SECONDS:
        raise invalid("Token is not yet valid")


def _audience(claims: Mapping[str, Any]) -> tuple[str, str | None]:
    aud, azp = claims.get("aud"), claims.get("azp")
    audiences = [aud] if isinstance(aud, str) else aud
    if not isinstance(audiences, list) or not audiences or not all(isinstance(a, str) for a in audiences):
        raise invalid("Missing a required claim: aud")
    if azp is None and len(audiences) > 1:
        raise invalid("Missing a required claim: azp", "more than one audience")
    if azp is not None and not isinstance(azp, str):
        raise invalid("azp is not a string")
    return (azp or audiences[0]), azp


def _amr(raw: Any) -> tuple[str, ...]:
    values = [raw] if isinstance(raw, str) else (raw or [])
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise invalid("amr is not a list of strings")
    return tuple(values)


def _object(data: bytes | None) -> dict[str, Any]:
    found = json.loads((data or b"").decode("utf-8"), parse_constant=_no_constant)  # a later twin wins [OBS]
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 -- a shape of foreign data
    return found


def _no_constant(name: str) -> float:
    raise ValueError(name)
