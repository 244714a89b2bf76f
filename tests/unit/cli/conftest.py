"""One run of the command line over edges that remember: no terminal, no network, no keyring."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from credx.broker.assemble import open_office
from credx.cli.edges import App, Edges
from credx.cli.main import build
from credx.config import Settings
from credx.model import AwsCredentials, Secret, VerifiedClaims

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from credx.protocol import Ask

NOW = 1_800_000_000.0
CREDENTIALS = AwsCredentials(
    access_key_id="ASIAEXAMPLE",
    secret_access_key=Secret("the-secret-key"),
    session_token=Secret("the-session-token"),
    expiration=int(NOW) + 3600,
    account_id="111122223333",
    region="eu-central-1",
    role_arn="arn:aws:iam::111122223333:role/dev",
)
SETTINGS = Settings(
    broker="https://broker.example.com",
    issuer="https://idp.example.com",
    client_id="credx-cli",
    id_scopes=("openid",),
    default_role=None,
    region=None,
    sts_endpoint=None,
    ca_file=None,
    token_source=None,
    prompt="auto",
)
ROLE = {
    "name": "dev", "account": "111122223333", "arn": "arn:aws:iam::111122223333:role/dev",
    "region": "eu-central-1", "description": "", "factors": ["webauthn", "totp"], "duration": 3600,
    "max_duration": 3600, "factor_max_age": 0, "factor_group": "dev", "requires_target": False,
    "requires_reason": False, "operations": ["creds"], "sts": "client", "enforcement": "trust-policy",
    "scopes": [{"name": "read-logs", "description": "", "enforcement": "narrowing"}],
}  # fmt: skip


class FakeFlow:
    """``credx.flow.Flow`` that answers at once and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Ask, int, bool]] = []
        self.settings: Settings | None = None
        self.error: BaseException | None = None
        self.listed: list[dict[str, Any]] = [ROLE]
        self.removed: list[str] = []
        self.added: list[tuple[str, str, str | None]] = []
        self.not_revoked: list[str] = []
        self.signed_in: dict[str, Any] | None = None

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    def credentials(self, ask: Ask, *, min_left: int = 300, use_cache: bool = True) -> AwsCredentials:
        self._fail()
        self.asked.append((ask, min_left, use_cache))
        return CREDENTIALS

    def roles(self) -> list[dict[str, Any]]:
        self._fail()
        return self.listed

    def sign_in(self, *, force: bool = False) -> VerifiedClaims:
        self._fail()
        self.forced = force
        return VerifiedClaims(
            issuer="https://idp.example.com", subject="s-1", audience="credx-cli", issued_at=0, expires_at=1,
            auth_time=None, amr=(), token_hash="", claims={"email": "a\x1b[31m@b.example"},
        )  # fmt: skip

    def log_out(self) -> list[str]:
        self._fail()
        return self.not_revoked

    def status(self) -> dict[str, Any]:
        self._fail()
        return {
            "signed_in": self.signed_in,
            "persistent": True,
            "credentials": [
                {"role": "dev", "role_arn": ROLE["arn"], "operation": "creds", "scopes": ["read-logs"],
                 "resources": [], "expires_in": 1800}
            ],
        }  # fmt: skip

    def factors(self) -> list[dict[str, Any]]:
        self._fail()
        return [
            {"id": "f1", "kind": "totp", "name": "phone\u202e", "created_at": NOW, "last_used_at": None},
        ]

    def add_factor(
        self,
        kind: str,
        name: str,
        invitation: Secret | None = None,
        *,
        show: Callable[[Secret, Secret], None],
    ) -> dict[str, Any]:
        self._fail()
        self.added.append((kind, name, invitation.reveal() if invitation else None))
        if kind == "totp":
            show(Secret("otpauth://totp/x?secret=SEED"), Secret("SEED"))
        return {"id": "f1", "kind": kind, "name": name}

    def remove_factor(self, factor_id: str) -> None:
        self._fail()
        self.removed.append(factor_id)


class FakeDevice:
    """A terminal on which somebody types the given lines."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.shown = ""
        self.waited: list[float | None] = []
        self.echoed: list[bool] = []

    def write(self, text: str) -> None:
        self.shown += text

    def ask(self, question: str, *, echo: bool, seconds: float | None) -> str:
        self.shown += question
        self.waited.append(seconds)
        self.echoed.append(echo)
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)


@dataclasses.dataclass
class Outcome:
    code: int
    out: str
    err: str
    writes: list[bytes]
    executed: list[tuple[list[str], dict[str, str]]]


class Bench:
    """``run`` is ``credx ARGS``."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.flow = FakeFlow()
        self.device: FakeDevice | None = None
        self.environ: dict[str, str] = {"CREDX_HOME": str(home), "PATH": "/usr/bin:/bin"}
        self.stdin: Any = None
        self.execute: Callable[[Sequence[str], Mapping[str, str]], int] | None = None
        self.notes_visible = True
        self._capsys = capsys

    def configure(self, **changes: Any) -> None:
        from credx import config

        config.save(config.places(self.environ), dataclasses.replace(SETTINGS, **changes))

    def sit_down(self, *lines: str) -> FakeDevice:
        """Somebody is at a terminal and will type these lines."""
        self.device = FakeDevice(*lines)
        return self.device

    def run(self, *args: str) -> Outcome:
        writes: list[bytes] = []
        executed: list[tuple[list[str], dict[str, str]]] = []
        notes: list[str] = []

        def execute(command: Sequence[str], environ: Mapping[str, str]) -> int:
            executed.append((list(command), dict(environ)))
            return 7

        def flow(settings: Settings, app: App) -> Any:
            self.app = app
            self.flow.settings = settings
            return self.flow

        edges = Edges(
            environ=self.environ,
            now=lambda: NOW,
            rng=lambda count: b"\x01" * count,
            stdin=self.stdin,
            write=writes.append,
            is_terminal=lambda: False,
            execute=self.execute or execute,
            open_device=lambda: self.device,
            write_note=notes.append,
            notes_visible=lambda: self.notes_visible,
            flow=flow,
        )
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            build(edges).main(list(args))
        shown = self._capsys.readouterr()
        return Outcome(
            code=int(ended.value.code or 0),
            out=b"".join(writes).decode() + shown.out,
            err="".join(notes) + shown.err,
            writes=writes,
            executed=executed,
        )


@pytest.fixture
def data(tmp_path: Path) -> str:
    """The directory of a broker that has served."""
    made = tmp_path / "data"
    open_office(made, now=lambda: NOW).store.close()
    return str(made)


@pytest.fixture
def bare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Nothing is configured yet."""
    return Bench(tmp_path / "home", capsys)


@pytest.fixture
def bench(bare: Bench) -> Bench:
    bare.configure()
    return bare
