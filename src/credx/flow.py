"""THE client story: cache -> identity -> challenge -> factor -> exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TextIO

    from fido2.ctap import CtapDevice

    from credx.config import Settings
    from credx.credentials.store import AnyVault
    from credx.factors import TotpCode
    from credx.http import Http
    from credx.model import AwsCredentials, Secret, VerifiedClaims
    from credx.protocol import Ask
    from credx.ui import UI


class Flow:
    """Args as ports: ``open_browser`` is None when nobody may be asked to sign in;
    ``rng`` is ``secrets.token_bytes``; ``stdin`` is read only for ``token_source = "stdin"``.

    Without ``ui.interactive`` no ceremony starts (browser, touch, code from a person) unless
    ``settings.prompt == "touch"``. ``--no-input`` and ``CI=true`` must therefore set ``prompt`` to ``auto``.
    A ``totp_code`` hook needs no person and always serves.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        vault: AnyVault,
        http: Http,
        ui: UI,
        devices: Callable[[], Sequence[CtapDevice]],
        totp_code: TotpCode | None = None,
        open_browser: Callable[[str], bool] | None,
        now: Callable[[], float],
        rng: Callable[[int], bytes],
        environ: Mapping[str, str],
        stdin: TextIO | None,
    ) -> None:
        raise NotImplementedError

    def credentials(self, ask: Ask, *, min_left: int = 300, use_cache: bool = True) -> AwsCredentials:
        raise NotImplementedError

    def sign_in(self, *, force: bool = False) -> VerifiedClaims:
        raise NotImplementedError

    def id_token(self) -> Secret:
        raise NotImplementedError

    def status(self) -> dict[str, Any]:
        """``{"signed_in": {"issuer","subject","user","expires_at","renewable"} | None, "persistent": bool,
        "credentials": [{"role","role_arn","operation","scopes","resources","expires_in"}]}``; no network."""
        raise NotImplementedError

    def log_out(self) -> list[str]:
        """Local state is gone afterwards; answers what could not be revoked elsewhere, one line each."""
        raise NotImplementedError

    def roles(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def factors(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def add_factor(
        self,
        kind: str,
        name: str,
        invitation: Secret | None = None,
        *,
        show: Callable[[Secret, Secret], None],
    ) -> dict[str, Any]:
        """``show(uri, secret)`` puts a TOTP secret on the terminal. Answers the broker's factor object."""
        raise NotImplementedError

    def remove_factor(self, factor_id: str) -> None:
        raise NotImplementedError
