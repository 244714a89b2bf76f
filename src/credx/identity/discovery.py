"""Where the identity provider is, in its own words (OpenID Connect Discovery 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from credx.errors import SignInError
from credx.strict import json_object
from credx.urls import permitted_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.http import Http

PATH: Final = "/.well-known/openid-configuration"
_HINT: Final = "compare the issuer in `credx init` with the identity provider's own"


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Attributes:
    issuer: as configured, and as the provider calls itself.
    authorization_endpoint, token_endpoint, jwks_uri: https, or http on loopback.
    revocation_endpoint: of RFC 7009, or None.
    iss_parameter_supported: every answer to an authorization request names its issuer (RFC 9207 3).
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    revocation_endpoint: str | None = None
    iss_parameter_supported: bool = False


def discover(issuer: str, http: Http) -> Provider:
    """Fetch and check the provider's description.

    Raises:
        SignInError: it names another issuer, lacks an endpoint, or has PKCE without S256.
        UnavailableError: it cannot be fetched.
    """
    try:
        # Discovery 4.1: a final slash of the issuer is not doubled; 4.3: compared with it nevertheless
        document = json_object(http.fetch(issuer.removesuffix("/") + PATH))
    except ValueError as exc:
        raise SignInError("the identity provider's description is not JSON", hint=_HINT) from exc
    if document.get("issuer") != issuer:
        raise SignInError("the identity provider calls itself by another name", hint=_HINT)
    methods = document.get("code_challenge_methods_supported", ["S256"])  # RFC 8414 2
    if not isinstance(methods, list) or "S256" not in methods:
        raise SignInError("the identity provider does not support PKCE with S256")
    revocation = document.get("revocation_endpoint")
    return Provider(
        issuer=issuer,
        authorization_endpoint=_endpoint(document, "authorization_endpoint"),
        token_endpoint=_endpoint(document, "token_endpoint"),
        jwks_uri=_endpoint(document, "jwks_uri"),
        revocation_endpoint=None if revocation is None else _endpoint(document, "revocation_endpoint"),
        iss_parameter_supported=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _endpoint(document: Mapping[str, Any], name: str) -> str:
    url = document.get(name)
    plain = str(document["issuer"]).startswith("http:")  # only a provider on this machine has endpoints on it
    if not isinstance(url, str) or not permitted_url(url) or (url.startswith("http:") and not plain):
        raise SignInError(f"the identity provider's {name} is missing or not https", hint=_HINT)
    return url
