"""The one function that makes ``VerifiedClaims``. PyJWT checks the signature; everything else is done here.

PyJWT's algorithms and not its ``decode``: that reads header, payload and signature once more, less strictly than
``_open`` has read them, and takes twice the time of the signature itself for it, three times in each issuance.
"""

from __future__ import annotations

import hashlib
import hmac
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import jwt

from credx.jose.trust import ALGORITHMS, CLOCK_LEEWAY, TokenError
from credx.model import VerifiedClaims
from credx.strict import base64url, json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.jose.trust import KeySource, TrustedIssuer, VerificationKey
    from credx.model import Secret

MAX_TOKEN: Final = 16 * 1024  # characters; a token with 200 group ids has about 10 KiB
MAX_KID: Final = 128  # characters; a thumbprint has 43
MAX_SUBJECT: Final = 255  # OpenID Connect Core 2
MAX_DATE: Final = 253_402_300_799  # the end of the year 9999, where Python's calendar ends

# Headers that change what is signed or say where a key should come from (CVE-2018-0114; RFC 7515 4.1).
# x5t and x5t#S256 are only names of a key, GitHub Actions and AD FS send them, and nothing here reads them.
FORBIDDEN_HEADERS: Final = frozenset({"crit", "b64", "zip", "enc", "cty", "jku", "jwk", "x5u", "x5c"})

_AGAIN: Final = "credx login"


class _Unverified(NamedTuple):
    """``payload`` is what the second part of ``signing_input`` spells."""

    algorithm: str
    kid: str
    issuer: str
    signing_input: bytes
    payload: bytes
    signature: bytes


def verify_id_token(
    token: Secret,
    *,
    issuers: Mapping[str, TrustedIssuer],
    keys: KeySource,
    now: float,
    max_age: int | None,
    nonce: str | None = None,
) -> VerifiedClaims:
    """Verify an ID token (OpenID Connect Core 3.1.3.7).

    In this order:

    1. bounds and form: size, three parts, canonical base64url, plain JSON, an allowed header;
    2. issuer: an exact look-up of the unverified ``iss``; only a configured issuer is ever contacted;
    3. algorithm: on the issuer's list, and the one that the key is for;
    4. signature; from here on only the verified bytes are read;
    5. audience: ``aud`` is ours alone, and ``azp`` too where there is one;
    6. times: ``exp``, ``nbf``, ``iat``, ``auth_time`` with ``CLOCK_LEEWAY``, and ``max_age`` since ``iat``;
    7. the remaining claims: ``sub``, ``nonce``, ``acr``, ``amr``.

    The twin (r, n-s) of an ES256 signature verifies too; ``token_hash`` covers the signing input alone.

    Args:
        token: compact JWS.
        issuers: by issuer identifier.
        keys: where their keys come from.
        now: seconds since 1970.
        max_age: seconds since ``iat`` for which the token is good; None for as long as ``exp`` says.
        nonce: what ``nonce`` must be; None when none was sent.

    Raises:
        TokenError: with a ``reason``; never with a part of the token.
        UnavailableError: the issuer's keys cannot be known at the moment.
    """
    unverified = _open(token.reveal())
    trusted = issuers.get(unverified.issuer)
    if trusted is None or trusted.issuer != unverified.issuer:
        raise TokenError("unknown-issuer", "the token is from an identity provider that is not trusted here")
    if unverified.algorithm not in ALGORITHMS or unverified.algorithm not in trusted.algorithms:
        raise TokenError("algorithm", "the token is signed with an algorithm that is not allowed")
    key = keys.key(trusted, unverified.kid, unverified.algorithm, now=now)
    claims = _verified_claims(unverified, key)
    if claims.get("iss") != trusted.issuer:  # the same bytes as before: this only guards against a slip above
        raise TokenError("claims", "the token's issuer is not the one that was looked up")
    _check_audience(claims, trusted.audience)
    issued_at, expires_at, auth_time = _check_times(claims, now, max_age)
    _check_nonce(claims, nonce)
    _text(claims, "acr")
    return VerifiedClaims(
        issuer=trusted.issuer,
        subject=_subject(claims),
        audience=trusted.audience,
        issued_at=issued_at,
        expires_at=expires_at,
        auth_time=auth_time,
        amr=_methods(claims),
        token_hash=hashlib.sha256(unverified.signing_input).hexdigest(),
        claims=MappingProxyType(claims),
    )


def _open(compact: str) -> _Unverified:
    if len(compact) > MAX_TOKEN:
        raise TokenError("too-large", f"the token is longer than {MAX_TOKEN} characters")
    if compact.count(".") != 2:  # before any split or decoding (CVE-2025-30204)
        raise TokenError("malformed", "the token is not in three parts", hint=_AGAIN)
    try:
        parts = compact.split(".")
        header, payload, signature = (base64url(part) for part in parts)
        fields, claims = json_object(header), json_object(payload)
    except ValueError:  # from None: the message of a parser may quote the token
        raise TokenError("malformed", "the token is not well formed", hint=_AGAIN) from None
    algorithm, kid = _check_header(fields)
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise TokenError("claims", "the token names no issuer")
    signing_input = f"{parts[0]}.{parts[1]}".encode("ascii")
    return _Unverified(algorithm, kid, issuer, signing_input, payload, signature)


