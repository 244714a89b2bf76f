"""Step 2 of the story: who the person is, with as little asking as possible."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, TypeVar

from credx.credentials.store import NOT_KEPT
from credx.errors import SignInError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

    from credx.config import Settings
    from credx.credentials.signed_in import Identity, SignedIn
    from credx.credentials.store import AnyVault
    from credx.http import Http
    from credx.identity.code_flow import TokenSet
    from credx.identity.discovery import Provider
    from credx.jose import RemoteKeys
    from credx.model import Secret, VerifiedClaims
    from credx.ui import UI

T = TypeVar("T")

RENEW_AGE: Final = 3540  # seconds since iat; brokers take 1 h by default (design, step 1), less a minute
LEFT: Final = 60  # seconds before exp; the way to the broker, and clocks


class Person:
    """Gives ID tokens; renews them silently where it can. Arguments as for ``Flow``."""

    def __init__(
        self,
        *,
        settings: Settings,
        kept: SignedIn,
        vault: AnyVault,
        http: Http,
        ui: UI,
        open_browser: Callable[[str], bool] | None,
        may_ask: bool,
        now: Callable[[], float],
        rng: Callable[[int], bytes],
        environ: Mapping[str, str],
        stdin: TextIO | None,
    ) -> None:
        self._settings, self._kept, self._vault, self._http, self._ui = settings, kept, vault, http, ui
        self._open_browser, self._may_ask = open_browser, may_ask
        self._now, self._rng, self._environ, self._stdin = now, rng, environ, stdin
        self._from_stdin: Secret | None = None

    def do(self, work: Callable[[Secret], T], *, person: bool = True) -> T:
        """Do ``work`` with an ID token. When the broker does not take it: once renewed, once signed in anew.

        Args:
            work: raises ``SignInError`` for a token that is too old or too weak (RFC 9470).
            person: False never asks anybody.
        """
        token = self.token(person=person)
        try:
            return work(token)
        except SignInError as exc:
            if self._settings.token_source is not None:
                raise
            refused = exc
        with self._vault.turn():
            renewed = self._renewed(self._kept.identity())
            if renewed is not None:
                try:
                    return work(renewed.id_token)
                except SignInError as exc:
                    refused = exc
            if not self._may_browse(person):  # the broker's reason says more, a wrong clock among them
                raise SignInError(f"{refused.message}; {self._would_ask()}", hint=refused.hint) from refused
            return work(self._browser(allowed=True).id_token)

    def token(self, *, person: bool) -> Secret:
        """An ID token that the broker should take; the broker has the last word on its age."""
        if self._settings.token_source is not None:
            return self._given()
        kept = self._kept.identity()
        if kept is not None and self._fresh(kept):
            return kept.id_token
        with self._vault.turn():
            kept = self._kept.identity()
            if kept is not None and self._fresh(kept):
                return kept.id_token
            renewed = self._renewed(kept)
            if renewed is not None:
                return renewed.id_token
            if kept is not None and self._alive(kept):
                return kept.id_token
            return self._browser(allowed=self._may_browse(person)).id_token

    def sign_in(self, *, force: bool) -> VerifiedClaims:
        """As ``Flow.sign_in``."""
        if self._settings.token_source is not None:
            token = self._given()
            claims = self._verified(token)
            self._keep(token, None, claims)
            return claims
        with self._vault.turn():
            kept = None if force else self._kept.identity()
            if kept is not None and self._fresh(kept):
                return self._verified(kept.id_token)
            return (self._renewed(kept) or self._browser(allowed=True)).claims

    def revoke(self) -> None:
        """End the sign-in at the identity provider, as far as it holds one for us (RFC 7009).

        Raises:
            UnavailableError: it could not be asked, or said no.
        """
        kept = self._kept.identity()
        if kept is None or kept.refresh_token is None:
            return
        from credx.identity import code_flow  # noqa: PLC0415

        if not code_flow.revoke(self._provider, self._settings.client_id, kept.refresh_token, self._http):
            raise UnavailableError("the refresh token could not be revoked")

    def _fresh(self, kept: Identity) -> bool:
        return self._alive(kept) and self._now() - kept.issued_at < RENEW_AGE

    def _alive(self, kept: Identity) -> bool:
        return kept.expires_at - self._now() > LEFT

    def _renewed(self, kept: Identity | None) -> TokenSet | None:
        """New tokens without asking anybody, or None where there is no way."""
        if kept is None or kept.refresh_token is None:
            return None
        from credx.identity import code_flow  # noqa: PLC0415

        try:
            tokens = code_flow.refresh(
                self._provider,
                self._settings.client_id,
                kept.refresh_token,
                self._http,
                self._keys,
                self._now(),
            )
        except SignInError:  # expired or revoked
            return None
        except UnavailableError:
            if self._alive(kept):
                return None
            raise
        if not _continues(tokens.claims, kept):
            return None
        # a provider that does not rotate sends no new refresh token (RFC 6749 6)
        refresh_token = tokens.refresh_token or kept.refresh_token
        self._keep(tokens.id_token, refresh_token, tokens.claims, renews=kept)
        return tokens

    def _may_browse(self, person: bool) -> bool:
        return person and self._may_ask and self._open_browser is not None

    def _would_ask(self) -> str:
        return f"would have asked you to sign in at {self._settings.issuer}"

    def _browser(self, *, allowed: bool) -> TokenSet:
        if self._open_browser is None or not allowed:
            raise SignInError(self._would_ask(), hint="credx login")
        from credx.identity import code_flow  # noqa: PLC0415

        tokens = code_flow.sign_in(
            self._provider,
            client_id=self._settings.client_id,
            scopes=self._settings.id_scopes,
            http=self._http,
            keys=self._keys,
            ui=self._ui,
            open_browser=self._open_browser,
            now=self._now,
            rng=self._rng,
            deadline=self._ui.patience(code_flow.DEADLINE),
        )
        self._keep(tokens.id_token, tokens.refresh_token, tokens.claims)
        return tokens

    def _keep(
        self,
        id_token: Secret,
        refresh_token: Secret | None,
        claims: VerifiedClaims,
        renews: Identity | None = None,
    ) -> None:
        try:
            self._kept.keep(id_token, refresh_token, claims, renews=renews)
        except NOT_KEPT as exc:  # the sign-in is good even where it cannot be kept
            self._ui.note(f"the sign-in is not kept, because {exc.message}")

    def _given(self) -> Secret:
        """The token of ``token_source``. A file may be renewed by its owner; stdin can be read but once."""
        if self._from_stdin is not None:
            return self._from_stdin
        from credx.identity import ambient  # noqa: PLC0415

        source = self._settings.token_source or ""
        token = ambient.read_token(source, environ=self._environ, stdin=self._stdin)
        self._from_stdin = token if source == "stdin" else None
        return token

    @functools.cached_property
    def _provider(self) -> Provider:
        from credx.identity.discovery import discover  # noqa: PLC0415

        return discover(self._settings.issuer, self._http)

    @functools.cached_property
    def _keys(self) -> RemoteKeys:
        from credx.jose import RemoteKeys  # noqa: PLC0415

        return RemoteKeys(self._http.fetch)

    def _verified(self, token: Secret) -> VerifiedClaims:
        from credx.identity.code_flow import trusted as trusted_issuer  # noqa: PLC0415
        from credx.jose import verify_id_token  # noqa: PLC0415

        trusted = trusted_issuer(self._provider, self._settings.client_id)
        return verify_id_token(
            token, issuers={trusted.issuer: trusted}, keys=self._keys, now=self._now(), max_age=None
        )


def _continues(claims: VerifiedClaims, kept: Identity) -> bool:
    """OpenID Connect Core 12.2: of the same issuer (which was verified) and person, from the same authentication."""
    times = {claims.auth_time, kept.auth_time} - {None}
    return claims.subject == kept.subject and len(times) <= 1
