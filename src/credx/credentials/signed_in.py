"""Who is signed in, and which factor proofs still serve: what the vault knows besides credentials."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from credx.credentials.cache import PREFIX as CREDENTIALS
from credx.model import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from credx.credentials.store import AnyVault, Entries
    from credx.model import VerifiedClaims

IDENTITY: Final = "identity:"
SESSIONS: Final = "factor-sessions:"
GROUPS: Final = "factor-groups:"

_NAMES: Final = ("email", "preferred_username", "name")  # claims that people recognise


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A kept ID token. It was verified when it came in, and the vault's file is authenticated since."""

    id_token: Secret
    refresh_token: Secret | None
    issuer: str
    subject: str
    user: str
    issued_at: int
    expires_at: int
    auth_time: int | None = None


class SignedIn:
    """The vault's entries for one identity provider and one broker."""

    def __init__(self, vault: AnyVault, *, issuer: str, client_id: str, broker: str) -> None:
        self._vault = vault
        # the broker too: an ID token that was given for one is not sent to another without a new sign-in
        self._name = IDENTITY + json.dumps([issuer, client_id, broker])
        self._sessions = SESSIONS + broker
        self._groups = GROUPS + broker

    def identity(self) -> Identity | None:
        value = self._vault.get(self._name)
        if value is None:
            return None
        refresh = value["refresh_token"]
        secrets = {
            "id_token": Secret(value["id_token"]),
            "refresh_token": None if refresh is None else Secret(refresh),
        }
        return Identity(**value | secrets)

    def still(self, id_token: Secret | None) -> Callable[[Entries], bool]:
        """Whether that sign-in is the kept one still. Somebody may have signed out while another command worked:
        what it was given must not come back. None is a token that is not kept in the first place.
        """
        if id_token is None:
            return lambda _: True
        return lambda entries: entries.get(self._name, {}).get("id_token") == id_token.reveal()

    def keep(
        self,
        id_token: Secret,
        refresh_token: Secret | None,
        claims: VerifiedClaims,
        *,
        renews: Identity | None = None,
    ) -> None:
        """Keep a sign-in. What another person left behind goes: their credentials are not this one's.

        With ``renews`` it is kept in that one's place only.
        """
        shown = next((claims.claims[n] for n in _NAMES if claims.claims.get(n)), claims.subject)
        value = {
            "id_token": id_token.reveal(),
            "refresh_token": None if refresh_token is None else refresh_token.reveal(),
            "issuer": claims.issuer,
            "subject": claims.subject,
            "user": str(shown),
            "issued_at": claims.issued_at,
            "expires_at": claims.expires_at,
            "auth_time": claims.auth_time,
        }

        def change(entries: Entries) -> None:
            if renews is not None and not self.still(renews.id_token)(entries):
                return
            before = entries.get(self._name)
            if before is None or before["subject"] != claims.subject:
                for name in [n for n in entries if n.startswith((CREDENTIALS, SESSIONS))]:
                    del entries[name]
            entries[self._name] = value

        self._vault.update(change)

    def groups(self) -> dict[str, str] | None:
        """The factor group of each role, as far as the broker has told."""
        return self._vault.get(self._groups)

    def keep_groups(self, groups: dict[str, str]) -> None:
        def change(entries: Entries) -> None:
            entries.setdefault(self._groups, {}).update(groups)

        self._vault.update(change)

    def factor_sessions(self, now: float) -> dict[str, Secret]:
        """What still serves, by factor group."""
        found: dict[str, dict[str, Any]] = self._vault.get(self._sessions) or {}
        return {group: Secret(one["session"]) for group, one in found.items() if one["expires_at"] > now}

    def keep_factor_session(
        self,
        group: str,
        session: Secret,
        expires_at: float,
        *,
        still: Callable[[Entries], bool] = lambda _: True,
    ) -> None:
        def change(entries: Entries) -> None:
            if not still(entries):
                return
            sessions = entries.setdefault(self._sessions, {})
            sessions[group] = {"session": session.reveal(), "expires_at": expires_at}

        self._vault.update(change)
