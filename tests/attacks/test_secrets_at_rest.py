"""Other users of the machine, planted files and damaged files: nothing is read, followed or leaked."""

from __future__ import annotations

import json
import os
import secrets
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from credx.credentials.keystore import SystemKeyStore
from credx.credentials.store import FILE, HEADER, LOCK, MAX_FILE, TURN, Vault
from credx.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")

CANARY = "canary-" + secrets.token_hex(8)


class Keys:
    def __init__(self) -> None:
        self.key: bytes | None = None

    def load(self) -> bytes | None:
        return self.key

    def create(self) -> bytes:
        self.key = secrets.token_bytes(32)
        return self.key

    def delete(self) -> None:
        self.key = None


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "home" / "state"


@pytest.fixture
def vault(state: Path) -> Vault:
    vault = Vault(Keys(), state)
    vault.put("identity:x", {"id_token": CANARY})
    return vault


def test_files_are_private_from_the_first_moment_under_umask_000(state: Path) -> None:
    before = os.umask(0)
    try:
        vault = Vault(Keys(), state)
        vault.put("a", {"n": 1})
        with vault.turn():
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in state.iterdir()} == {
        FILE: 0o600, LOCK: 0o600, TURN: 0o600,
    }  # fmt: skip


def test_no_file_holds_a_secret_in_the_clear(vault: Vault, state: Path) -> None:
    for file in state.iterdir():
        assert CANARY.encode() not in file.read_bytes()
        assert b"id_token" not in file.read_bytes()
        assert b"identity" not in file.read_bytes()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o666])
@pytest.mark.parametrize("name", [FILE, LOCK])
def test_a_file_open_to_others_is_refused(vault: Vault, state: Path, mode: int, name: str) -> None:
    (state / name).chmod(mode)
    with pytest.raises(ConfigError, match="is open to other users") as caught:
        vault.put("b", {"n": 1})
    assert caught.value.hint == f"chmod 600 {state / name}"
    assert stat.S_IMODE((state / name).stat().st_mode) == mode  # refused, not repaired


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777])
def test_a_directory_open_to_others_is_refused(vault: Vault, state: Path, mode: int) -> None:
    state.chmod(mode)
    with pytest.raises(ConfigError, match="is open to other users"):
        vault.get("identity:x")
    state.chmod(0o700)
    assert vault.get("identity:x")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="chown needs root")
