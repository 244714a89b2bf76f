"""What verifying rests on: which issuers, which keys, which error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from credx.errors import ConfigError, SignInError
from credx.urls import permitted_url

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

CLOCK_LEEWAY: Final = 60  # seconds; "usually no more than a few minutes", RFC 7519 4.1.4
ALGORITHMS: Final = ("RS256", "ES256")  # never HS* (a public key is no secret), never none


class TokenError(SignInError):
    """A token that is not accepted. Neither message nor hint ever holds a part of the token.

    Args:
        reason: a stable slug: ``too-large``, ``malformed``, ``header``, ``algorithm``, ``unknown-issuer``,
            ``unknown-key``, ``bad-signature``, ``wrong-audience``, ``expired``, ``not-yet-valid``,
            ``too-old``, ``claims``, ``nonce``.
    """

    def __init__(self, reason: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class TrustedIssuer:
    """One identity provider whose ID tokens are accepted.

    Attributes:
        issuer: compared as a string, never as a pattern.
        audience: our client id there; the only accepted ``aud``.
        algorithms: of ``ALGORITHMS``.
        jwks_uri: where its keys are, pinned; needed only when they are not on the issuer's own origin.

    Raises:
        ConfigError: a URL that is neither https nor loopback, no audience, or an algorithm not known.
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ALGORITHMS
    jwks_uri: str | None = None

    def __post_init__(self) -> None:
        if not permitted_url(self.issuer) or "?" in self.issuer:  # OpenID Connect Core 2, "iss"
            raise ConfigError("the issuer of an identity provider must be an https URL without a query")
        if self.jwks_uri is not None and not permitted_url(self.jwks_uri):
            raise ConfigError("the jwks_uri of an identity provider must be an https URL")
        if not self.audience:
            raise ConfigError("an identity provider needs a client_id")
        if not self.algorithms or not set(self.algorithms) <= set(ALGORITHMS):
            raise ConfigError(f"the algorithms of an identity provider can be {' and '.join(ALGORITHMS)}")


@dataclass(frozen=True, kw_only=True)
class VerificationKey:
    """A public key and the one algorithm that it verifies. Made by ``jose.jwk`` alone."""

    algorithm: str
    public: RSAPublicKey | EllipticCurvePublicKey


class KeySource(Protocol):
    def key(self, issuer: TrustedIssuer, kid: str, algorithm: str, *, now: float) -> VerificationKey:
        """The key that a configured issuer publishes under ``kid`` for ``algorithm``.

        Raises:
            TokenError: ``unknown-key``.
            UnavailableError: the issuer's keys cannot be known at the moment.
        """


class Signer(Protocol):
    """RSASSA-PKCS1-v1_5 with SHA-256 (RS256), wherever the private key may be."""

    @property
    def kid(self) -> str:
        """The RFC 7638 thumbprint of the public key."""

    def public_jwk(self) -> dict[str, str]:
        """As ``rsa_public_jwk``."""

    def sign(self, message: bytes) -> bytes: ...
