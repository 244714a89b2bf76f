"""What the shim plugs in: keyring, authenticator app, key, browser."""

from __future__ import annotations

import base64
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from credx.model import Secret
from credx.sandbox import plug
from credx.sandbox.plug import AuthenticatorApp, PocketKeyStore, code_at, edges_for, pocket
from credx.sandbox.security_key import SoftwareKey

if TYPE_CHECKING:
    from pathlib import Path

SEED = Secret(base64.b32encode(b"12345678901234567890").decode())  # RFC 6238, appendix B


@pytest.mark.parametrize(
    ("time", "code"),
    [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")],
)
def test_codes_are_those_of_rfc_6238(time: int, code: str) -> None:
    assert code_at(SEED, time // 30).reveal() == code


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_no_code_is_given_twice_and_the_wait_ends_with_the_step(tmp_path: Path) -> None:
    clock = Clock(30 * 1000 + 10)
    path = tmp_path / "totp"
    AuthenticatorApp(path).enrol(SEED)
    apps = [AuthenticatorApp(path, now=lambda: clock.now, sleep=clock.sleep) for _ in range(2)]
    codes = [apps[i % 2].code() for i in range(4)]
    assert codes == [code_at(SEED, step) for step in (999, 1000, 1001, 1002)]
    assert clock.slept == [20]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_old_code_is_not_begun_with_just_before_it_ends(tmp_path: Path) -> None:
    AuthenticatorApp(tmp_path / "totp").enrol(SEED)
    app = AuthenticatorApp(tmp_path / "totp", now=lambda: 30 * 1000 + 27.0)
    assert app.code() == code_at(SEED, 1000)


def test_waiting_has_an_end(tmp_path: Path) -> None:
    clock = Clock(30 * 1000)
    path = tmp_path / "totp"
    AuthenticatorApp(path).enrol(SEED)
    plug.write_private(path, plug.read_private(path).replace(b'"last_step": 0', b'"last_step": 5000'))  # type: ignore[union-attr]
    assert AuthenticatorApp(path, now=lambda: clock.now, sleep=clock.sleep).code() is None
    assert clock.now <= 30 * 1000 + 120


def test_without_a_seed_there_is_no_code(tmp_path: Path) -> None:
    assert AuthenticatorApp(tmp_path / "totp").code() is None


def test_the_keystore_keeps_one_key(tmp_path: Path) -> None:
    store = PocketKeyStore(tmp_path / "keyring")
    assert store.load() is None
    key = store.create()
    assert len(key) == 32
    assert PocketKeyStore(tmp_path / "keyring").load() == key
    assert stat.S_IMODE((tmp_path / "keyring").stat().st_mode) == 0o600
    assert store.create() != key
    store.delete()
    store.delete()
    assert store.load() is None


def test_the_parts(tmp_path: Path) -> None:
    place = pocket(tmp_path, "alice")
    place.mkdir(parents=True)
    parts = edges_for(tmp_path, "alice")
    assert list(parts.devices()) == []
    (place / "security-key").touch()
    (key,) = parts.devices()
    assert isinstance(key, SoftwareKey)
    assert parts.totp_code() is None
    assert parts.keystore().load() is None


def test_importing_the_plug_is_light() -> None:
    code = "import sys, credx.sandbox.plug; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"moto", "flask", "authlib", "boto3", "fido2", "cryptography", "jwt"} & set(
        done.stdout.split()
    )
