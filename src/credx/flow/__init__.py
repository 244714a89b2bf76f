"""THE client story: from an ask to credentials.

``Flow.credentials`` goes through these steps; the numbers stand in the code too:

1. cache      Credentials that the same ask got earlier, while enough of their life is left.
2. identity   The ID token: the kept one, one renewed with the refresh token, or a sign-in (``person``).
3. challenge  Ask the broker. It decides first, so a no costs no touch. A proof from before that still serves
              goes along, and the answer is the token at once.
4. factor     Otherwise the broker says which factors would do. Prove one, and ask again with the proof.
5. exchange   Trade the web-identity token at STS, or take the credentials that the broker got there.
6. keep       Save the credentials and the factor session. The web-identity token is never kept.

One process of a user is in steps 2 to 6 at a time; the others wait, and find the result in step 1.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from credx.credentials import cache
from credx.credentials.signed_in import SignedIn
from credx.credentials.store import NOT_KEPT
from credx.errors import CredxError, FactorError
from credx.factors.prove import Prover
from credx.flow.answers import credentials_of, described, tell_skew
from credx.flow.person import Person
from credx.flow.proving import Proving
from credx.protocol import FactorSessionProof, Issued, StepUp, TokenRequest
from credx.urls import origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

    from credx.broker_client import BrokerClient
    from credx.config import Settings
    from credx.credentials.store import AnyVault
    from credx.factors import Devices, TotpCode
    from credx.http import Http
    from credx.model import AwsCredentials, Secret, VerifiedClaims
    from credx.protocol import Ask, Proof
    from credx.ui import UI

HAND_OVER: Final = 5  # seconds; ``min_left`` still holds when the caller has written the credentials out


class Flow:
    """One person at one broker.

    A ceremony (browser, touch, typed code) starts only with ``ui.interactive``, or with the setting
    ``prompt = "touch"``, which is for programs without a terminal; for ``--no-input`` and ``CI=true`` the caller
    sets it to ``auto``. What needs no person always serves: refresh token, factor session, ``totp_code`` hook.

    Args:
        open_browser: shows a URL to the person; None when nobody may be asked to sign in.
        rng: that many random bytes. now: seconds since 1970.
        stdin: read only for ``token_source = "stdin"``, once.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        vault: AnyVault,
        http: Http,
        ui: UI,
        devices: Devices,
        totp_code: TotpCode | None = None,
        open_browser: Callable[[str], bool] | None,
        now: Callable[[], float],
        rng: Callable[[int], bytes],
        environ: Mapping[str, str],
        stdin: TextIO | None,
    ) -> None:
        self._settings, self._vault, self._http, self._ui, self._now = settings, vault, http, ui, now
        # another source of identity may be another person: no credentials in common
        self._cache_of = settings.broker + (f" {settings.token_source}" if settings.token_source else "")
        self._unattended = totp_code is not None or settings.token_source is not None
        self._kept = SignedIn(
            vault, issuer=settings.issuer, client_id=settings.client_id, broker=self._cache_of
        )
        may_ask = ui.interactive or settings.prompt == "touch"
        self._person = Person(
            settings=settings, kept=self._kept, vault=vault, http=http, ui=ui, open_browser=open_browser,
            may_ask=may_ask, now=now, rng=rng, environ=environ, stdin=stdin,
        )  # fmt: skip
        prover = Prover(
            ui=ui, devices=devices, totp_code=totp_code, origin=origin(settings.broker), may_touch=may_ask
        )
        self._proving = Proving(lambda: self._client, prover, ui)

    @functools.cached_property
    def _client(self) -> BrokerClient:
        from credx.broker_client import BrokerClient  # noqa: PLC0415 -- a cached answer never needs it

        return BrokerClient(self._settings.broker, self._http, now=self._now)

    def credentials(self, ask: Ask, *, min_left: int = 300, use_cache: bool = True) -> AwsCredentials:
        """Credentials for ``ask`` with at least ``min_left`` seconds left where the role's duration allows.

        Those that live on but are due for renewal are renewed only where that asks nobody for anything, and
        are served when it fails. Raises the ``CredxError`` of the step that failed.
        """
        name = cache.cache_name(self._cache_of, ask)
        kept = self._cached(name, min_left) if use_cache else None  # 1
        if kept and (self._now() < kept.renew_at or not self._quietly(ask)):
            return kept.creds
        with self._vault.turn(wait=kept is None) as mine:
            again = self._cached(name, min_left) if use_cache else None
            if again and (not mine or self._now() < again.renew_at):
                return again.creds
            if again is None:
                return self._issue(ask, name, person=True)
            try:
                return self._issue(ask, name, person=False)
            except CredxError:
                return again.creds

    def _cached(self, name: str, min_left: int) -> cache.Kept | None:
        kept = cache.load(self._vault, name)
        return kept if kept and cache.usable(kept.creds, self._now(), min_left + HAND_OVER) else None

    def _quietly(self, ask: Ask) -> bool:
        """Whether an issuance has a chance without anybody's help."""
        group = (self._kept.groups() or {}).get(ask.role)
        return self._unattended or group in self._kept.factor_sessions(self._now())

    def _issue(self, ask: Ask, name: str, *, person: bool) -> AwsCredentials:
        token, issued = self._person.do(lambda t: self._granted(t, ask, person=person), person=person)  # 2
        creds = credentials_of(issued, self._settings)  # 5
        tell_skew(issued, creds, self._now(), self._ui)
        still = self._kept.still(None if self._settings.token_source else token)
        self._keep(lambda: cache.save(self._vault, name, creds, now=self._now(), still=still))  # 6
        if issued.factor_session and issued.factor_group and issued.factor_session_expires_in:
            group, session = issued.factor_group, issued.factor_session
            until = self._now() + issued.factor_session_expires_in
            self._keep(lambda: self._kept.keep_groups({ask.role: group}))
            self._keep(lambda: self._kept.keep_factor_session(group, session, until, still=still))
        return creds

    def _granted(self, token: Secret, ask: Ask, *, person: bool) -> tuple[Secret, Issued]:
        def request(proof: Proof | None) -> Issued | StepUp:
            return self._client.token(TokenRequest(subject_token=token, ask=ask, proof=proof))

        session = self._factor_session(ask.role, token)  # 3
        try:
            answer = request(FactorSessionProof(factor_session=session) if session else None)
        except FactorError:
            if session is None:
                raise
            answer = request(None)  # it has ended, or this role wants a proof of its own
        return token, self._proving.proven(token, described(ask), request, answer, person=person)  # 4

    def _factor_session(self, role: str, token: Secret) -> Secret | None:
        sessions = self._kept.factor_sessions(self._now())
        if not sessions:
            return None
        group = (self._kept.groups() or {}).get(role)
        if group is None:  # the role may share a group with one that was proven for
            group = self._learn_groups(self._client.roles(token)).get(role)
        return sessions.get(group) if group else None

    def sign_in(self, *, force: bool = False) -> VerifiedClaims:
        """Sign in now, in the browser if need be or with ``force``. An explicit wish: needs no terminal."""
        return self._person.sign_in(force=force)

    def id_token(self) -> Secret:
        return self._person.token(person=True)

    def status(self) -> dict[str, Any]:
        """Who is signed in and what is cached; asks nobody. Times in seconds.

        ``{"signed_in": {"issuer", "subject", "user", "expires_at", "renewable"} | None, "persistent": bool,
        "credentials": [{"role", "role_arn", "operation", "scopes", "resources", "expires_in"}]}``
        """
        me = self._kept.identity()
        shown = None if me is None else {
            "issuer": me.issuer,
            "subject": me.subject,
            "user": me.user,
            "expires_at": me.expires_at,
            "renewable": me.refresh_token is not None,
        }  # fmt: skip
        listing = cache.listing(self._vault, self._cache_of, now=self._now())
        return {"signed_in": shown, "persistent": self._vault.persistent, "credentials": listing}

    def log_out(self) -> list[str]:
        """Forget everything here, whatever happens elsewhere. Answers what could not be ended, one line each."""
        left: list[str] = []

        def end(what: str, how: Callable[[], object]) -> None:
            try:
                how()
            except CredxError as exc:
                left.append(f"{what}: {exc.message}")

        try:
            if self._kept.factor_sessions(self._now()):
                end(
                    "factor sessions at the broker",
                    lambda: self._client.end_factor_sessions(self._person.token(person=False)),
                )
            end(f"the sign-in at {self._settings.issuer}", self._person.revoke)
        finally:
            end("the key in the keyring", self._vault.wipe)
        return left

    def roles(self) -> list[dict[str, Any]]:
        found = self._person.do(self._client.roles)
        self._learn_groups(found)
        return found

    def factors(self) -> list[dict[str, Any]]:
        return self._person.do(self._client.factors)

    def add_factor(
        self,
        kind: str,
        name: str,
        invitation: Secret | None = None,
        *,
        show: Callable[[Secret, Secret], None],
    ) -> dict[str, Any]:
        """Enrol a factor, confirmed with one that is there already, or by invitation.

        Args:
            kind: ``webauthn`` or ``totp``.
            name: what its owner calls it.
            invitation: of the broker's administrators, for a first factor.
            show: ``show(uri, secret)`` puts a TOTP secret on the terminal, and nowhere else.

        Returns:
            The broker's factor object: ``id``, ``kind``, ``name``, ``created_at``, ``last_used_at``.
        """
        return self._person.do(lambda token: self._proving.add(token, kind, name, invitation, show))

    def remove_factor(self, factor_id: str) -> None:
        self._person.do(lambda token: self._proving.remove(token, factor_id))

    def _learn_groups(self, roles: list[dict[str, Any]]) -> dict[str, str]:
        groups = {str(role["name"]): str(role.get("factor_group") or role["name"]) for role in roles}
        self._keep(lambda: self._kept.keep_groups(groups))
        return groups

    def _keep(self, save: Callable[[], None]) -> None:
        """6: what was issued is good, even where it cannot be kept."""
        try:
            save()
        except NOT_KEPT as exc:
            self._ui.note(f"not kept, because {exc.message}")
