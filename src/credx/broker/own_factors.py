"""A person's own factors: which there are, removing one, ending what they proved.

A factor is removed with a fresh proof that names it, and a security key never with a code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from credx.broker import factor_session
from credx.broker.auth_session import Demand
from credx.broker.second_factor import WrongProofError, guards
from credx.broker.stores import Delete
from credx.broker.users import credential_key, factor_key, load_factor, load_factors
from credx.broker.webauthn import credential_hash
from credx.errors import Refusal

if TYPE_CHECKING:
    from credx.broker.admission import Admission
    from credx.broker.audit import Audit
    from credx.broker.second_factor import SecondFactor
    from credx.broker.stores import Store, Write
    from credx.model import Secret
    from credx.protocol import Proof, StepUp


class OwnFactors:
    def __init__(
        self, *, admission: Admission, second_factor: SecondFactor, store: Store, audit: Audit
    ) -> None:
        self._admission = admission
        self._second_factor = second_factor
        self._store = store
        self._audit = audit

    def listing(self, id_token: Secret, client: str) -> list[dict[str, Any]]:
        """The person's own factors."""
        with self._admission.visit(id_token, client) as visit:
            factors = load_factors(self._store, visit.user_key, now=visit.now)
            return [factor.listing() for factor in factors]

    def remove(
        self, id_token: Secret, client: str, factor_id: str, *, proof: Proof | None = None
    ) -> StepUp | None:
        """Remove a factor, and end what it had proved; without a proof the answer is the step-up.

        Raises:
            Refusal: no such factor of this person, or not allowed.
        """
        try:
            with self._admission.visit(id_token, client, factor_id=factor_id) as visit:
                factor = load_factor(self._store, visit.user_key, factor_id, now=visit.now)
                if factor is None:
                    raise Refusal("not_found", "you have no such factor")
                visit.about["factor_kind"] = factor.kind
                demand = Demand(
                    purpose=f"remove {factor.id}", kinds=guards(factor.kind), user_verification=True
                )
                if proof is None:
                    self._admission.count_ask(visit)
                    return self._second_factor.step_up(visit, demand)
                proven = self._second_factor.verify(visit, demand, proof)
                gone = factor_key(visit.user_key, factor.id)
                writes: list[Write] = [
                    Delete(key=gone, expected=factor.version),
                    *(w for w in self._second_factor.claim(visit, demand, proven) if w.key != gone),
                    *factor_session.ended(self._store, visit.user_key, now=visit.now, factor_id=factor.id),
                    *visit.profile.written(visit.person),
                ]
                if factor.kind == "webauthn":
                    writes.append(Delete(key=credential_key(credential_hash(factor.material)), expected=None))
                removed = {"event": "removed", "detail": repr(factor.name)}
                self._audit.commit(writes, visit.about | removed, now=visit.now)
                return None
        except WrongProofError as wrong:
            return wrong.step_up

    def end_factor_sessions(self, id_token: Secret, client: str) -> int:
        """Log out: no earlier proof serves any more. The number of those that did."""
        with self._admission.visit(id_token, client) as visit:
            writes = factor_session.ended(self._store, visit.user_key, now=visit.now)
            self._audit.commit(writes, visit.about | {"event": "logged_out"}, now=visit.now)
            if not writes:
                self._admission.count_idle(visit)
            return len(writes)
