"""``creds``, ``process`` and ``exec``: what they ask for and what they put where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from credx.protocol import Ask

if TYPE_CHECKING:
    from conftest import Bench


def test_process_writes_one_document_in_one_write(bench: Bench) -> None:
    result = bench.run("process", "dev")
    assert result.code == 0
    assert len(result.writes) == 1
    document = json.loads(result.writes[0])
    assert document["Version"] == 1
    assert document["AccessKeyId"] == "ASIAEXAMPLE"
    assert result.err == ""


def test_options_become_the_ask(bench: Bench) -> None:
    arn = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0123456789abcdef0"
    result = bench.run(
        "creds", "dev", "--scope", "b", "--scope", "a", "--target", arn, "--duration", "15m", "--reason", "INC 7",
        "--min-left", "10m", "--fresh", "--format", "json",
    )  # fmt: skip
    assert result.code == 0, result.err
    ask = Ask(role="dev", scopes=("a", "b"), resources=(arn,), duration=900, reason="INC 7")
    assert bench.flow.asked == [(ask, 600, False)]


@pytest.mark.parametrize(
    "args",
    [
        ("dev", "--duration", "5m"),
        ("dev", "--duration", "13h"),
        ("dev", "--duration", "-1"),
        ("dev", "--duration", "1.5h"),
        ("dev", "--min-left", "1s"),
        ("Dev",),
        ("../dev",),
        ("dev", "--scope", "a b"),
        ("dev", "--target", "i-0123456789abcdef0"),
        ("dev", "--reason", "two\nlines"),
        ("dev", "--reason", "x" * 257),
    ],
)
def test_what_the_broker_could_not_read_is_a_usage_error(bench: Bench, args: tuple[str, ...]) -> None:
    result = bench.run("creds", *args)
    assert result.code == 2
    assert bench.flow.asked == []


def test_the_role_may_be_left_out(bench: Bench) -> None:
    assert bench.run("creds").code == 0
    assert bench.flow.asked[0][0].role == "dev"
    bench.flow.listed = [{"name": "dev"}, {"name": "prod"}]
    result = bench.run("creds")
    assert result.code == 2
    assert "name a role: dev, prod" in result.err
    bench.flow.listed = []
    assert bench.run("creds").code == 2
    bench.configure(default_role="prod")
    assert bench.run("creds").code == 0
    assert bench.flow.asked[1][0].role == "prod"


def test_region_option_over_configuration_over_role(bench: Bench) -> None:
    assert "eu-central-1" in bench.run("creds", "dev", "--format", "dotenv").out
    bench.configure(region="us-west-2")
    assert "us-west-2" in bench.run("creds", "dev", "--format", "dotenv").out
    assert "sa-east-1" in bench.run("creds", "dev", "--format", "dotenv", "--region", "sa-east-1").out


def test_exec_runs_what_follows_the_dashes(bench: Bench) -> None:
    result = bench.run("exec", "dev", "--scope", "a", "--", "sh", "-c", "exit 7", "--", "--help")
    assert result.code == 7
    ((command, environ),) = result.executed
    assert command == ["sh", "-c", "exit 7", "--", "--help"]
    assert environ["AWS_ACCESS_KEY_ID"] == "ASIAEXAMPLE"
    assert environ["AWS_SESSION_TOKEN"] == "the-session-token"
    assert result.out == ""


def test_exec_without_role_or_command(bench: Bench) -> None:
    assert bench.run("exec", "--", "true").code == 7
    assert "after --" in bench.run("exec", "dev").err
    assert bench.run("exec", "dev", "true").code == 2


def test_a_missing_command_costs_no_touch(bench: Bench) -> None:
    result = bench.run("exec", "dev", "--", "no-such-command-here")
    assert result.code == 2
    assert "not a command" in result.err
    assert bench.flow.asked == []


def test_a_command_that_cannot_start(bench: Bench) -> None:
    def refuse(_command: object, _environ: object) -> int:
        raise PermissionError(13, "Permission denied")

    bench.execute = refuse
    result = bench.run("exec", "dev", "--", "sh")
    assert (result.code, result.err.splitlines()[0]) == (2, "credx: 'sh' cannot be run: Permission denied")


@pytest.mark.skipif(sys.platform == "win32", reason="execve and signals")
def test_execve_gives_the_child_its_signals_back() -> None:
    code = (
        "import os\n"
        "from credx.cli.edges import Edges\n"
        "Edges().execute(['sh', '-c', 'kill -PIPE $$; exit 3'], dict(os.environ))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, env=os.environ)
    assert done.returncode == -signal.SIGPIPE


def test_process_prompts_end_before_an_sdk_gives_up(bench: Bench) -> None:
    device = bench.sit_down("123456")
    bench.notes_visible = False

    def ask(ask: object, **_options: object) -> object:
        app = bench.app
        app.ui.note("touch your key")
        app.ui.prompt_secret("code")
        raise KeyboardInterrupt

    bench.flow.credentials = ask  # type: ignore[method-assign, assignment]
    bench.run("process", "dev")
    (waited,) = device.waited
    assert waited is not None
    assert 40 < waited <= 50
    assert "credx: touch your key" in device.shown


def test_no_input_and_ci_forbid_ceremonies(bench: Bench) -> None:
    bench.configure(prompt="touch")
    bench.run("process", "dev")
    assert bench.flow.settings is not None
    assert bench.flow.settings.prompt == "touch"
    for args, ci in (
        (("--no-input", "process", "dev"), ""),
        (("process", "dev", "--no-input"), ""),
        (("process", "dev"), "true"),
    ):
        bench.environ["CI"] = ci
        bench.run(*args)
        assert bench.flow.settings.prompt == "auto"
