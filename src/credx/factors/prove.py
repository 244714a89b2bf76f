"""Choose a factor among those that would do, and prove it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from credx.errors import FactorError
from credx.factors.totp import ask_code
from credx.protocol import TotpProof, WebAuthnProof

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fido2.ctap import CtapDevice

    from credx.factors import Devices, TotpCode
    from credx.model import Secret
    from credx.protocol import Proof, StepUp
    from credx.ui import UI


class Prover:
    """The person's factors.

    Args:
        origin: of the broker, from the settings: what a security key signs.
        totp_code: answers codes without a person, or None.
        may_touch: a touch may be asked for, see ``Flow``.
    """

    def __init__(
        self,
        *,
        ui: UI,
        devices: Devices,
        totp_code: TotpCode | None,
        origin: str,
        may_touch: bool,
    ) -> None:
        self._ui = ui
        self._devices = devices
        self._totp_code = totp_code
        self._origin = origin
        self._may_touch = may_touch

    def prove(
        self,
        step: StepUp,
        approve: str,
        begin: Callable[[Secret], dict[str, Any]],
        *,
        person: bool = True,
    ) -> Proof:
        """A proof for ``step``: a security key where one is plugged in, else a code.

        Args:
            step: the broker's question.
            approve: what the proof approves; shown to the person.
            begin: makes the WebAuthn challenge, which then lives for two minutes.
            person: False allows only what nobody has to do something for.

        Raises:
            FactorError: no factor would do, or the one that was tried did not work out.
        """
        kinds = {factor.get("kind") for factor in step.factors}
        if not kinds & {"webauthn", "totp"}:
            raise FactorError(
                "you have no second factor that would do here",
                hint="credx factor list, then: credx factor add",
            )
        if "webauthn" in kinds and person and self._may_touch:
            keys = self._plugged_in(required="totp" not in kinds)
            if keys:
                return self._touched(keys, step, approve, begin)
        if "totp" in kinds:
            return TotpProof(auth_session=step.auth_session, otp=self.code(approve, person=person))
        raise FactorError(
            f"would have asked for a touch to approve: {approve}",
            hint='run the command in a terminal, or set prompt = "touch"',
        )

    def _plugged_in(self, *, required: bool) -> Sequence[CtapDevice]:
        from credx.factors.key_errors import no_key  # noqa: PLC0415 -- 60 ms that a cached answer never needs

        try:
            keys = self._devices()
        except FactorError:
            if required:
                raise
            return []
        if not keys and required:
            raise no_key()
        return keys

    def _touched(
        self,
        keys: Sequence[CtapDevice],
        step: StepUp,
        approve: str,
        begin: Callable[[Secret], dict[str, Any]],
    ) -> Proof:
        from credx.factors import fido2  # noqa: PLC0415

        assertion = fido2.get_assertion(
            begin(step.auth_session),
            origin=self._origin,
            devices=lambda: keys,
            ui=self._ui,
            approve=approve,
            seconds=self._ui.patience(fido2.CEREMONY_SECONDS),
        )
        return WebAuthnProof(auth_session=step.auth_session, assertion=assertion)

    def register(self, public_key: dict[str, Any]) -> dict[str, Any]:
        """Add a security key: RegistrationResponseJSON for the broker's options."""
        if not self._may_touch:
            raise FactorError("would have asked for a touch", hint="run the command in a terminal")
        from credx.factors import fido2  # noqa: PLC0415

        return fido2.make_credential(public_key, origin=self._origin, devices=self._devices, ui=self._ui)

    def code(self, approve: str, *, person: bool = True) -> Secret:
        """A code: from the hook if there is one, else from the person."""
        found = self._totp_code() if self._totp_code is not None else None
        if found is not None:
            return found
        if not person:
            raise FactorError(f"would have asked for a code to approve: {approve}")
        return ask_code(self._ui, f"code of your authenticator app, to approve: {approve}")

    def first_code(self, what: str) -> Secret:
        """The code that confirms a new authenticator: the person has just set it up, so they come first."""
        if self._ui.interactive:
            return ask_code(self._ui, what)
        return self.code(what)
