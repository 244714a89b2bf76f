"""``credx broker``: serve, check, invite."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credx.protocol import HANDLE
from credx.sandbox.scenario import policy_text

if TYPE_CHECKING:
    from conftest import Bench

ISSUER = "https://idp.example.com"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    text = policy_text(broker="https://credx.example.com", issuer=ISSUER, client_id="credx-cli")
    path.write_text(text.replace('rp_id = "localhost"\n', ""), encoding="utf-8")
    return path


def test_check_says_per_role_and_scope_what_enforces_it(bare: Bench, policy: Path) -> None:
    result = bare.run("broker", "check", str(policy))
    assert result.code == 0, result.err
    assert "prod-logs" in result.out
    assert "signed+narrowing" in result.out
    assert f"credx: ok: {policy}: 6 roles" in result.err


def test_check_names_the_file_and_the_reason(bare: Bench, policy: Path) -> None:
    policy.write_text(policy.read_text().replace('factors = ["webauthn"]', 'factors = ["sms"]', 1))
    result = bare.run("broker", "check", str(policy))
    assert (result.code, result.out) == (3, "")
    assert str(policy) in result.err.splitlines()[0]
    assert bare.run("broker", "check", str(policy.parent / "missing.toml")).code == 3


def test_invite_prints_a_handle_once_and_records_who_made_it(bare: Bench, policy: Path, data: str) -> None:
    where = ("--policy", str(policy), "--data", data)
    result = bare.run("broker", "invite", *where, ISSUER, "s-1")
    assert result.code == 0, result.err
    assert HANDLE.fullmatch(result.out.strip())
    assert result.out.strip() not in result.err
    other = bare.run("broker", "invite", *where, "https://other.example.com", "s-1")
    assert (other.code, other.out) == (2, "")
    assert ISSUER in other.err


def test_where_no_broker_has_served_nobody_is_invited_and_no_key_is_made(
    bare: Bench, policy: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    result = bare.run("broker", "invite", "--policy", str(policy), "--data", str(empty), ISSUER, "s-1")
    assert (result.code, result.out) == (3, "")
    assert "is no broker's directory" in result.err
    assert not list(empty.iterdir())


def test_beside_the_keys_of_a_lost_store_somebody_is_shut_out_before_a_broker_serves_it(
    bare: Bench, data: str
) -> None:
    for file in Path(data).glob("broker.db*"):
        file.unlink()
    assert bare.run("broker", "users", "list", "--data", data).code == 3
    assert bare.run("broker", "users", "disable", f"{ISSUER}|s-1", "--data", data).code == 0
    assert json.loads(bare.run("broker", "users", "list", "--data", data, "--json").out)[0]["disabled"]


@pytest.mark.parametrize("command", ["serve", "template", "check"])
def test_a_policy_that_everybody_may_write_is_refused_by_every_command(
    bare: Bench, policy: Path, tmp_path: Path, command: str
) -> None:
    policy.chmod(0o666)
    args = {
        "serve": ("--policy", str(policy), "--data", str(tmp_path / "data")),
        "template": ("--policy", str(policy), "--role", "prod-logs"),
        "check": (str(policy),),
    }[command]
    result = bare.run("broker", command, *args)
    assert (result.code, result.out) == (3, "")
    assert "can be written by everybody" in result.err


def test_a_directory_that_cannot_be_made_is_named(bare: Bench, policy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    where = str(tmp_path / "file" / "data")
    result = bare.run("broker", "serve", "--policy", str(policy), "--data", where)
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith(f"credx: {where}: cannot be made or opened: ")


@pytest.mark.parametrize("proxy", ["*", "localhost", "10.0.0.0/8"])
def test_a_proxy_that_is_trusted_is_one_address(bare: Bench, policy: Path, data: str, proxy: str) -> None:
    where = ("--policy", str(policy), "--data", data)
    result = bare.run("broker", "serve", *where, "--trusted-proxy", proxy)
    assert (result.code, result.out) == (2, "")
    assert "is no IP address" in result.err


def test_a_missing_extra_is_named(policy: Path, tmp_path: Path) -> None:
    """In a process of its own: here the library may be loaded already, and then a broker would serve."""
    code = (
        "import sys; sys.modules['waitress'] = None; from credx.cli.main import main\n"
        f"sys.argv = ['credx', 'broker', 'serve', '--policy', {str(policy)!r}, '--data', 'data']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 3
    assert done.stderr.splitlines()[1] == "hint: pip install 'credx[broker]'"


@pytest.mark.parametrize("listen", ["8080", "host:", "host:99999", "http://host:80", ":80"])
def test_listen_is_host_and_port(bare: Bench, listen: str) -> None:
    result = bare.run("broker", "serve", "--policy", "p", "--data", "d", "--listen", listen)
    assert result.code == 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_serves_until_it_is_told_to_stop(policy: Path, tmp_path: Path, number: signal.Signals) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "credx", "broker", "serve", "--policy", str(policy),
         "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"NO_PROXY": "*"},
    )  # fmt: skip
    assert running.stderr is not None
    line = running.stderr.readline()
    found = re.search(r"listens on (http://127\.0\.0\.1:\d+)", line)
    assert found, line
    with urllib.request.urlopen(f"{found[1]}/healthz", timeout=10) as answer:
        assert answer.status == 200
    running.send_signal(number)
    assert running.wait(15) == 0
    *lines, last = running.stderr.read().splitlines()
    running.stderr.close()
    assert last == "credx: stopped"
    told = [json.loads(line) for line in lines]
    assert [(t["route"], t["status"]) for t in told if t["event"] == "request"] == [("/healthz", 200)]


def test_a_broker_that_nobody_asks_sees_its_policy_change(policy: Path, tmp_path: Path) -> None:
    """Else the first request after a quiet night would be decided by the policy of the evening."""
    running = subprocess.Popen(
        [sys.executable, "-m", "credx", "broker", "serve", "--policy", str(policy),
         "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stderr is not None
    late = threading.Timer(20, running.kill)  # a line that never comes ends with the process
    late.start()
    try:
        assert "listens on" in running.stderr.readline()
        changed = policy.with_name("new.toml")
        changed.write_text(policy.read_text() + "\n# changed\n")
        changed.replace(policy)
        assert json.loads(running.stderr.readline())["event"] == "policy_loaded"
    finally:
        late.cancel()
        running.kill()
        running.communicate(timeout=15)