@pytest.mark.parametrize("name", ["", FILE, LOCK])
def test_what_belongs_to_somebody_else_is_refused(vault: Vault, state: Path, name: str) -> None:
    os.chown(state / name, 65534, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        vault.put("b", {"n": 1})


@pytest.mark.parametrize("name", [FILE, LOCK, TURN])
def test_a_link_is_not_followed_and_its_target_stays_as_it_is(
    vault: Vault, state: Path, tmp_path: Path, name: str
) -> None:
    """CVE-2025-9810: a symlink in place of a lock file."""
    target = tmp_path / "precious"
    target.write_text("precious")
    target.chmod(0o600)
    (state / name).unlink(missing_ok=True)
    (state / name).symlink_to(target)
    use = (lambda: vault.turn().__enter__()) if name == TURN else (lambda: vault.put("b", {"n": 1}))
    with pytest.raises(ConfigError, match="is a link"):
        use()
    assert target.read_text() == "precious"


def test_a_dangling_link_makes_no_file_elsewhere(state: Path, tmp_path: Path) -> None:
    state.mkdir(parents=True, mode=0o700)
    (state / LOCK).symlink_to(tmp_path / "planted")
    with pytest.raises(ConfigError):
        Vault(Keys(), state).put("a", {"n": 1})
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("target", ["elsewhere", "missing"])
def test_a_linked_directory_is_refused(state: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    state.parent.mkdir()
    state.symlink_to(tmp_path / target)
    with pytest.raises(ConfigError):
        Vault(Keys(), state).put("a", {"n": 1})
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_second_name_for_the_file_is_refused(vault: Vault, state: Path, tmp_path: Path) -> None:
    os.link(state / FILE, tmp_path / "second")
    with pytest.raises(ConfigError, match="not a plain file of its own"):
        vault.get("identity:x")


def test_a_fifo_in_the_place_of_the_file_neither_hangs_nor_serves(vault: Vault, state: Path) -> None:
    (state / FILE).unlink()
    os.mkfifo(state / FILE, 0o600)
    with pytest.raises(ConfigError, match="not a plain file"):
        vault.get("identity:x")


def test_a_directory_in_the_place_of_the_file_is_refused(vault: Vault, state: Path) -> None:
    (state / FILE).unlink()
    (state / FILE).mkdir()
    with pytest.raises(ConfigError):
        vault.get("identity:x")


@pytest.mark.parametrize("position", [0, len(HEADER) - 1, len(HEADER), len(HEADER) + 12, -1])
def test_a_changed_byte_anywhere_makes_the_file_worthless(vault: Vault, state: Path, position: int) -> None:
    data = bytearray((state / FILE).read_bytes())
    data[position] ^= 1
    (state / FILE).write_bytes(bytes(data))
    assert vault.get("identity:x") is None
    assert vault.names() == []


@pytest.mark.parametrize(
    "data", [b"", HEADER, HEADER + b"x" * 12, b"{}", HEADER + b"\0" * 100, b"x" * (MAX_FILE + 10)]
)
def test_rubbish_counts_as_empty_and_does_not_stop_the_next_write(
    vault: Vault, state: Path, data: bytes
) -> None:
    (state / FILE).write_bytes(data)
    assert vault.names() == []
    vault.put("b", {"n": 1})
    assert vault.names() == ["b"]


def test_an_older_file_cannot_be_opened_with_a_new_key(vault: Vault, state: Path) -> None:
    old = (state / FILE).read_bytes()
    vault.wipe()
    vault.put("b", {"n": 1})
    (state / FILE).write_bytes(old)
    assert vault.get("identity:x") is None


def test_a_write_that_fails_leaves_the_old_file_whole(
    vault: Vault, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="cannot be written"):
        vault.put("b", {"n": 1})
    monkeypatch.undo()
    assert vault.names() == ["identity:x"]
    assert sorted(file.name for file in state.iterdir()) == sorted([FILE, LOCK])


def test_litter_of_a_killed_writer_is_no_obstacle(vault: Vault, state: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (state / f"{FILE}.new").symlink_to(target)
    vault.put("b", {"n": 1})
    assert vault.names() == ["b", "identity:x"]
    assert target.read_text() == "precious"


def test_nothing_that_prints_the_vault_prints_a_secret(vault: Vault) -> None:
    assert CANARY not in repr(vault)
    assert CANARY not in str(vars(vault))


def test_the_key_is_neither_in_argv_nor_in_the_environment_of_the_child(tmp_path: Path) -> None:
    report = tmp_path / "report"
    spy = (
        "import json, os, pathlib, sys; request = sys.stdin.read();"
        "seen = ' '.join(open('/proc/self/cmdline').read().split('\\0')) if os.path.exists('/proc/self/cmdline')"
        " else ' '.join(sys.argv);"
        f"pathlib.Path({str(report)!r}).write_text(json.dumps([request, seen, dict(os.environ)]));"
        "print('{}')"
    )
    SystemKeyStore((sys.executable, "-c", spy), limit=20).create()
    request, argv, environ = json.loads(report.read_text())
    key = json.loads(request)["key"]
    assert key not in argv
    assert key not in environ.values()


def test_variables_and_working_directory_choose_no_code_for_the_child(tmp_path: Path) -> None:
    """A planted module, a keyring of the caller's choice, a plain-text backend in keyring's own settings."""
    ran = tmp_path / "ran"
    for name in ("keyring.py", "json.py", "evil.py", "sitecustomize.py"):
        (tmp_path / name).write_text(f"open({str(ran)!r}, 'w')\nclass Keyring: priority = 9\n")
    config = tmp_path / "config" / "python_keyring"
    config.mkdir(parents=True)
    (config / "keyringrc.cfg").write_text(
        f"[backend]\ndefault-keyring=evil.Keyring\nkeyring-path={tmp_path}\n"
    )
    code = "from credx.credentials.keystore import *\ntry: SystemKeyStore(limit=30).load()\nexcept KeyStoreUnavailable as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-P", "-E", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={
            "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path / "config"), "PYTHON_KEYRING_BACKEND": "evil.Keyring",
            "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent",
        },
    )  # fmt: skip
    assert not ran.exists()
    assert done.stdout.strip() == "there is no keyring that credx trusts on this machine"
