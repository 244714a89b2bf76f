"""Public keys out of a JWK Set (RFC 7517), those that can verify an ID token and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from credx.jose.trust import VerificationKey
from credx.strict import base64url, json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_KEYS: Final = 100  # of one set; the largest public ones hold about ten
MIN_RSA_BITS: Final = 2048  # RFC 7518 3.3
MAX_RSA_BITS: Final = 8192  # verifying grows with the square; nobody's ID tokens use more than 4096
MAX_EXPONENT: Final = 2**32 - 1  # 65537 in practice

# by (kid, algorithm): a kid is a dictionary key, never a path or a query
Keys = dict[tuple[str, str], VerificationKey]


def usable_keys(raw: bytes) -> Keys:
    """The keys of a JWK Set that are for verifying RS256 or ES256.

    A member that cannot be used is skipped (RFC 7517 5). Two different keys under one name are both
    dropped: which one is meant cannot be known.

    Raises:
        ValueError: no JWK Set, more than ``MAX_KEYS`` members, or no usable key among them.
    """
    members = json_object(raw).get("keys")
    if not isinstance(members, list) or len(members) > MAX_KEYS:
        raise ValueError(f"no key set of at most {MAX_KEYS} keys")
    found: Keys = {}
    ambiguous: set[tuple[str, str]] = set()
    for member in members:
        key = _verification_key(member) if isinstance(member, dict) else None
        if key is None:
            continue
        name = (member["kid"], key.algorithm)
        if name in found and found[name].public != key.public:
            ambiguous.add(name)
        found[name] = key
    usable = {name: key for name, key in found.items() if name not in ambiguous}
    if not usable:
        raise ValueError("no usable key in the set")
    return usable


def _verification_key(jwk: Mapping[str, Any]) -> VerificationKey | None:
    operations = jwk.get("key_ops", ["verify"])  # RFC 7517 4.3
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(jwk.get("kty")))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or not isinstance(jwk.get("kid"), str):
        return None
    try:
        if algorithm == "RS256":
            return _rsa(jwk)
        return _p256(jwk)
    except ValueError:
        return None


def _rsa(jwk: Mapping[str, Any]) -> VerificationKey | None:
    modulus, exponent = _number(jwk, "n"), _number(jwk, "e")
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS or exponent > MAX_EXPONENT:
        return None
    return VerificationKey(algorithm="RS256", public=RSAPublicNumbers(exponent, modulus).public_key())


def _p256(jwk: Mapping[str, Any]) -> VerificationKey | None:
    if jwk.get("crv") != "P-256":
        return None
    numbers = EllipticCurvePublicNumbers(_number(jwk, "x"), _number(jwk, "y"), SECP256R1())
    return VerificationKey(algorithm="ES256", public=numbers.public_key())  # refuses a point off the curve


def _number(jwk: Mapping[str, Any], name: str) -> int:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is missing")  # noqa: TRY004 -- one kind of error for every unusable key
    return int.from_bytes(base64url(value), "big")
