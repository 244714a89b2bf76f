"""Adding a second factor: the back door of every second factor, so a second factor guards it.

A factor is added with a fresh proof that names it, with an administrator's invitation for exactly this person,
or, by a person who never had one, with the identity provider's own MFA where the policy accepts that. A code
never adds a security key (nor removes one, see ``own_factors``).

What allowed an enrolment is looked at again when it completes, in the commit that adds the factor.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from credx.broker import invitation, totp
from credx.broker.auth_session import Demand
from credx.broker.handles import handle_hash, new_handle
from credx.broker.person import accepts_idp_mfa
from credx.broker.second_factor import WrongProofError, guards
from credx.broker.stores import Check, Delete, Key, Put
from credx.broker.users import (
    FACTOR_ID_BYTES,
    MAX_FACTORS,
    Factor,
    credential_key,
    factor_key,
    load_factors,
    partition,
    room_for_one_more,
)
from credx.broker.webauthn import CHALLENGE_BYTES, RelyingParty, credential_hash
from credx.errors import Refusal
from credx.protocol import StepUp
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from credx.broker.admission import Admission, Visit
    from credx.broker.audit import Audit
    from credx.broker.handles import Rng
    from credx.broker.seal import Sealer
    from credx.broker.second_factor import SecondFactor
    from credx.broker.stores import Store, Write
    from credx.model import Secret
    from credx.protocol import Proof

LIFE: Final = 300  # seconds from begin to complete
MAX_OPEN: Final = 5  # enrolments of one person; the oldest gives way
MAX_NAME: Final = 64  # characters


@dataclass(frozen=True, kw_only=True)
class Pending:
    """An enrolment between begin and complete, as it is stored.

    Attributes:
        via, by: what allows it: ``proof`` by a factor's id, ``invitation`` by its hash, or ``idp-mfa``.
        challenge: hex, of a security key. sealed: the secret, of an authenticator app.
    """

    factor_id: str
    kind: str
    name: str
    token_hash: str
    via: str
    by: str
    challenge: str = field(default="", repr=False)
    sealed: str = field(default="", repr=False)


class Enrolment:
    def __init__(
        self,
        *,
        admission: Admission,
        second_factor: SecondFactor,
        store: Store,
        audit: Audit,
        sealer: Sealer,
        rng: Rng,
    ) -> None:
        self._admission = admission
        self._second_factor = second_factor
        self._store = store
        self._audit = audit
        self._sealer = sealer
        self._rng = rng

    def begin(
        self,
        id_token: Secret,
        client: str,
        *,
        kind: str,
        name: str,
        invited: Secret | None = None,
        proof: Proof | None = None,
    ) -> dict[str, Any] | StepUp:
        """Start to add a factor: what the person's key or app needs, or the step-up that comes first.

        Raises:
            Refusal: not allowed, or a kind or name that cannot be.
        """
        try:
            with self._admission.visit(id_token, client) as visit:
                _check_new(visit, kind, name)
                visit.about["factor_kind"] = kind
                factors = load_factors(self._store, visit.user_key, now=visit.now)
                _refuse_one_too_many(factors)
                allowed = self._allowed(visit, _enrol_demand(kind, name), factors, invited, proof)
                if isinstance(allowed, StepUp):
                    return allowed
                return self._start(visit, factors, kind, name, allowed)
        except WrongProofError as wrong:
            return wrong.step_up

    def complete(
        self,
        id_token: Secret,
        client: str,
        enrolment: Secret,
        *,
        registration: Mapping[str, Any] | None = None,
        otp: Secret | None = None,
    ) -> dict[str, Any]:
        """Add the factor, once its key or app has answered.

        Raises:
            Refusal: ended, not allowed any more, or a wrong answer.
        """
        with self._admission.visit(id_token, client) as visit:
            key = _pending_key(visit.user_key, enrolment)
            item = self._store.get(key, now=visit.now)
            if item is None or item.value["token_hash"] != visit.claims.token_hash:
                raise Refusal("invalid_grant", "this enrolment is not known or has ended: start again")
            pending, consumed = Pending(**item.value), Delete(key=key, expected=item.version)
            visit.about.update(factor_kind=pending.kind, factor_id=pending.factor_id)
            writes = self._still_allowed(visit, pending)
            if pending.kind == "totp" and otp is not None:
                material = self._confirmed(visit, pending, otp)
            elif pending.kind == "webauthn" and registration is not None:
                material = self._registered(visit, pending, registration, consumed)
                writes.append(_owned(visit, material, self._store))
            else:
                raise Refusal("invalid_request", f"a {pending.kind} answer is needed")
            factor = Factor(
                id=pending.factor_id,
                kind=pending.kind,
                name=pending.name,
                created_at=int(visit.now),
                material=material,
            )
            writes += [consumed, factor.put(visit.user_key), *visit.profile.written(visit.person)]
            # the name: of a key that is removed later nothing else is left; 16 digits as invitations are listed
            detail = f"{pending.name!r}, {pending.via} {pending.by[:16]}".strip()
            self._audit.commit(writes, visit.about | {"event": "enrolled", "detail": detail}, now=visit.now)
            return factor.listing()

    def _allowed(
        self,
        visit: Visit,
        demand: Demand,
        factors: Sequence[Factor],
        invited: Secret | None,
        proof: Proof | None,
    ) -> tuple[str, str, list[Write]] | StepUp:
        """What allows it and who or what speaks for it, with the writes of its use; or what has to be proved."""
        if proof is not None:
            proven = self._second_factor.verify(visit, demand, proof)
            return "proof", proven.factor_id or "", self._second_factor.claim(visit, demand, proven)
        if invited is not None:
            hashed = handle_hash(invited)
            invitation.used_up(self._store, visit.person, hashed, now=visit.now)  # only at the end is it used
            return "invitation", hashed, []
        if not factors and _first_by_idp_mfa(visit):
            return "idp-mfa", "", []
        if not any(factor.kind in demand.kinds and not factor.disabled for factor in factors):
            raise Refusal(
                "insufficient_authorization",
                f"this takes a factor that you have already ({' or '.join(demand.kinds)}),"
                " or an invitation from an administrator",
                "no factor, invitation or IdP MFA allows it",
            )
        self._admission.count_ask(visit)
        return self._second_factor.step_up(visit, demand)

    def _start(
        self,
        visit: Visit,
        factors: Sequence[Factor],
        kind: str,
        name: str,
        allowed: tuple[str, str, list[Write]],
    ) -> dict[str, Any]:
        via, by, writes = allowed
        handle, factor_id = new_handle(self._rng), self._rng(FACTOR_ID_BYTES).hex()
        answer: dict[str, Any] = {"enrolment": handle.reveal(), "expires_in": LIFE}
        challenge, sealed = b"", ""
        if kind == "totp":
            secret = totp.new_secret(self._rng)
            issuer = visit.policy.broker.rp_name
            answer["secret"] = secret.reveal()
            answer["uri"] = totp.uri(secret, account=visit.person.user, issuer=issuer).reveal()
            sealed = totp.sealed(secret, self._sealer, user_key=visit.user_key, factor_id=factor_id)
        else:
            challenge = self._rng(CHALLENGE_BYTES)
            answer["public_key"] = RelyingParty(visit.policy.broker).creation_options(
                challenge,
                [factor for factor in factors if factor.kind == kind],
                user_key=visit.user_key,
                user=visit.person.user,
            )
        pending = Pending(
            factor_id=factor_id,
            kind=kind,
            name=name,
            token_hash=visit.claims.token_hash,
            via=via,
            by=by,
            challenge=challenge.hex(),
            sealed=sealed,
        )
        put = Put(
            key=_pending_key(visit.user_key, handle),
            value=asdict(pending),
            expected=0,
            expires_at=int(visit.now) + LIFE,
        )
        others = self._store.query(partition(visit.user_key), "enrol#", now=visit.now)
        unchanged = visit.profile.unchanged(visit.user_key)
        self._store.apply([*writes, put, unchanged, *room_for_one_more(others, MAX_OPEN)], now=visit.now)
        return answer

    def _still_allowed(self, visit: Visit, pending: Pending) -> list[Write]:
        """The writes under which what allowed the enrolment still does."""
        factors = load_factors(self._store, visit.user_key, now=visit.now)
        _refuse_one_too_many(factors)
        match pending.via:
            case "invitation":
                return [invitation.used_up(self._store, visit.person, pending.by, now=visit.now)]
            case "idp-mfa" if not factors and _first_by_idp_mfa(visit):
                return []
            case "proof":
                for factor in factors:
                    if factor.id == pending.by and not factor.disabled:
                        return [Check(key=factor_key(visit.user_key, factor.id), expected=factor.version)]
        raise Refusal(
            "access_denied",
            "what allowed this enrolment does not any more: start again",
            f"via {pending.via}",
        )

    def _confirmed(self, visit: Visit, pending: Pending, otp: Secret) -> dict[str, Any]:
        """One code shows that the app has the secret; its step is used."""
        secret = totp.opened(
            pending.sealed, self._sealer, user_key=visit.user_key, factor_id=pending.factor_id
        )
        step = totp.matched_step(secret, otp, now=visit.now)
        if step is None:
            raise Refusal("insufficient_authorization", "the code is not right", "confirming code wrong")
        return {"sealed": pending.sealed, "last_step": step}

    def _registered(
        self, visit: Visit, pending: Pending, registration: Mapping[str, Any], consumed: Delete
    ) -> dict[str, Any]:
        """A challenge is good for one answer, right or wrong."""
        try:
            return RelyingParty(visit.policy.broker).verify_registration(
                registration, challenge=bytes.fromhex(pending.challenge)
            )
        except Refusal:
            self._store.apply([consumed], now=visit.now)
            raise


def _first_by_idp_mfa(visit: Visit) -> bool:
    """A first factor alone: else a code could remove the app, and the provider's word then add a key."""
    return not visit.profile.had_factor and accepts_idp_mfa(visit.policy, visit.person, visit.now)


