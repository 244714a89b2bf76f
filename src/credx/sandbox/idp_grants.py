"""The OAuth rules of the sandbox's identity provider, on authlib's provider framework.

One public client, authorization code with PKCE S256, refresh tokens that rotate, revocation. Codes and
tokens live in memory. A code or refresh token that comes a second time ends everything that grew from it
(RFC 6749 4.1.2, RFC 9700 4.14.2).
"""

from __future__ import annotations

import re
import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, InvalidGrantError, InvalidRequestError, OAuth2Error
from authlib.oauth2.rfc6749 import grants as rfc6749
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from credx.sandbox.idp_tokens import Person

CODE_LIFETIME: Final = 60  # seconds; RFC 6749 4.1.2 allows 10 minutes at most
SCOPES: Final = ("openid", "profile", "email", "groups", "offline_access")
# RFC 8252 7.3: any port on a loopback literal; 8.3: not localhost
LOOPBACK_REDIRECT = re.compile(r"http://(127\.0\.0\.1|\[::1\]):[0-9]{1,5}/callback")


@dataclass(frozen=True, kw_only=True)
class Client(ClientMixin):  # type: ignore[misc]  # authlib has no types
    client_id: str

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        return None

    def get_allowed_scope(self, scope: str | None) -> str:
        return " ".join(s for s in (scope or "").split() if s in SCOPES)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return LOOPBACK_REDIRECT.fullmatch(redirect_uri) is not None

    def check_endpoint_auth_method(self, method: str, _endpoint: str) -> bool:
        return method == "none"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in {"authorization_code", "refresh_token"}


@dataclass(kw_only=True)
class SignIn:
    """One sign-in of one person. Its code and all its refresh tokens die with it."""

    person: Person
    client_id: str
    scope: str
    nonce: str | None = field(repr=False)
    auth_time: int
    alive: bool = True
    used: set[str] = field(default_factory=set, repr=False)


@dataclass(frozen=True, kw_only=True)
class Handle:
    """A code or a refresh token. The last three fields belong to codes."""

    value: str = field(repr=False)
    sign_in: SignIn
    expires_at: float
    redirect_uri: str = ""
    code_challenge: str = ""
    code_challenge_method: str = "S256"

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.sign_in.scope

    def check_client(self, client: Client) -> bool:
        return client.client_id == self.sign_in.client_id


