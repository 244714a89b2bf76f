"""The server story: an ID token and a second factor in, a web-identity token or AWS credentials out.

``Broker.token`` is design steps 1 to 8, one method each, in this order and no other:

1. Verify the ID token. Before that nothing is stored; a failure is a line in the security log.
2. Who is it? One key from (issuer, subject); a disabled person stops here.
3. Decide. A refusal costs no touch.
4. Prove. Without a proof the answer is ``StepUp``; with one it is verified, and not yet used up.
5. Commit. Look again at policy, person, factor and proof, and in one atomic write use the proof up and record
   ``granted``. No record, no token.
6. Mint the web-identity token, good for one role and 120 seconds.
7. Exchange it at STS where the role says ``sts = "broker"``; else the client does.
8. Outcome. ``issued`` or ``failed`` is durable before anything leaves.

From step 2 on every refusal leaves exactly one audit record: ``refused`` up to the commit (written by
``Admission.visit``), ``failed`` after it. A person who is refused without end is told to slow down instead.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from credx.broker.admission import Admission, durable
from credx.broker.auth_session import Demand
from credx.broker.enroll import Enrolment
from credx.broker.exchange import Issuance, StsCalls, at_sts, for_client, private_cause, public_answer
from credx.broker.factor_session import Served
from credx.broker.issuance import new_issuance
from credx.broker.mint import session_name, web_identity_token
from credx.broker.own_factors import OwnFactors
from credx.broker.policy import decide, roles_for
from credx.broker.policy.rules import BROKER, REQUIRED, WORKLOAD
from credx.broker.second_factor import WORKLOAD_PROOF, Proven, SecondFactor, WrongProofError
from credx.broker.stores import ConflictError
from credx.errors import Refusal
from credx.model import Denial
from credx.protocol import StepUp

if TYPE_CHECKING:
    from collections.abc import Callable

    from credx.broker.admission import Visit
    from credx.broker.audit import Audit
    from credx.broker.exchange import Sts
    from credx.broker.handles import Rng
    from credx.broker.policy.rules import Policy
    from credx.broker.seal import Sealer
    from credx.broker.stores import Store
    from credx.jose import KeySource, Signer
    from credx.model import Grant, Secret
    from credx.protocol import Ask, Issued, TokenRequest

JTI_BYTES: Final = 16
COMMIT_TRIES: Final = (
    10  # against parallel requests of the same person; each lost race is one that another won
)


class Broker:
    """One broker. ``rng(n)`` gives n random bytes, ``now()`` seconds since 1970, ``policy()`` what holds now."""

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        store: Store,
        audit: Audit,
        signer: Signer,
        sealer: Sealer,
        keys: KeySource,
        sts: Sts,
        now: Callable[[], float],
        rng: Rng,
    ) -> None:
        self.policy = policy
        self.signer = signer
        self.audit = audit
        self.store = store
        self.now = now
        self.admission = Admission(policy=policy, store=store, audit=audit, keys=keys, now=now)
        self.second_factor = SecondFactor(store=store, sealer=sealer, rng=rng)
        self.enrolment = Enrolment(
            admission=self.admission,
            second_factor=self.second_factor,
            store=store,
            audit=audit,
            sealer=sealer,
            rng=rng,
        )
        self.own_factors = OwnFactors(
            admission=self.admission, second_factor=self.second_factor, store=store, audit=audit
        )
        self._sts = sts
        self._sts_calls = StsCalls()
        self._rng = rng

    def token(self, request: TokenRequest, client: str) -> Issued | StepUp:
        """One issuance, steps 1 to 8; ``client`` is the address that the request came from.

        Raises:
            Refusal: after the ID token was verified, always with a record behind it.
        """
        with contextlib.ExitStack() as held:
            return self._token(request, client, held)

    def _token(self, request: TokenRequest, client: str, held: contextlib.ExitStack) -> Issued | StepUp:
        ask = request.ask
        try:
            with self.admission.visit(request.subject_token, client, **_about(ask)) as visit:  # 1, 2
                grant = self._decide(visit, ask)  # 3
                if request.proof is not None or visit.person.workload:
                    # before a code is counted: a busy broker must not lock it
                    held.enter_context(self._sts_calls.one(grant, visit.user_key))
                proven = self._prove(visit, grant, request)  # 4
                if isinstance(proven, StepUp):
                    return proven
                issuance = self._commit(visit, ask, proven)  # 5
        except WrongProofError as wrong:
            return wrong.step_up
        with durable():
            try:
                token = self._mint(issuance)  # 6
                issued, key_id = self._exchange(issuance, token)  # 7
            except Exception as exc:
                self._outcome(issuance, "failed", error=type(exc).__name__, detail=private_cause(exc))  # 8
                raise public_answer(exc) from exc
            self._outcome(issuance, "issued", access_key_id=key_id)  # 8
        return issued

    def roles(self, id_token: Secret, client: str) -> list[dict[str, Any]]:
        """What this person may ask for, see ``policy.roles_for``."""
        with self.admission.visit(id_token, client) as visit:
            return roles_for(visit.policy, visit.person)

    def begin_proof(self, id_token: Secret, auth_session: Secret, client: str) -> dict[str, Any]:
        """A WebAuthn challenge for an auth session: PublicKeyCredentialRequestOptionsJSON."""
        with self.admission.visit(id_token, client) as visit:
            self.admission.count_ask(visit)
            return self.second_factor.begin(visit, auth_session)

    def _decide(self, visit: Visit, ask: Ask) -> Grant:
        """3. The pure decision; a denial is a refusal with a record."""
        decision = decide(visit.policy, visit.person, ask)
        if isinstance(decision, Denial):
            raise Refusal(decision.code, decision.public, decision.reason)
        return decision

    def _prove(self, visit: Visit, grant: Grant, request: TokenRequest) -> Proven | StepUp:
        """4. A workload proves nothing where its role says so; anybody else proves a factor."""
        if WORKLOAD in grant.factors and visit.person.workload and request.proof is None:
            return WORKLOAD_PROOF
        demand = _demand(visit, grant, request.ask)
        if request.proof is None:
            self.admission.count_ask(visit)
            return self.second_factor.step_up(visit, demand)
        return self.second_factor.verify(visit, demand, request.proof)

    def _commit(self, visit: Visit, ask: Ask, proven: Proven) -> Issuance:
        """5. Read and decide again; then proof, counters and ``granted`` in one write, or nothing at all."""
        issuance_id, jti = new_issuance(visit.now, self._rng), self._rng(JTI_BYTES).hex()
        for _ in range(COMMIT_TRIES):
            self.admission.look_again(visit)
            grant = self._decide(visit, ask)
            demand = _demand(visit, grant, ask)
            if proven is WORKLOAD_PROOF and not (WORKLOAD in grant.factors and visit.person.workload):
                raise Refusal("insufficient_authorization", "a second factor is needed", "policy changed")
            factor_session, remembered = self.second_factor.remember(visit, demand, proven)
            writes = [
                visit.profile.unchanged(visit.user_key),
                *self.second_factor.claim(visit, demand, proven),
                *remembered,
            ]
            record = visit.about | {
                "event": "granted",
                "issuance": issuance_id,
                "jti": jti,
                "duration": grant.duration,
                "scopes": list(grant.scopes),
                "factor_kind": proven.kind,
                "factor_id": proven.factor_id,
                "detail": f"proved at {proven.used.proved_at}" if isinstance(proven.used, Served) else None,
            }
            try:
                self.audit.commit(writes, record, now=visit.now)
            except ConflictError:
                continue
            visit.about.update(record)
            return Issuance(
                id=issuance_id,
                jti=jti,
                grant=grant,
                visit=visit,
                proven=proven,
                session_name=session_name(visit.person, issuance_id),
                factor_session=factor_session,
            )
        raise Refusal("temporarily_unavailable", "too many requests at once: try again", "commit contended")

    def _mint(self, issuance: Issuance) -> Secret:
        """6. The one token that AWS trusts."""
        return web_identity_token(
            issuance.grant,
            issuance.visit.person,
            issuance=issuance.id,
            jti=issuance.jti,
            factor_kind=issuance.proven.kind,
            issuer=issuance.visit.policy.broker.issuer,
            signer=self.signer,
            now=self.now(),
        )

    def _exchange(self, issuance: Issuance, token: Secret) -> tuple[Issued, str | None]:
        """7. The client calls STS with the token, or the broker does and answers with the credentials."""
        if issuance.grant.sts == BROKER:
            return at_sts(issuance, token, self._sts, now=self.now())
        return for_client(issuance, token), None

    def _outcome(self, issuance: Issuance, event: str, **more: str | None) -> None:
        """8. One more record; if it cannot be written, nothing leaves."""
        self.audit.append(issuance.visit.about | {"event": event} | more, now=self.now())


def _about(ask: Ask) -> dict[str, Any]:
    return {
        "role": ask.role,
        "resources": list(ask.resources),
        "scopes": list(ask.scopes),
        "operation": ask.operation,
        "reason": ask.reason,
    }


def _demand(visit: Visit, grant: Grant, ask: Ask) -> Demand:
    """What a proof for this grant has to be. Where a target is required, an earlier proof never serves."""
    for_a_target = visit.policy.roles[grant.role].target == REQUIRED
    return Demand(
        purpose=f"token {ask.canonical()}",
        kinds=tuple(kind for kind in grant.factors if kind != WORKLOAD),
        user_verification=grant.user_verification,
        group=grant.factor_group,
        max_age=0 if for_a_target else grant.factor_max_age,
    )
