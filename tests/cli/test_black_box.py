"""The command line from outside, in the sandbox: stdout, stderr, exit codes, terminals, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

if TYPE_CHECKING:
    from conftest import Person

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")


def test_status_knows_who_signed_in(alice: Person) -> None:
    shown = json.loads(alice.credx("status", "--json").stdout)
    assert shown["signed_in"]["user"].startswith("alice")
    assert "alice" in alice.credx("status").stdout


def test_roles_differ_between_people(alice: Person, bob: Person) -> None:
    hers = {role["name"] for role in json.loads(alice.credx("roles", "--json").stdout)}
    assert bob.credx("login").returncode == 0
    his = {role["name"] for role in json.loads(bob.credx("roles", "--json").stdout)}
    assert "prod-logs" in hers - his


def test_process_is_one_document_and_nothing_else(alice: Person) -> None:
    done = alice.credx("process", "prod-logs")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["Version"] == 1
    assert document["AccountId"] == "111122223333"
    assert set(document) == {
        "Version", "AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration", "AccountId"
    }  # fmt: skip


@pytest.mark.parametrize("shape", ["env", "fish", "powershell", "dotenv", "json", "process"])
def test_every_format(alice: Person, shape: str) -> None:
    done = alice.credx("creds", "prod-logs", "--format", shape)
    assert done.returncode == 0, done.stderr
    assert "ASIA" in done.stdout


def test_a_role_of_others_is_denied_and_stdout_stays_empty(bob: Person) -> None:
    bob.credx("login")
    done = bob.credx("process", "prod-logs")
    assert (done.returncode, done.stdout) == (6, "")
    first, hint, *rest = done.stderr.splitlines()
    assert first.startswith("credx: ")
    assert hint.startswith("hint: ")
    assert rest == []


def test_no_input_never_starts_a_ceremony(alice: Person) -> None:
    for args, extra in (
        (("--no-input", "process", "prod-logs", "--fresh"), {}),
        (("process", "prod-logs", "--fresh"), {"CI": "true"}),
    ):
        done = alice.credx(*args, **extra)
        assert (done.returncode, done.stdout) == (5, ""), done.stderr


def test_a_broker_that_is_away(alice: Person, tmp_path: Path) -> None:
    done = alice.credx("init", "http://localhost:1", CREDX_HOME=f"{tmp_path}/home")
    assert (done.returncode, done.stdout) == (7, "")


def test_init_pins_what_the_broker_says(alice: Person, tmp_path: Path) -> None:
    home = f"{tmp_path}/home"
    done = alice.credx("init", alice.world.broker_url, CREDX_HOME=home)
    assert done.returncode == 0, done.stderr
    assert alice.world.broker_url in done.stderr
    assert alice.world.idp.issuer in done.stderr
    assert alice.credx("init", alice.world.broker_url, CREDX_HOME=home).returncode == 0


def test_init_asks_before_it_changes_the_issuer(alice: Person, tmp_path: Path) -> None:
    home = f"{tmp_path}/home"
    alice.credx("init", alice.world.broker_url, CREDX_HOME=home)
    config = Path(home) / "config.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(alice.world.idp.issuer, "https://other.example.com"), encoding="utf-8")
    done = alice.credx("init", alice.world.broker_url, CREDX_HOME=home)
    assert done.returncode == 3
    assert "https://other.example.com" in done.stderr
    answer = pexpect.spawn(
        alice.program, ["init", alice.world.broker_url], env=alice.environ | {"CREDX_HOME": home}, timeout=20
    )
    answer.expect_exact("[y/N]:")
    answer.sendline("n")
    answer.expect(pexpect.EOF)
    answer.close()
    assert answer.exitstatus == 3
    assert alice.credx("init", alice.world.broker_url, "--yes", CREDX_HOME=home).returncode == 0


def test_exec_becomes_the_command(alice: Person) -> None:
    done = alice.credx("exec", "prod-logs", "--", "sh", "-c", "echo $AWS_ACCESS_KEY_ID; exit 41")
    assert done.returncode == 41
    assert done.stdout.startswith("ASIA")
    assert done.stderr.count("\n") <= 3


def test_ctrl_c_goes_to_the_command(alice: Person) -> None:
    # Python and not sh: dash now and then loses a SIGINT that arrives while it starts a child
    command = "import time; print('ready', flush=True); time.sleep(60)"
    child = pexpect.spawn(
        alice.program, ["exec", "prod-logs", "--", sys.executable, "-c", command], env=alice.environ
    )
    child.expect_exact("ready", timeout=20)
    child.sendintr()
    child.expect(pexpect.EOF, timeout=10)
    child.close()
    assert child.signalstatus == signal.SIGINT


def test_a_totp_secret_is_on_the_terminal_and_nowhere_else(alice: Person) -> None:
    child = pexpect.spawn(
        "/bin/sh",
        ["-c", f"{alice.program} factor add totp --name phone >out.txt 2>err.txt; echo code $?"],
        env=alice.environ,
        cwd=alice.environ["HOME"],
        timeout=30,
        encoding="utf-8",
    )
    child.expect("otpauth://totp/[^ ]+secret=([A-Z2-7]+)")
    seed = child.match.group(1)
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    for name in ("out.txt", "err.txt"):
        assert seed not in (alice.world.home("alice") / name).read_text(encoding="utf-8")


def test_roles_into_a_closed_pipe(alice: Person) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{alice.program} roles --json | true"],
        env=alice.environ, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "2>&-"])
def test_closed_streams_end_in_an_exit_code(alice: Person, closed: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {alice.program} process prod-logs {closed}"],
        env=alice.environ, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == (2 if closed.startswith(">") else 0), done.stderr
    assert "Traceback" not in done.stderr


def test_logout_forgets(world: object, bob: Person) -> None:
    bob.credx("login")
    done = bob.credx("logout")
    assert done.returncode == 0, done.stderr
    assert json.loads(bob.credx("status", "--json").stdout)["signed_in"] is None
    assert bob.credx("--no-input", "process", "dev-totp").returncode == 4


WARM = """
import pathlib, sys, time
from credx.cli.edges import Edges
from credx.cli.main import build
from credx.sandbox.plug import edges_for
try:
    build(Edges(**vars(edges_for(pathlib.Path({directory!r}), "alice")))).main(["process", "prod-logs"])
