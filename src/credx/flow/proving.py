"""Step 4 of the story, and the two other things that take a proof: adding and removing a factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from credx.errors import FactorError
from credx.protocol import StepUp, not_understood
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from credx.broker_client import BrokerClient
    from credx.factors.prove import Prover
    from credx.model import Secret
    from credx.protocol import Proof
    from credx.ui import UI

T = TypeVar("T")

PROOF_TRIES: Final = 3  # for a mistyped code; the bound that counts is the broker's lock


class Proving:
    """Answers the broker's questions with the person's factors.

    Args:
        client: gives the broker's client when first needed.
    """

    def __init__(self, client: Callable[[], BrokerClient], prover: Prover, ui: UI) -> None:
        self._client = client
        self._prover = prover
        self._ui = ui

    def proven(
        self,
        token: Secret,
        approve: str,
        request: Callable[[Proof | None], T | StepUp],
        answer: T | StepUp,
        *,
        person: bool = True,
    ) -> T:
        """Repeat ``request`` with proofs until the broker is content.

        Args:
            token: the ID token; a question is bound to it.
            approve: what is approved, in words.
            request: asks the broker, with a proof or without.
            answer: to the request without one.
            person: False never asks anybody.

        Raises:
            FactorError: no factor would do, or none was accepted.
        """
        for _ in range(PROOF_TRIES):
            if not isinstance(answer, StepUp):
                return answer
            if answer.retry:
                self._ui.note(clean(answer.retry))
            proof = self._prover.prove(
                answer, approve, lambda session: self._client().begin_proof(token, session), person=person
            )
            answer = request(proof)
        if isinstance(answer, StepUp):
            raise FactorError("the second factor was not accepted", hint="credx factor list, then try again")
        return answer

    def add(
        self,
        token: Secret,
        kind: str,
        name: str,
        invitation: Secret | None,
        show: Callable[[Secret, Secret], None],
    ) -> dict[str, Any]:
        """As ``Flow.add_factor``."""
        client = self._client()

        def begin(proof: Proof | None) -> Any:
            return client.begin_enrolment(token, kind=kind, name=name, invitation=invitation, proof=proof)

        begun = self.proven(token, f"add the factor {name!r} ({kind})", begin, begin(None))
        if (begun.public_key is not None) != (kind == "webauthn"):  # never another kind than was asked for
            raise not_understood()
        if begun.public_key is not None:
            made = self._prover.register(begun.public_key)
            return client.complete_enrolment(token, begun.enrolment, webauthn=made)
        if begun.uri is None or begun.secret is None:
            raise not_understood()
        show(begun.uri, begun.secret)
        for left in reversed(range(PROOF_TRIES)):
            code = self._prover.first_code(f"first code of {name!r}")
            try:
                return client.complete_enrolment(token, begun.enrolment, otp=code)
            except FactorError as exc:
                if not left:
                    raise
                self._ui.note(exc.message)
        raise AssertionError("unreachable")

    def remove(self, token: Secret, factor_id: str) -> None:
        """As ``Flow.remove_factor``."""

        def request(proof: Proof | None) -> StepUp | None:
            return self._client().remove_factor(token, factor_id, proof=proof)

        self.proven(token, f"remove the factor {factor_id}", request, request(None))
