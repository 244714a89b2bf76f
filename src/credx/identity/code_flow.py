"""Signing in with a browser, renewing without one, and giving up what was given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from credx.errors import SignInError, UnavailableError
from credx.identity import loopback, pkce
from credx.jose import TokenError, TrustedIssuer, verify_id_token
from credx.model import Secret
from credx.strict import json_object
from credx.ui import clock_apart
from credx.urls import origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from credx.http import Http, Response
    from credx.identity.discovery import Provider
    from credx.jose import KeySource
    from credx.model import VerifiedClaims
    from credx.ui import UI

DEADLINE: Final = 180  # seconds for a person with a password manager and a phone
MAX_TOKENS: Final = 128 * 1024  # bytes of a token response; three tokens of 16 KiB and their dress fit
_SECRETS: Final = ("code", "code_verifier", "refresh_token")  # of a token request; a provider may quote them


@dataclass(frozen=True, kw_only=True)
class TokenSet:
    """``refresh_token`` is None where the provider gave none; the access token is not kept at all."""

    id_token: Secret
    refresh_token: Secret | None
    claims: VerifiedClaims


@dataclass(frozen=True)
class _Answer:
    tokens: Mapping[str, Any] = field(repr=False)
    response: Response


def sign_in(
    provider: Provider,
    *,
    client_id: str,
    scopes: Sequence[str],
    http: Http,
    keys: KeySource,
    ui: UI,
    open_browser: Callable[[str], bool],
    now: Callable[[], float],
    rng: Callable[[int], bytes],
    deadline: float = DEADLINE,
) -> TokenSet:
    """Authorization code with PKCE over a loopback callback.

    Args:
        provider: from ``discover``.
        client_id: of a public client (RFC 8252 8.4).
        scopes: ``openid`` is added where it is missing.
        http: for the token endpoint.
        keys: the provider's.
        ui: told what happens, or the address where no browser opens.
        open_browser: False where there is none.
        now: seconds since 1970.
        rng: that many random bytes.
        deadline: seconds that a person has.

    Raises:
        SignInError: refused, out of time, or an ID token that is not accepted (``TokenError``).
        UnavailableError: the provider cannot be reached.
    """
    with loopback.Listener() as listener:
        attempt = pkce.begin(listener.redirect_uri, rng)
        listener.start(lambda parameters: pkce.judge(provider, attempt, parameters))
        url = pkce.authorization_url(provider, attempt, client_id=client_id, scopes=scopes)
        if open_browser(url):
            ui.note(
                f"sign in at {origin(provider.authorization_endpoint)} in the browser window that has opened"
            )
        else:
            ui.note(f"open this address in a browser on this machine to sign in: {url}")
        code = listener.wait(deadline)
    answer = _ask(http, provider.token_endpoint, pkce.redemption(attempt, code, client_id=client_id))
    return _token_set(answer, provider, client_id, keys, now(), nonce=attempt.nonce.reveal())


def refresh(  # noqa: PLR0917 -- what flow hands over, in its order
    provider: Provider,
    client_id: str,
    refresh_token: Secret,
    http: Http,
    keys: KeySource,
    now: float,
    *,
    subject: str | None = None,
) -> TokenSet:
    """Renew without a person (OpenID Connect Core 12). The given refresh token stays where none comes back.

    Args:
        provider: the one that gave the token.
        client_id: as when signing in.
        refresh_token: the latest; providers that rotate revoke all when an old one comes back.
        http: for the token endpoint.
        keys: the provider's.
        now: seconds since 1970.
        subject: whose token it must be; a caller that gives None compares by itself.

    Raises:
        SignInError: refused, no ID token, or another person's.
        UnavailableError: the provider cannot be reached.
    """
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token.reveal(), "client_id": client_id}
    tokens = _token_set(_ask(http, provider.token_endpoint, form), provider, client_id, keys, now, nonce=None)
    if subject is not None and tokens.claims.subject != subject:  # OpenID Connect Core 12.2
        raise SignInError("the identity provider renewed another person's sign-in", hint="credx login")
    if tokens.refresh_token is None:  # RFC 6749 6
        return TokenSet(id_token=tokens.id_token, refresh_token=refresh_token, claims=tokens.claims)
    return tokens


def revoke(provider: Provider, client_id: str, token: Secret, http: Http) -> bool:
    """Revoke a refresh token (RFC 7009). False where it cannot be, or could not be, revoked."""
    if provider.revocation_endpoint is None:
        return False
    form = {"token": token.reveal(), "token_type_hint": "refresh_token", "client_id": client_id}
    try:
        return _post(http, provider.revocation_endpoint, form).status == 200  # RFC 7009 2.2
    except UnavailableError:
        return False


def trusted(provider: Provider, client_id: str) -> TrustedIssuer:
    """The provider as a verifier sees it. Its keys may be anywhere that it names: over TLS, and under its
    own name, it has just said so (the broker, which strangers can call, is stricter by default).
    """
    return TrustedIssuer(issuer=provider.issuer, audience=client_id, jwks_uri=provider.jwks_uri)


def _token_set(
    answer: _Answer,
    provider: Provider,
    client_id: str,
    keys: KeySource,
    now: float,
    *,
    nonce: str | None,
) -> TokenSet:
    id_token, refresh_token = answer.tokens.get("id_token"), answer.tokens.get("refresh_token")
    if not isinstance(id_token, str):
        raise SignInError(
            "the identity provider sent no ID token", hint="the client there must allow the scope openid"
        )
    if refresh_token is not None and (not isinstance(refresh_token, str) or not refresh_token):
        raise SignInError("the identity provider sent a refresh token of another form")
    secret = Secret(id_token)
    try:
        claims = verify_id_token(
            secret,
            issuers={provider.issuer: trusted(provider, client_id)},
            keys=keys,
            now=now,
            max_age=None,
            nonce=nonce,
        )
    except TokenError as exc:
        skew = clock_apart(answer.response.ahead(now), "the identity provider's")
        if exc.reason not in {"expired", "not-yet-valid"} or not skew:
            raise
        raise TokenError(
            exc.reason, f"{exc.message}: {skew}", hint="set the clock, then: credx login"
        ) from exc
    return TokenSet(
        id_token=secret,
        refresh_token=None if refresh_token is None else Secret(refresh_token),
        claims=claims,
    )


def _ask(http: Http, url: str, form: Mapping[str, str]) -> _Answer:
    response = _post(http, url, form)
    try:
        answer = json_object(response.body)
    except ValueError:
        answer = {}
    if response.status == 200 and answer:
        return _Answer(answer, response)
    busy = response.status >= 500 or response.status == 429
    if isinstance(answer.get("error"), str) and not busy:  # RFC 6749 5.2
        raise pkce.refused(answer, [form[name] for name in _SECRETS if name in form])
    raise UnavailableError(f"{origin(url)} answered with status {response.status} and no tokens")


def _post(http: Http, url: str, form: Mapping[str, str]) -> Response:
    headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
    return http.request("POST", url, headers=headers, body=urlencode(form).encode("ascii"), cap=MAX_TOKENS)