def _owned(visit: Visit, material: Mapping[str, Any], store: Store) -> Put:
    """The write that makes a credential id this person's; it is nobody else's (WebAuthn 7.1)."""
    key = credential_key(credential_hash(material))
    if store.get(key, now=visit.now) is not None:
        raise Refusal(
            "access_denied", "this security key credential is registered already", "credential id in use"
        )
    return Put(key=key, value={"user_key": visit.user_key}, expected=0)


def _enrol_demand(kind: str, name: str) -> Demand:
    return Demand(purpose=f"enrol {json.dumps([kind, name])}", kinds=guards(kind), user_verification=True)


def _check_new(visit: Visit, kind: str, name: str) -> None:
    if kind not in ("webauthn", "totp") or (kind == "webauthn" and visit.person.workload):
        raise Refusal("invalid_request", "this kind of factor cannot be enrolled")
    if not 1 <= len(name) <= MAX_NAME or name != name.strip() or clean(name) != name:
        raise Refusal("invalid_request", f"the name must be 1 to {MAX_NAME} printable characters")


def _refuse_one_too_many(factors: Sequence[Factor]) -> None:
    if len(factors) >= MAX_FACTORS:
        raise Refusal("access_denied", f"you have {MAX_FACTORS} factors: remove one first")


def _pending_key(user_key: str, handle: Secret) -> Key:
    return Key(partition(user_key), f"enrol#{handle_hash(handle)}")