class Ledger:
    """Every code and refresh token there is."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._handles: dict[str, Handle] = {}
        self._lock = threading.Lock()

    def add(self, handle: Handle) -> None:
        with self._lock:
            self._handles[handle.value] = handle

    def find(self, value: str) -> Handle | None:
        """A handle that is good now. One that was good before ends its whole sign-in."""
        with self._lock:
            handle = self._handles.get(value)
            if handle is None or not handle.sign_in.alive or handle.expires_at <= self.now():
                return None
            if value in handle.sign_in.used:
                handle.sign_in.alive = False
                return None
            return handle

    def claim(self, handle: Handle) -> None:
        """Use it up.

        Raises:
            InvalidGrantError: another request was faster.
        """
        with self._lock:
            if not handle.sign_in.alive or handle.value in handle.sign_in.used:
                handle.sign_in.alive = False
                raise InvalidGrantError
            handle.sign_in.used.add(handle.value)

    def end(self, handle: Handle) -> None:
        with self._lock:
            handle.sign_in.alive = False


class LoginRequiredError(OAuth2Error):  # type: ignore[misc]
    error = "login_required"  # OpenID Connect Core 3.1.2.6


class S256Only(CodeChallenge):  # type: ignore[misc]
    """authlib takes a request without a challenge, and ``plain``; RFC 9700 2.1.1 wants neither."""

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        given = grant.request.payload.data
        if not given.get("code_challenge") or given.get("code_challenge_method") != "S256":
            raise InvalidRequestError("code_challenge with code_challenge_method S256 is required")
        super().validate_code_challenge(grant, redirect_uri)


class Server(AuthorizationServer):  # type: ignore[misc]
    """Grants, client and ledger wired together.

    Args:
        app: where the configuration is read from.
        client: the only one there is.
        ledger: where codes and refresh tokens are kept.
        id_token: makes the ID token of a sign-in; the flag says that it is a refreshed one.
        refresh_lifetime: in seconds.
    """

    def __init__(
        self,
        app: Flask,
        *,
        client: Client,
        ledger: Ledger,
        id_token: Callable[[SignIn, bool], str],
        refresh_lifetime: Callable[[], float],
    ) -> None:
        super().__init__(
            app,
            query_client=lambda client_id: client if client_id == client.client_id else None,
            save_token=lambda _token, _request: None,  # access tokens open nothing here
        )
        self.ledger = ledger
        self._id_token = id_token
        self._refresh_lifetime = refresh_lifetime
        self.register_grant(CodeGrant, [S256Only(required=True)])
        self.register_grant(RefreshGrant)
        self.register_endpoint(Revocation)

    def complete(self, token: dict[str, Any], sign_in: SignIn, *, refreshed: bool) -> dict[str, Any]:
        """Add what the scopes of the sign-in give: an ID token, a refresh token."""
        scopes = sign_in.scope.split()
        if "openid" in scopes:
            token["id_token"] = self._id_token(sign_in, refreshed)
        if "offline_access" in scopes:
            expires_at = self.ledger.now() + self._refresh_lifetime()
            handle = Handle(value=secrets.token_urlsafe(32), sign_in=sign_in, expires_at=expires_at)
            self.ledger.add(handle)
            token["refresh_token"] = handle.value
        return token


class CodeGrant(rfc6749.AuthorizationCodeGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def save_authorization_code(self, code: str, request: Any) -> None:
        given = request.payload.data
        sign_in = SignIn(
            person=request.user.person,
            client_id=request.client.client_id,
            scope=request.scope,
            nonce=given.get("nonce"),
            auth_time=request.user.auth_time,
        )
        handle = Handle(
            value=code,
            sign_in=sign_in,
            expires_at=self.server.ledger.now() + CODE_LIFETIME,
            redirect_uri=request.payload.redirect_uri,
            code_challenge=given["code_challenge"],
        )
        self.server.ledger.add(handle)

    def query_authorization_code(self, code: str, client: Client) -> Handle | None:
        handle: Handle | None = self.server.ledger.find(code)
        return handle if handle is not None and handle.redirect_uri and handle.check_client(client) else None

    def authenticate_user(self, code: Handle) -> Person:
        return code.sign_in.person

    def delete_authorization_code(self, _code: Handle) -> None:
        """``create_token_response`` has claimed it before anything was made."""

    def create_token_response(self) -> Any:
        handle: Handle = self.request.authorization_code
        self.server.ledger.claim(handle)
        status, token, headers = super().create_token_response()
        return status, self.server.complete(token, handle.sign_in, refreshed=False), headers


class RefreshGrant(rfc6749.RefreshTokenGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def authenticate_refresh_token(self, value: str) -> Handle | None:
        handle: Handle | None = self.server.ledger.find(value)
        return handle if handle is not None and not handle.redirect_uri else None

    def authenticate_user(self, handle: Handle) -> Person:
        return handle.sign_in.person

    def revoke_old_credential(self, _handle: Handle) -> None:
        """``create_token_response`` has claimed it before anything was made."""

    def create_token_response(self) -> Any:
        handle: Handle = self.request.refresh_token
        self.server.ledger.claim(handle)
        status, token, headers = super().create_token_response()
        return status, self.server.complete(token, handle.sign_in, refreshed=True), headers


class Revocation(RevocationEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = ("none",)

    def query_token(self, value: str, _hint: str | None) -> Handle | None:
        found: Handle | None = self.server.ledger.find(value)
        return found

    def revoke_token(self, handle: Handle, _request: Any) -> None:
        self.server.ledger.end(handle)