def _check_header(fields: Mapping[str, Any]) -> tuple[str, str]:
    if FORBIDDEN_HEADERS & fields.keys():
        raise TokenError("header", "the token's header has a field that is not accepted")
    if "typ" in fields and fields["typ"] != "JWT":  # at+jwt, logout+jwt ...: not an ID token (RFC 8725 3.11)
        raise TokenError("header", "the token is of a type that is not accepted")
    algorithm, kid = fields.get("alg"), fields.get("kid")
    if not isinstance(algorithm, str):
        raise TokenError("header", "the token's header names no algorithm")
    if not isinstance(kid, str) or not 1 <= len(kid) <= MAX_KID or not (kid.isascii() and kid.isprintable()):
        raise TokenError("header", "the token's header names no usable key id")
    return algorithm, kid


def _verified_claims(unverified: _Unverified, key: VerificationKey) -> dict[str, Any]:
    if key.algorithm != unverified.algorithm:  # GHSA-jq35-7prp-9v3f: a list alone is not enough
        raise TokenError("algorithm", "the token is signed with another algorithm than its key is for")
    algorithm = jwt.get_algorithm_by_name(key.algorithm)
    try:
        public = algorithm.prepare_key(key.public)
        if algorithm.check_key_length(public) is None and algorithm.verify(
            unverified.signing_input, public, unverified.signature
        ):
            return json_object(unverified.payload)
    except (jwt.InvalidTokenError, jwt.InvalidKeyError, ValueError, TypeError):
        pass
    raise TokenError("bad-signature", "the token's signature is not good", hint=_AGAIN)


def _check_audience(claims: Mapping[str, Any], audience: str) -> None:
    # A list of one is the same statement as a string; a longer one is a token for others too (CVE-2024-5798).
    if claims.get("aud") not in (audience, [audience]):
        raise TokenError("wrong-audience", "the token is for another audience")
    if "azp" in claims and claims["azp"] != audience:
        raise TokenError("wrong-audience", "the token was issued to another client")


def _check_times(claims: Mapping[str, Any], now: float, max_age: int | None) -> tuple[int, int, int | None]:
    issued_at, expires_at = _date(claims, "iat"), _date(claims, "exp")
    not_before, auth_time = _date(claims, "nbf"), _date(claims, "auth_time")
    if issued_at is None or expires_at is None or expires_at <= issued_at:
        raise TokenError("claims", "the token does not say when it was issued and when it expires")
    # Written as «go on only if», so that a clock that is not a number refuses.
    if not now < expires_at + CLOCK_LEEWAY:
        raise TokenError("expired", "the token has expired", hint=_AGAIN)
    if not max(issued_at, not_before or 0, auth_time or 0) <= now + CLOCK_LEEWAY:
        raise TokenError(
            "not-yet-valid",
            "the token is from the future",
            hint="compare the clocks of this machine and the identity provider",
        )
    if max_age is not None and not now - issued_at <= max_age + CLOCK_LEEWAY:
        raise TokenError("too-old", f"the token is older than {max_age} seconds", hint=_AGAIN)
    return issued_at, expires_at, auth_time


def _date(claims: Mapping[str, Any], name: str) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    # type() and not isinstance(): True is an int to Python
    if type(value) is not int or not 0 < value <= MAX_DATE:
        raise TokenError("claims", f"the token's {name} is not a time in whole seconds")
    return value


def _subject(claims: Mapping[str, Any]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT:
        raise TokenError("claims", f"the token's sub is not a text of 1 to {MAX_SUBJECT} characters")
    # Refused, never trimmed or folded: two people must not become one (CVE-2025-6013)
    if not subject.isprintable() or subject != subject.strip():
        raise TokenError("claims", "the token's sub has characters that are not accepted")
    return subject


def _check_nonce(claims: Mapping[str, Any], nonce: str | None) -> None:
    found = _text(claims, "nonce") or ""
    if nonce is not None and not hmac.compare_digest(found.encode("utf-8"), nonce.encode("utf-8")):
        raise TokenError("nonce", "the token does not belong to this sign-in", hint=_AGAIN)


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if name in claims and not isinstance(value, str):
        raise TokenError("claims", f"the token's {name} is not a text")
    return value


def _methods(claims: Mapping[str, Any]) -> tuple[str, ...]:
    value = claims.get("amr", [])
    if not isinstance(value, list) or not all(isinstance(method, str) for method in value):
        raise TokenError("claims", "the token's amr is not a list of texts")
    return tuple(value)
