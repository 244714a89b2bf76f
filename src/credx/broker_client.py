"""The client's side of the broker's HTTP API: one method per route, strict about what comes back.

An answer that is not understood is as good as none (``UnavailableError``). An error answer becomes the
error of the room it belongs to, with the next command to type.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from credx.errors import (
    AwsRefusedError,
    CredxError,
    DeniedError,
    FactorError,
    Refusal,
    SignInError,
    UnavailableError,
)
from credx.model import Secret
from credx.protocol import (
    AWS_REFUSED,
    CONFIGURATION_PATH,
    FACTOR_SESSIONS_PATH,
    FACTORS_BEGIN_PATH,
    FACTORS_COMPLETE_PATH,
    FACTORS_PATH,
    ROLES_PATH,
    TOKEN_PATH,
    Issued,
    Proof,
    StepUp,
    TokenRequest,
    not_understood,
    parse_json,
    proof_to_json,
)
from credx.ui import clean, clock_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from credx.http import Http, Response

MAX_DESCRIPTION: Final = 300  # characters of the broker's words that are passed on

T = TypeVar("T")

_BEARER = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750 2.1; nothing that could end a header line
_FACTOR_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

_AWS_HINT: Final = "tell the broker's administrators: docs/broker.md shows what the role in AWS must allow"

# error name -> (class, hint); RFC 6749 5.2, RFC 8693 2.2.2, RFC 9470
_ERRORS: Final[Mapping[str, tuple[type[CredxError], str]]] = {
    "access_denied": (DeniedError, "credx roles"),
    "invalid_scope": (DeniedError, "credx roles"),
    "invalid_target": (
        DeniedError,
        "credx roles shows which role is for a target; name it with --target ARN",
    ),
    "invalid_request": (DeniedError, "credx roles shows what the role wants, --help how to give it"),
    "payload_too_large": (DeniedError, "ask for fewer targets at once"),
    "unsupported_grant_type": (DeniedError, "credx and the broker differ in age: update the older one"),
    "invalid_token": (SignInError, "credx login"),
    "invalid_grant": (SignInError, "credx login"),
    "insufficient_user_authentication": (SignInError, "credx login --force"),
    "insufficient_authorization": (FactorError, "credx factor list"),
    AWS_REFUSED: (AwsRefusedError, _AWS_HINT),
    "slow_down": (UnavailableError, "wait a minute, then try again"),
    "temporarily_unavailable": (UnavailableError, "try again in a minute"),
    "server_error": (UnavailableError, "try again in a minute"),
}


@dataclass(frozen=True, kw_only=True)
class Enrolment:
    """A factor being added.

    Attributes:
        enrolment: the handle to complete it with.
        public_key: PublicKeyCredentialCreationOptionsJSON of a security key, else None.
        secret, uri: base32 secret and ``otpauth`` URI of a TOTP factor, else None.
    """

    enrolment: Secret
    public_key: dict[str, Any] | None = field(default=None, repr=False)
    secret: Secret | None = None
    uri: Secret | None = None


class BrokerClient:
    """Every method raises ``UnavailableError`` (no answer, or not an answer of a broker), ``SignInError`` (the
    ID token is not accepted), ``FactorError`` and ``DeniedError``.
    """

    def __init__(self, url: str, http: Http, *, now: Callable[[], float] = time.time) -> None:
        self._url = url.rstrip("/")
        self._http = http
        self._now = now

    def configuration(self) -> dict[str, Any]:
        return self._json("GET", CONFIGURATION_PATH)

    def roles(self, id_token: Secret) -> list[dict[str, Any]]:
        return _named(self._json("GET", ROLES_PATH, id_token), "roles", "name")

    def factors(self, id_token: Secret) -> list[dict[str, Any]]:
        return _named(self._json("GET", FACTORS_PATH, id_token), "factors", "id")

    def token(self, request: TokenRequest) -> Issued | StepUp:
        response = self._http.request(
            "POST",
            self._url + TOKEN_PATH,
            headers={"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
            body=request.to_form(),
        )
        try:
            return self._step_up(response) or _understood(lambda: Issued.from_json(self._body(response)))
        except DeniedError as exc:  # one machine asks for many roles, and an SDK shows no more than this line
            raise DeniedError(f"{request.ask.role}: {exc.message}", hint=exc.hint) from exc

    def begin_proof(self, id_token: Secret, auth_session: Secret) -> dict[str, Any]:
        """WebAuthn request options (``publicKey``) with a fresh challenge."""
        body = {"purpose": "prove", "auth_session": auth_session.reveal()}
        return _table(self._json("POST", FACTORS_BEGIN_PATH, id_token, body), "public_key")

    def begin_enrolment(
        self,
        id_token: Secret,
        *,
        kind: str,
        name: str,
        invitation: Secret | None = None,
        proof: Proof | None = None,
    ) -> Enrolment | StepUp:
        body: dict[str, Any] = {"purpose": "enrol", "kind": kind, "name": name}
        if invitation is not None:
            body["invitation"] = invitation.reveal()
        if proof is not None:
            body |= proof_to_json(proof)
        response = self._send("POST", FACTORS_BEGIN_PATH, id_token, body)
        return self._step_up(response) or _enrolment(self._body(response))

    def complete_enrolment(
        self,
        id_token: Secret,
        enrolment: Secret,
        *,
        webauthn: dict[str, Any] | None = None,
        otp: Secret | None = None,
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"enrolment": enrolment.reveal()}
        if webauthn is not None:
            body["webauthn"] = webauthn
        if otp is not None:
            body["otp"] = otp.reveal()
        return _table(self._json("POST", FACTORS_COMPLETE_PATH, id_token, body), "factor")

    def remove_factor(self, id_token: Secret, factor_id: str, *, proof: Proof | None = None) -> StepUp | None:
        """None when it is gone, else what is needed first."""
        if not _FACTOR_ID.fullmatch(factor_id):
            raise FactorError("there is no such factor", hint="credx factor list")
        body = {} if proof is None else proof_to_json(proof)
        response = self._send("DELETE", f"{FACTORS_PATH}/{factor_id}", id_token, body)
        if step_up := self._step_up(response):
            return step_up
        if response.status == 404:
            raise FactorError("there is no such factor", hint="credx factor list")
        if response.status != 204:
            self._body(response)
            raise not_understood()
        return None

    def end_factor_sessions(self, id_token: Secret) -> int:
        """How many earlier proofs were still good."""
        body = self._json("DELETE", FACTOR_SESSIONS_PATH, id_token)
        return _understood(lambda: int(body["ended"]))

    def _json(
        self, method: str, path: str, id_token: Secret | None = None, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return self._body(self._send(method, path, id_token, body))

    def _send(self, method: str, path: str, id_token: Secret | None, body: dict[str, Any] | None) -> Response:
        headers = {"accept": "application/json"}
        if id_token is not None:
            if not _BEARER.fullmatch(id_token.reveal()):
                raise SignInError("the ID token is not a token", hint="credx login --force")
            headers["authorization"] = f"Bearer {id_token.reveal()}"
        data = None
        if body is not None:
            headers["content-type"] = "application/json"
            data = json.dumps(body, separators=(",", ":")).encode("ascii")
        return self._http.request(method, self._url + path, headers=headers, body=data)

    def _step_up(self, response: Response) -> StepUp | None:
        """The session to prove a factor in, when that is what the broker answers."""
        if response.status != 403:
            return None
        body = _parse(response)
        if body is None or body.get("error") != "insufficient_authorization" or "auth_session" not in body:
            return None
        return _understood(lambda: StepUp.from_json(body))

    def _body(self, response: Response) -> dict[str, Any]:
        """The JSON of a success; the error of everything else."""
        body = _parse(response)
        if response.status in (200, 201):
            if body is None:
                raise not_understood()
            return body
        raise self._error(response, body or {})

    def _error(self, response: Response, body: Mapping[str, Any]) -> CredxError:
        name = body.get("error")
        kind, hint = _ERRORS.get(name, (None, "")) if isinstance(name, str) else (None, "")
        if kind is None:
            return UnavailableError(
                f"{self._url} answered {response.status}, not as a credx broker does",
                hint="credx init URL with the broker's address",
            )
        text = body.get("error_description")
        said = (
            clean(text, MAX_DESCRIPTION).strip().rstrip(".") if isinstance(text, str) and text else str(name)
        )
        if name == AWS_REFUSED:
            return AwsRefusedError(said, code=said.rpartition(" ")[2], hint=_AWS_HINT)
        # it can be why a token is too old or not yet valid
        skew = clock_apart(response.ahead(self._now()), "the broker's")
        if kind is SignInError and skew:
            return SignInError(f"{said}; {skew}", hint="set the clock, then: credx login")
        return kind(said, hint=hint)


def _parse(response: Response) -> dict[str, Any] | None:
    try:
        return parse_json(response.body)
    except Refusal:
        return None


def _understood(parse: Callable[[], T]) -> T:
    try:
        return parse()
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise not_understood() from exc


def _table(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key)
    if not isinstance(value, dict):
        raise not_understood()
    return value


def _named(body: Mapping[str, Any], key: str, name: str) -> list[dict[str, Any]]:
    value = body.get(key)
    if not isinstance(value, list) or not all(
        isinstance(v, dict) and isinstance(v.get(name), str) for v in value
    ):
        raise not_understood()
    return value


def _enrolment(body: Mapping[str, Any]) -> Enrolment:
    match body:
        case {"enrolment": str(handle), "public_key": dict(options)}:
            return Enrolment(enrolment=Secret(handle), public_key=options)
        case {"enrolment": str(handle), "secret": str(secret), "uri": str(uri)}:
            return Enrolment(enrolment=Secret(handle), secret=Secret(secret), uri=Secret(uri))
    raise not_understood()
