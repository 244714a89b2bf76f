"""Every command of the README, typed as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credx.cli.demo_story import STORY

if TYPE_CHECKING:
    from conftest import Person

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIMIT = 60  # seconds for one command

# What `aws` does with the credentials in its environment, where no AWS CLI is installed
AWS = f"""#!{sys.executable}
import boto3, sys
assert sys.argv[1:] == ["sts", "get-caller-identity"], sys.argv
print(boto3.client("sts").get_caller_identity()["Arn"])
"""


def commands(block: str) -> list[list[str]]:
    found = re.search(rf"<!-- run: {block} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no block {block}"
    return [shlex.split(line, comments=True) for line in found[1].splitlines()]


def run(command: list[str], environ: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def installed() -> dict[str, str]:
    """An environment in which `credx` is the one that is being tested."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("command", commands("sandbox"), ids=shlex.join)
def test_in_the_sandbox(command: list[str]) -> None:
    assert run(command, installed())


def test_as_a_user(alice: Person, tmp_path: Path) -> None:
    """Over a configuration that says where the sandbox's STS is; nobody sits here to be asked for a touch."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "aws").write_text(AWS)
    (tools / "aws").chmod(0o755)
    environ = alice.environ | {"PATH": f"{tools}{os.pathsep}{alice.environ['PATH']}"}
    said = [
        run([word.replace("https://credx.example.com", alice.world.broker_url) for word in command], environ)
        for command in commands("user")
    ]
    assert ":assumed-role/prod-logs/alice" in said[-1]


def test_as_whoever_runs_the_broker(tmp_path: Path) -> None:
    policy = re.search(
        r"```toml\n(.*?)```", (ROOT / "docs" / "policy.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert policy
    (tmp_path / "policy.toml").write_text(policy[1])
    places = {"policy.toml": str(tmp_path / "policy.toml"), "/var/lib/credx": str(tmp_path / "data")}
    check, serve, invite = ([places.get(word, word) for word in command] for command in commands("broker"))
    assert "prod-logs" in run(check, installed())
    serving = subprocess.Popen(
        [*serve, "--listen", "127.0.0.1:0"], env=installed(), stderr=subprocess.PIPE, text=True
    )
    try:
        assert serving.stderr
        listening = re.search(r"http://[0-9.]+:[0-9]+", serving.stderr.readline())
        assert listening
        with urllib.request.urlopen(listening[0] + "/healthz", timeout=10) as answer:
            assert answer.status == 200
        assert len(run(invite, installed()).strip()) > 30
    finally:
        serving.send_signal(signal.SIGTERM)
        _, _ = serving.communicate(timeout=30)
    assert serving.returncode in {0, 128 + signal.SIGTERM, -signal.SIGTERM}


def test_the_transcript_is_of_this_demo() -> None:
    shown = re.findall(r"^([0-9]) (.*?) +[0-9]+\.[0-9] s$", README, re.MULTILINE)
    assert shown == [(str(number), title) for number, (title, _) in enumerate(STORY, 1)]


def test_every_command_of_the_table_exists() -> None:
    for cell in re.findall(r"^\| `credx ([^|]*)\|", README, re.MULTILINE):
        first, *more = re.findall(r"`(?:credx )?([a-z ]+?)(?: [A-Z].*?)?`", f"`{cell}")
        group = first.rsplit(" ", 1)[0] + " " if " " in first else ""
        for words in [first, *(group + word for word in more)]:
            run(["credx", *words.split(), "--help"], installed())