finally:
    heavy = {heavy!r}
    print("loaded:", *[name for name in heavy if name in sys.modules], file=sys.stderr)
"""
HEAVY = (
    "boto3", "botocore", "fido2", "keyring", "moto", "rich", "falcon", "waitress", "flask", "credx.broker",
    "urllib3", "ssl", "jwt", "platformdirs",
)  # fmt: skip


def test_a_warm_process_loads_nothing_that_it_does_not_need(alice: Person) -> None:
    assert alice.credx("process", "prod-logs").returncode == 0
    code = WARM.format(directory=str(alice.world.directory), heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code], env=alice.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Version"] == 1
    assert done.stderr == "loaded:\n"


def sandbox_program(*args: str) -> list[str]:
    return [sys.executable, "-m", "credx", "sandbox", *args]


def test_sandbox_run_passes_the_exit_code_and_cleans_up(tmp_path: Path) -> None:
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        sandbox_program("run", "--user", "bob", "--", "sh", "-c", "echo $HOME; exit 9"),
        env=environ, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 9, done.stderr
    assert done.stdout.strip().endswith("bob")
    assert list(tmp_path.iterdir()) == []


def test_sandbox_run_ends_with_its_signal_and_cleans_up(tmp_path: Path) -> None:
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    running = subprocess.Popen(
        sandbox_program("run", "--", "sh", "-c", "echo ready; exec sleep 60"),
        env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == "ready\n"
    running.terminate()
    assert running.wait(20) == 128 + signal.SIGTERM
    running.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_sandbox_up_ends_with_ctrl_c(tmp_path: Path) -> None:
    child = pexpect.spawn(
        sys.executable, ["-m", "credx", "sandbox", "up"], env=os.environ | {"TMPDIR": str(tmp_path)},
        timeout=40, encoding="utf-8", dimensions=(40, 80),
    )  # fmt: skip
    child.expect(r"\. (/\S+alice\.env)")
    path = child.match.group(1)
    shown = subprocess.run(
        ["/bin/sh", "-c", f". {path}; credx login && credx creds dev-totp --format dotenv"],
        env=os.environ | {"CI": "true"}, capture_output=True, text=True, check=False, timeout=40,
        start_new_session=True,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "ASIA" in shown.stdout
    time.sleep(0.2)
    child.sendintr()
    child.expect_exact("nothing of it is left")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert list(tmp_path.iterdir()) == []


def test_a_second_init_keeps_what_the_person_has_chosen(alice: Person) -> None:
    before = Path(alice.environ["CREDX_HOME"], "config.toml").read_text()
    assert 'prompt = "touch"' in before
    assert alice.credx("init", alice.world.broker_url).returncode == 0
    after = Path(alice.environ["CREDX_HOME"], "config.toml").read_text()
    assert sorted(after.splitlines()) == sorted(before.splitlines())
