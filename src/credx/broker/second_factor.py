"""The second factor: ask for it, challenge it, verify it, and claim the proof in the commit it allows.

Verifying uses nothing up. Only ``claim`` gives the writes that do, and they hold only if nothing that the proof
rests on has changed. So a proof serves once, however many requests present it at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, assert_never

from credx.broker import attempts, auth_session, factor_session, totp, webauthn
from credx.broker.factor_session import Served
from credx.broker.stored import reading
from credx.broker.stores import Check, ConflictError, Delete, StoreUnavailableError
from credx.broker.users import factor_key, load_factor, load_factors
from credx.broker.webauthn import Assertion, CounterError, RelyingParty
from credx.errors import Refusal
from credx.protocol import FactorSessionProof, StepUp, TotpProof, WebAuthnProof

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credx.broker.admission import Visit
    from credx.broker.auth_session import AuthSession, Demand
    from credx.broker.handles import Rng
    from credx.broker.seal import Sealer
    from credx.broker.stores import Store, Write
    from credx.broker.users import Factor
    from credx.model import Secret
    from credx.protocol import Proof


class WrongProofError(Refusal):
    """A proof that was not good: recorded as any refusal, but the answer is to try again in ``step_up``."""

    def __init__(self, refusal: Refusal, step_up: StepUp) -> None:
        super().__init__(refusal.code, refusal.public, refusal.detail)
        self.step_up = step_up


@dataclass(frozen=True, kw_only=True)
class Proven:
    """A verified proof that nothing has used up yet.

    Attributes:
        kind: ``webauthn``, ``totp`` or ``workload``. factor_id: None for a workload.
        used: the assertion, the time step of the code, or the earlier proof that serves.
        session: where it was proved; None for an earlier proof and for a workload.
    """

    kind: str
    factor_id: str | None = None
    user_verified: bool = False
    used: Assertion | int | Served | None = None
    session: AuthSession | None = None


WORKLOAD_PROOF: Final = Proven(kind="workload")
DISABLE_TRIES: Final = 5  # against parallel uses of the same key


def guards(kind: str) -> tuple[str, ...]:
    """Which proofs add or remove a factor of this kind."""
    return ("webauthn",) if kind == "webauthn" else ("webauthn", "totp")


class SecondFactor:
    def __init__(self, *, store: Store, sealer: Sealer, rng: Rng) -> None:
        self._store = store
        self._sealer = sealer
        self._rng = rng

    def step_up(self, visit: Visit, demand: Demand, *, retry: str | None = None) -> StepUp:
        """A new session to prove ``demand`` in.

        Raises:
            Refusal: the person has no factor that would do.
        """
        factors = self._accepted(visit, demand.kinds)
        if not factors:
            raise Refusal(
                "insufficient_authorization",
                f"this needs a second factor ({' or '.join(demand.kinds)}) and you have none:"
                " enrol one with `credx factor add`",
                "no accepted factor is enrolled",
            )
        handle = auth_session.open_session(
            self._store,
            self._rng,
            demand,
            user_key=visit.user_key,
            token_hash=visit.claims.token_hash,
            now=visit.now,
        )
        choices = tuple(factor.choice() for factor in factors)
        return StepUp(auth_session=handle, expires_in=auth_session.LIFE, factors=choices, retry=retry)

    def begin(self, visit: Visit, handle: Secret) -> dict[str, Any]:
        """A new challenge in a session, as PublicKeyCredentialRequestOptionsJSON; an earlier one is void.

        Raises:
            Refusal: the session is not known, or no security key would do.
            ConflictError: a parallel request changed the session.
        """
        session = auth_session.load_session(self._store, visit.user_key, handle, now=visit.now)
        if session is None or session.token_hash != visit.claims.token_hash:
            raise _session_over("not known, ended or of another ID token")
        factors = [f for f in self._accepted(visit, session.kinds) if f.kind == "webauthn"]
        if not factors:
            raise Refusal("insufficient_authorization", "no security key of yours is accepted here")
        challenge = self._rng(webauthn.CHALLENGE_BYTES)
        changed = session.put(challenge=challenge.hex(), challenge_at=int(visit.now))
        self._store.apply([changed], now=visit.now)
        return RelyingParty(visit.policy.broker).request_options(
            challenge, factors, user_verification=session.user_verification
        )

    def verify(self, visit: Visit, demand: Demand, proof: Proof) -> Proven:
        """Verify a proof of ``demand``.

        Raises:
            WrongProofError: it was not good; the person may try again in the session that it carries.
            Refusal: it was not good, and there is nothing to try again.
        """
        if isinstance(proof, FactorSessionProof):
            return self._earlier(visit, demand, proof.factor_session)
        session = auth_session.load_session(self._store, visit.user_key, proof.auth_session, now=visit.now)
        if session is None:
            raise _session_over("not known, ended or used")
        bound = auth_session.binding(demand, user_key=visit.user_key, token_hash=visit.claims.token_hash)
        if session.bound != bound:
            raise _session_over("bound to another request")
        factors = self._accepted(visit, demand.kinds)
        if isinstance(proof, TotpProof):
            outcome = self._code(visit, session, _of_kind(factors, "totp"), proof)
        else:
            outcome = self._assertion(visit, session, _of_kind(factors, "webauthn"), proof)
        if isinstance(outcome, Proven):
            return outcome
        again = StepUp(
            auth_session=proof.auth_session,
            expires_in=max(0, session.expires_at - int(visit.now)),
            factors=tuple(factor.choice() for factor in factors),
            retry=outcome.public,
        )
        raise WrongProofError(outcome, again)

    def claim(self, visit: Visit, demand: Demand, proven: Proven) -> list[Write]:
        """Look at everything once more: the writes that use the proof up, for the one commit that it allows.

        Raises:
            Refusal: used already, its factor is disabled or gone, or ``demand`` does not accept it any more.
        """
        if proven.factor_id is None:
            return []
        factor = load_factor(self._store, visit.user_key, proven.factor_id, now=visit.now)
        if factor is None or factor.disabled:
            raise Refusal("insufficient_authorization", "this factor is disabled or removed")
        weak = proven.kind == "webauthn" and demand.user_verification and not proven.user_verified
        if proven.kind not in demand.kinds or weak:
            raise Refusal("insufficient_authorization", "this factor is not accepted here")
        match proven.used:
            case Served() as served:
                factor_session.refuse_if_unfit(replace(served, factor=factor), demand, now=visit.now)
                unchanged = Check(key=factor_key(visit.user_key, factor.id), expected=factor.version)
                return [unchanged, Check(key=served.key, expected=served.version)]
            case int(step):
                spent = self._spent(visit, proven)
                changed = totp.advanced(factor.material, step)
                passed = attempts.passed(self._store, visit.user_key, factor.id, now=visit.now)
                return [_used(visit, factor, changed), spent, passed]
            case Assertion() as assertion:
                spent = self._spent(visit, proven)
                changed = webauthn.advanced(factor, assertion)
                return [_used(visit, factor, changed), spent]
            case None:
                raise Refusal("insufficient_authorization", "nothing was proved")
            case _:
                assert_never(proven.used)

    def remember(self, visit: Visit, demand: Demand, proven: Proven) -> tuple[Secret | None, list[Write]]:
        """Where the demand lets a fresh proof serve for a while: a factor session and the writes that make it."""
        if not demand.max_age or proven.factor_id is None or isinstance(proven.used, Served):
            return None, []
        return factor_session.start(
            self._store,
            self._rng,
            demand,
            user_key=visit.user_key,
            factor_id=proven.factor_id,
            user_verified=proven.user_verified,
            now=visit.now,
        )

    def _accepted(self, visit: Visit, kinds: Sequence[str]) -> list[Factor]:
        factors = load_factors(self._store, visit.user_key, now=visit.now)
        return [factor for factor in factors if factor.kind in kinds and not factor.disabled]

    def _earlier(self, visit: Visit, demand: Demand, handle: Secret) -> Proven:
        try:
            served = factor_session.serving(self._store, visit.user_key, handle, demand, now=visit.now)
        except Refusal as refusal:
            raise WrongProofError(refusal, self.step_up(visit, demand, retry=refusal.public)) from refusal
        return Proven(
            kind=served.factor.kind,
            factor_id=served.factor.id,
            user_verified=served.user_verified,
            used=served,
        )

    def _code(
        self, visit: Visit, session: AuthSession, factors: Sequence[Factor], proof: TotpProof
    ) -> Proven | Refusal:
        """A returned refusal can be tried again, a raised one cannot."""
        if not factors:
            raise Refusal("insufficient_authorization", "codes are not accepted here")
        counted = attempts.count(self._store, visit.user_key, [f.id for f in factors], now=visit.now)
        spoilt: StoreUnavailableError | None = None
        for factor in factors:
            if factor.id not in counted:  # locked: neither a yes nor a no may come from it
                continue
            try:
                with reading("factor"):
                    sealed, last_step = str(factor.material["sealed"]), int(factor.material["last_step"])
                    secret = totp.opened(sealed, self._sealer, user_key=visit.user_key, factor_id=factor.id)
            except StoreUnavailableError as exc:  # one app that cannot be read takes no other one with it
                spoilt = exc
                continue
            step = totp.matched_step(secret, proof.otp, now=visit.now)
            if step is None:
                continue
            try:
                totp.refuse_if_used(step, last_step)
            except Refusal as refusal:
                attempts.take_back(self._store, visit.user_key, counted, now=visit.now)
                return refusal
            return Proven(kind="totp", factor_id=factor.id, used=step, session=session)
        if spoilt is not None:
            raise spoilt
        attempts.refuse_if_locked(self._store, visit.user_key, [f.id for f in factors], now=visit.now)
        return Refusal("insufficient_authorization", "the code is not right", "wrong code")

    def _assertion(
        self, visit: Visit, session: AuthSession, factors: Sequence[Factor], proof: WebAuthnProof
    ) -> Proven | Refusal:
        """A returned refusal can be tried again, a raised one cannot."""
        challenge = session.live_challenge(visit.now)
        if challenge is None:
            return Refusal(
                "insufficient_authorization", "the challenge has ended: try again", "no live challenge"
            )
        try:
            assertion = RelyingParty(visit.policy.broker).verify_assertion(
                proof.assertion,
                challenge=challenge,
                factors=factors,
                user_key=visit.user_key,
                user_verification=session.user_verification,
            )
        except Refusal as refusal:
            goes_on = auth_session.count_failure(self._store, session, now=visit.now)
            if isinstance(refusal, CounterError) and session.challenge_at > _last_use(refusal.factor):
                raise self._copied(visit, refusal) from refusal
            if not goes_on:
                raise
            return refusal
        return Proven(
            kind="webauthn",
            factor_id=assertion.factor.id,
            user_verified=assertion.user_verified,
            used=assertion,
            session=session,
        )

    def _copied(self, visit: Visit, seen: CounterError) -> Refusal:
        """Disable a key whose counter went back: two authenticators hold it, or one is broken (WebAuthn 6.1.1).

        Only for an answer to a challenge that is younger than the last use. An older one may just have been
        overtaken, as by a parallel command of the same person (WebAuthn 7.2, step 22).
        """
        for _ in range(DISABLE_TRIES):
            factor = load_factor(self._store, visit.user_key, seen.factor.id, now=visit.now)
            if factor is None or factor.disabled:
                break
            try:
                self._store.apply([replace(factor, disabled=True).put(visit.user_key)], now=visit.now)
            except ConflictError:
                continue
            break
        return Refusal(
            "insufficient_authorization",
            "the counter of this security key went back, it may have been copied: it is disabled;"
            " remove it with `credx factor remove` and enrol another",
            f"{seen.detail}: key {seen.factor.id} disabled, it may have been copied",
        )

    def _spent(self, visit: Visit, proven: Proven) -> Delete:
        item = None if proven.session is None else self._store.get(proven.session.key, now=visit.now)
        if item is None:
            raise _session_over("used by a parallel request")
        return Delete(key=item.key, expected=item.version)


def _used(visit: Visit, factor: Factor, material: dict[str, Any]) -> Write:
    return replace(factor, material=material, last_used_at=int(visit.now)).put(visit.user_key)


def _last_use(factor: Factor) -> int:
    return factor.created_at if factor.last_used_at is None else factor.last_used_at


def _of_kind(factors: Sequence[Factor], kind: str) -> list[Factor]:
    return [factor for factor in factors if factor.kind == kind]


def _session_over(detail: str) -> Refusal:
    return Refusal(
        "insufficient_authorization",
        "this proof is over or for something else: ask again",
        f"auth session {detail}",
    )
