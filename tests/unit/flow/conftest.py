"""A broker on the wire, an identity provider and an STS that answer from memory."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from support.ui import FakeUI

import credx.identity
import credx.sts
from credx.config import Settings
from credx.credentials.store import NoVault
from credx.errors import AwsRefusedError, UnavailableError
from credx.factors import fido2
from credx.flow import Flow
from credx.http import Response
from credx.model import AwsCredentials, Secret, VerifiedClaims

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NOW = 1_800_000_000
ROLE_ARN = "arn:aws:iam::111122223333:role/dev"


class FakeBroker:
    """Speaks the wire protocol through ``Http.request``. Codes: ``123456`` is right."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.down = False
        self.kinds = ["totp"]
        self.factor_max_age = 0
        self.groups = {"dev": "dev", "prod": "prod"}
        self.sessions: dict[str, str] = {}
        self.wants_proof = True
        self.broker_sts = False
        self.token_type: str | None = None
        self.denied = False
        self.refused_tokens: dict[str, str] = {}
        self.calls: list[str] = []
        self.forms: list[dict[str, list[str]]] = []
        self.steps = 0

    def fetch(self, url: str, *, deadline: float = 10) -> bytes:
        raise AssertionError(url)

    def count(self, call: str) -> int:
        return self.calls.count(call)

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None,
        cap: int = 0, deadline: float = 0,
    ) -> Response:  # fmt: skip
        path = url.removeprefix("https://credx.example.com")
        self.calls.append(f"{method} {path}")
        if self.down:
            raise UnavailableError("the broker is out of reach")
        if path == "/token":
            form = parse_qs((body or b"").decode())
            self.forms.append(form)
            status, answer = self.token(form)
        else:
            token = (headers or {}).get("authorization", "").removeprefix("Bearer ")
            status, answer = self.other(method, path, token, json.loads(body or b"{}"))
        data = b"" if answer is None else json.dumps(answer).encode()
        return Response(status=status, headers={"content-type": "application/json"}, body=data)

    def step_up(self, retry: str | None = None) -> tuple[int, dict[str, Any]]:
        self.steps += 1
        return 403, {
            "error": "insufficient_authorization",
            "error_description": retry or "a second factor is needed",
            "auth_session": f"auth-session-{self.steps:08d}",
            "expires_in": 300,
            "factors": [{"kind": kind, "id": kind, "name": kind} for kind in self.kinds],
        } | ({"retry": True} if retry else {})

    def token(self, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        token, role = form["subject_token"][0], form["audience"][0]
        if token in self.refused_tokens:
            return 401, {"error": self.refused_tokens[token], "error_description": "sign in again"}
        if self.denied:
            return 403, {"error": "access_denied", "error_description": "not for you"}
        if self.wants_proof:
            session = form.get("factor_session", [""])[0]
            if session:
                if self.sessions.get(session) != self.groups[role]:
                    return 403, {"error": "insufficient_authorization", "error_description": "ended"}
            elif "webauthn" in form:
                assert json.loads(form["webauthn"][0]) == {"id": "signed"}
            elif form.get("otp") != ["123456"]:
                return self.step_up("the code is not right" if "otp" in form else None)
        answer: dict[str, Any] = {
            "access_token": "WEB-IDENTITY-TOKEN",
            "issued_token_type": self.token_type or "urn:ietf:params:oauth:token-type:jwt",
            "token_type": "N_A", "expires_in": 120, "issuance_id": "i-1", "role_arn": ROLE_ARN,
            "region": "eu-central-1", "session_name": "ada-1", "duration": 3600, "scope": "",
        }  # fmt: skip
        if self.broker_sts:
            answer["issued_token_type"] = "urn:credx:params:oauth:token-type:aws-credentials"
            answer["access_token"] = json.dumps(
                {
                    "AccessKeyId": "ASIABROKER", "SecretAccessKey": "s", "SessionToken": "t",
                    "Expiration": "2027-01-15T09:00:00Z",
                }
            )  # fmt: skip
        if self.factor_max_age and self.wants_proof:
            handle = f"factor-session-{len(self.sessions):08d}"
            self.sessions[handle] = self.groups[role]
            answer |= {
                "factor_session": handle, "factor_session_expires_in": self.factor_max_age,
                "factor_group": self.groups[role],
            }  # fmt: skip
        return 200, answer

    def other(self, method: str, path: str, token: str, body: dict[str, Any]) -> tuple[int, Any]:  # noqa: C901, PLR0911
        if token in self.refused_tokens:
            return 401, {"error": self.refused_tokens[token], "error_description": "sign in again"}
        proven = body.get("otp") == "123456" or "webauthn" in body
        match method, path:
            case "GET", "/roles":
                return 200, {"roles": [{"name": n, "factor_group": g} for n, g in self.groups.items()]}
            case "GET", "/factors":
                return 200, {"factors": [{"id": "f1", "kind": "totp", "name": "phone"}]}
            case "POST", "/factors/begin" if body["purpose"] == "prove":
                return 200, {"public_key": {"challenge": body["auth_session"]}, "expires_in": 120}
            case "POST", "/factors/begin":
                if not proven and "invitation" not in body:
                    return self.step_up()
                if body["kind"] == "webauthn":
                    return 200, {"enrolment": "e" * 20, "expires_in": 300, "public_key": {"rp": {}}}
                return 200, {
                    "enrolment": "e" * 20,
                    "expires_in": 300,
                    "secret": "BASE32",
                    "uri": "otpauth://x",
                }
            case "POST", "/factors/complete":
                if "otp" in body and body["otp"] != "123456":
                    return 403, {"error": "insufficient_authorization", "error_description": "wrong code"}
                return 201, {"factor": {"id": "f2", "kind": "totp", "name": "new"}}
            case "DELETE", "/factors/f1":
                return (204, None) if proven else self.step_up()
            case "DELETE", "/factor-sessions":
                ended = len(self.sessions)
                self.sessions.clear()
                return 200, {"ended": ended}
        raise AssertionError(f"{method} {path}")


class FakeIdp:
    """Stands for ``identity.code_flow`` and ``identity.discovery``."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.subject = "ada"
        self.auth_time = 0
        self.life = 3600
        self.gives_refresh_tokens = True
        self.refresh_works: bool | Exception = True
        self.revoke_works: bool | Exception = True
        self.events: list[str] = []

    def tokens(self, event: str) -> Any:
        self.events.append(event)
        now = int(self.clock())
        if event == "browser":
            self.auth_time = now
        claims = VerifiedClaims(
            issuer="https://idp.example.com", subject=self.subject, audience="credx-cli", issued_at=now,
            expires_at=now + self.life, auth_time=self.auth_time, amr=(), token_hash="h",
            claims=MappingProxyType({"email": f"{self.subject}@example.com"}),
        )  # fmt: skip
        refresh = Secret(f"REFRESH-{len(self.events)}") if self.gives_refresh_tokens else None
        return SimpleNamespace(
            id_token=Secret(f"idt.{len(self.events)}"), refresh_token=refresh, claims=claims
        )

    def sign_in(self, provider: Any, *, open_browser: Callable[[str], bool], **rest: Any) -> Any:
        assert set(rest) == {"client_id", "scopes", "http", "keys", "ui", "now", "rng", "deadline"}
        open_browser("https://idp.example.com/authorize")
        return self.tokens("browser")

    def refresh(self, provider: Any, client_id: str, refresh_token: Secret, *_: Any) -> Any:
        if isinstance(self.refresh_works, Exception):
            raise self.refresh_works
        return self.tokens("refresh")

    def revoke(self, provider: Any, client_id: str, token: Secret, http: Any) -> bool:
        self.events.append(f"revoke {token.reveal()}")
        if isinstance(self.revoke_works, Exception):
            raise self.revoke_works
        return self.revoke_works


@dataclass
class World:
    monkeypatch: pytest.MonkeyPatch
    now: float = NOW
    ui: FakeUI = field(default_factory=FakeUI)
    vault: Any = field(default_factory=NoVault)
    keys: list[Any] = field(default_factory=list)
    totp_code: Callable[[], Secret | None] | None = None
    browser_opened: list[str] = field(default_factory=list)
    no_browser: bool = False
    environ: dict[str, str] = field(default_factory=dict)
    sts_calls: list[dict[str, Any]] = field(default_factory=list)
    sts_refuses: bool = False
    session_seconds: int = 3600
    settings: Settings = field(
        default_factory=lambda: Settings(
            broker="https://credx.example.com", issuer="https://idp.example.com", client_id="credx-cli"
        )
    )

    def __post_init__(self) -> None:
        self.broker = FakeBroker(self.clock)
        self.idp = FakeIdp(self.clock)

    def clock(self) -> float:
        return self.now

    def configure(self, **changes: Any) -> None:
        self.settings = replace(self.settings, **changes)

    def open_browser(self, url: str) -> bool:
        self.browser_opened.append(url)
        return True

    def flow(self, vault: Any = None) -> Flow:
        """A new process on the same machine."""
        return Flow(
            settings=self.settings, vault=vault or self.vault, http=self.broker, ui=self.ui,
            devices=lambda: list(self.keys), totp_code=self.totp_code,
            open_browser=None if self.no_browser else self.open_browser,
            now=self.clock, rng=lambda n: b"r" * n, environ=self.environ, stdin=None,
        )  # fmt: skip

    def assume(self, **asked: Any) -> AwsCredentials:
        self.sts_calls.append(asked)
        if self.sts_refuses:
            raise AwsRefusedError("AWS refused", code="AccessDenied")
        return AwsCredentials(
            access_key_id=f"ASIA{len(self.sts_calls)}", secret_access_key=Secret("AWS-SECRET"),
            session_token=Secret("AWS-TOKEN"), expiration=int(self.now) + self.session_seconds,
            account_id="111122223333", region=asked["region"], role_arn=asked["role_arn"],
        )  # fmt: skip


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(monkeypatch)
    code_flow, discovery = ModuleType("code_flow"), ModuleType("discovery")
    code_flow.DEADLINE = 180.0  # type: ignore[attr-defined]
    code_flow.sign_in = found.idp.sign_in  # type: ignore[attr-defined]
    code_flow.refresh = found.idp.refresh  # type: ignore[attr-defined]
    code_flow.revoke = found.idp.revoke  # type: ignore[attr-defined]
    discovery.discover = lambda issuer, http: issuer  # type: ignore[attr-defined]
    for name, module in {"code_flow": code_flow, "discovery": discovery}.items():
        monkeypatch.setitem(sys.modules, f"credx.identity.{name}", module)
        monkeypatch.setattr(credx.identity, name, module, raising=False)
    monkeypatch.setattr(credx.sts, "assume_role_with_web_identity", found.assume)
    monkeypatch.setattr(fido2, "get_assertion", lambda options, **rest: {"id": "signed"})
    monkeypatch.setattr(fido2, "make_credential", lambda options, **rest: {"id": "made"})
    return found
