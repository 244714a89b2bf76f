"""Authorization code with PKCE (RFC 6749 4.1, RFC 7636, RFC 8252), without any I/O.

What a callback must show before its code is used: the ``state`` of this very attempt, and the ``iss`` of the
provider that was asked (RFC 9207). The code itself is bound by ``code_verifier``, the ID token by ``nonce``.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from credx.errors import SignInError
from credx.model import Secret
from credx.strict import to_base64url
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from credx.identity.discovery import Provider

ENTROPY: Final = 32  # bytes for each of state, nonce and verifier (RFC 7636 7.1: 256 bits)
MAX_CODE: Final = 4096  # characters; the longest known codes have about 2000
_SHOWN: Final = 200  # characters of a provider's own words
# Errors of RFC 6749 4.1.2.1 and 5.2 that no new sign-in heals
_SETTINGS: Final = frozenset(
    {
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
        "invalid_scope",
    }
)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One sign-in: its unguessable values, and where the answer is awaited."""

    redirect_uri: str
    state: Secret
    nonce: Secret
    verifier: Secret


def begin(redirect_uri: str, rng: Callable[[int], bytes]) -> Attempt:
    return Attempt(
        redirect_uri=redirect_uri,
        state=Secret(to_base64url(rng(ENTROPY))),
        nonce=Secret(to_base64url(rng(ENTROPY))),
        verifier=Secret(to_base64url(rng(ENTROPY))),  # 43 characters, RFC 7636 4.1
    )


def challenge(verifier: Secret) -> str:
    """S256 of RFC 7636 4.2."""
    return to_base64url(hashlib.sha256(verifier.reveal().encode("ascii")).digest())


def authorization_url(provider: Provider, attempt: Attempt, *, client_id: str, scopes: Sequence[str]) -> str:
    """Where the browser goes. Verifier and code are not in it: whoever reads it can redeem nothing."""
    query = urlencode(
        {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": attempt.redirect_uri,
            "scope": " ".join(dict.fromkeys(["openid", *scopes])),  # without openid there is no ID token
            "state": attempt.state.reveal(),
            "nonce": attempt.nonce.reveal(),
            "code_challenge": challenge(attempt.verifier),
            "code_challenge_method": "S256",
        }
    )
    endpoint = provider.authorization_endpoint
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"


def judge(provider: Provider, attempt: Attempt, parameters: Mapping[str, str]) -> Secret | None:
    """What a callback brings: the code, or None when it is not about this attempt.

    Raises:
        SignInError: it is about this attempt, and the sign-in has failed.
    """
    if not hmac.compare_digest(
        parameters.get("state", "").encode("utf-8", "replace"), attempt.state.reveal().encode("ascii")
    ):
        return None
    issuer = parameters.get("iss")
    if (issuer is None and provider.iss_parameter_supported) or issuer not in (None, provider.issuer):
        raise SignInError(
            "the answer comes from another identity provider", hint="credx login"
        )  # RFC 9207 2.4
    if "error" in parameters:
        raise refused(parameters)
    code = parameters.get("code", "")
    if not 1 <= len(code) <= MAX_CODE or not (code.isascii() and code.isprintable()):
        raise SignInError("the identity provider sent no usable code", hint="credx login")
    return Secret(code)


def redemption(attempt: Attempt, code: Secret, *, client_id: str) -> dict[str, str]:
    """The token request (RFC 6749 4.1.3, RFC 7636 4.5)."""
    return {
        "grant_type": "authorization_code",
        "code": code.reveal(),
        "redirect_uri": attempt.redirect_uri,
        "client_id": client_id,
        "code_verifier": attempt.verifier.reveal(),
    }


def refused(answer: Mapping[str, Any], secrets: Sequence[str] = ()) -> SignInError:
    """The error for a no of the provider, in its own words where they repeat none of ``secrets``."""
    said = [answer.get("error_description"), answer.get("error")]
    usable = [t for t in said if isinstance(t, str) and t.strip() and not any(s in t for s in secrets)]
    reason = clean(usable[0], _SHOWN) if usable else "it gave no reason"
    ours = answer.get("error") in _SETTINGS
    hint = "the client at the identity provider must be public: credx init URL" if ours else "credx login"
    return SignInError(f"the identity provider refused: {reason}", hint=hint)
