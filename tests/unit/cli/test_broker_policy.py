"""``credx broker check`` and ``credx broker explain``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from credx.sandbox.scenario import policy_text

if TYPE_CHECKING:
    from conftest import Bench, Outcome

IDP = "https://idp.example.com"
ALICE = f"{IDP}|00u9"
ONE = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0aaaaaaaaaaaaaaaa"
GOOD = (Path(__file__).parents[1] / "broker" / "data" / "policy.toml").read_text("utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(GOOD, "utf-8")
    return path


@pytest.fixture
def piped(bare: Bench) -> Bench:
    """stderr is no terminal, so nothing is folded."""
    bare.notes_visible = False
    return bare


def test_check_tells_warnings_with_file_line_and_key(piped: Bench, file: Path) -> None:
    result = piped.run("broker", "check", str(file))
    assert result.code == 0
    assert "required, up to 26, reason" in result.out
    line = GOOD.splitlines().index('duration = "15m"') + 1
    assert f"{file}:{line}: warning: roles.deploy.duration: SDKs renew" in result.err
    assert result.err.splitlines()[-1] == f"credx: ok: {file}: 4 roles, 2 identity providers, 2 warnings"


def test_check_strict_fails_on_warnings_alone(piped: Bench, file: Path) -> None:
    result = piped.run("broker", "check", "--strict", str(file))
    assert result.code == 3
    assert "roles.deploy.duration" in result.err
    assert "4 roles" in result.err
    text = policy_text(broker="https://credx.example.com", issuer=IDP, client_id="credx-cli")
    file.write_text(text.replace('rp_id = "localhost"\n', ""), "utf-8")
    result = piped.run("broker", "check", "--strict", str(file))
    assert (result.code, result.err) == (0, f"credx: ok: {file}: 6 roles, 1 identity provider, no warnings\n")


def test_check_tells_every_fault_at_once(piped: Bench, file: Path) -> None:
    file.write_text(
        GOOD.replace('factors = ["totp"]', 'factor = ["totp"]').replace('"Allow"', '"allow"'), "utf-8"
    )
    result = piped.run("broker", "check", str(file))
    assert (result.code, result.out) == (3, "")
    lines = result.err.splitlines()
    assert all(line.startswith(f"{file}:") for line in lines[:4])
    assert "roles.buckets.factor: unknown key, did you mean factors?" in result.err
    assert lines[4] == f"credx: {file}: 4 faults: a broker refuses this file"
    assert lines[5] == f"hint: mend it, then: credx broker check {file}"


def test_check_as_json_has_the_same_keys_for_warnings_and_faults(piped: Bench, file: Path) -> None:
    result = piped.run("broker", "check", "--json", str(file))
    found = json.loads(result.out)
    assert list(found) == ["roles", "findings"]
    assert found["roles"][0] == {
        "name": "prod-ops",
        "account": "111122223333",
        "arn": "arn:aws:iam::111122223333:role/prod-ops",
        "groups": ["sre"],
        "factors": ["webauthn"],
        "duration": 3600,
        "max_duration": 3600,
        "requires_target": True,
        "requires_reason": True,
        "operations": ["shell", "run", "forward:localhost:*"],
        "enforcement": "signed",
        "session_policy": {"longest": 288, "limit": 2048, "targets": 26},
        "scopes": [],
    }
    assert [(f["level"], f["key"]) for f in found["findings"]] == [
        ("warning", "roles.buckets.targets"), ("warning", "roles.deploy.duration"),
    ]  # fmt: skip
    file.write_text(GOOD.replace('effect = "Allow"', "effect = 1", 1), "utf-8")
    broken = piped.run("broker", "check", "--json", str(file))
    assert broken.code == 3
    (finding,) = json.loads(broken.out)["findings"]
    line = GOOD.splitlines().index('effect = "Allow"') + 1
    assert finding == {
        "level": "error",
        "line": line,
        "key": "roles.prod-ops.statements[0].effect",
        "text": "must be Allow or Deny, 1 is not",
    }
    file.write_text("[broker\n", "utf-8")
    (finding,) = json.loads(piped.run("broker", "check", "--json", str(file)).out)["findings"]
    assert (finding["line"], finding["key"]) == (1, "")


def test_findings_are_folded_for_a_terminal_and_say_nothing_that_moves_it(
    bare: Bench, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.chdir(file.parent)
    bad = GOOD.replace("[roles.logs]\n", '[roles.logs]\n"\\u001b[31m\\u202e" = 1\n')
    file.write_text(bad, "utf-8")
    result = bare.run("broker", "check", "policy.toml")
    assert "\x1b" not in result.err
    assert "\u202e" not in result.err
    Path("a\x1b[2Jb.toml").write_text(GOOD, "utf-8")
    assert "\x1b" not in bare.run("broker", "check", "a\x1b[2Jb.toml").err
    file.write_text(GOOD, "utf-8")
    lines = bare.run("broker", "check", "policy.toml").err.splitlines()
    assert len(lines) > 5
    assert all(len(line) <= 60 for line in lines[:-1])
    assert lines[1].startswith("    ")


# explain


def explained(bench: Bench, file: Path, *args: str, code: int) -> Outcome:
    result = bench.run("broker", "explain", *args, "--policy", str(file))
    assert result.code == code, result.err
    return result


def test_explain_a_yes(piped: Bench, file: Path) -> None:
    result = explained(
        piped, file, ALICE, "prod-ops", "--group", "sre", "--target", ONE, "--operation", "shell",
        "--reason", "disk full", code=0,
    )  # fmt: skip
    assert result.err == ""
    assert "✗" not in result.out
    assert "✓  target          " + ONE in result.out
    assert "credx-target=i-0aaaaaaaaaaaaaaaa" in result.out
    assert '"ssm:StartSession"' in result.out


def test_explain_a_no(piped: Bench, file: Path) -> None:
    result = explained(piped, file, ALICE, "prod-ops", "--group", "sre", code=6)
    assert "✗  operation" in result.out
    assert "·  target" in result.out
    assert "credx: prod-ops would be refused: operation: " in result.err


@pytest.mark.parametrize("operation", ["creds::", "forward:22", "forward:*:22", "forward:a b:22", "Shell"])
def test_explain_says_no_yes_to_what_the_broker_would_not_read(
    piped: Bench, file: Path, operation: str
) -> None:
    result = explained(piped, file, ALICE, "logs", "--group", "sre", "--operation", operation, code=2)
    assert "is no operation" in result.err


def test_explain_says_that_groups_are_supposed(piped: Bench, file: Path) -> None:
    result = explained(piped, file, ALICE, "logs", code=6)
    assert "only the identity provider knows" in result.err
    assert "✗  role" in result.out
    result = explained(piped, file, ALICE, "deploy", "--group", "deploy", code=6)
    assert "no group of the policy takes the claim 'deploy'; the group deploy is for" in result.err
    assert explained(
        piped, file, f"{IDP}|00u1", "logs", "--scope", "read-logs", code=0
    )  # users = of the policy


def test_explain_as_json(piped: Bench, file: Path) -> None:
    result = explained(piped, file, ALICE, "logs", "--group", "sre", "--scope", "read-logs", "--json", code=0)
    found = json.loads(result.out)
    assert list(found) == [
        "granted", "user", "issuer", "subject", "groups", "policy_version", "steps", "session",
    ]  # fmt: skip
    assert found["groups"] == ["sre"]
    assert found["steps"][0] == {"rule": "identity", "passed": True, "text": "a person, in sre"}
    assert list(found["session"]) == [
        "role_arn", "region", "duration", "tags", "session_policy", "factors", "proof_serves", "enforcement", "scopes",
    ]  # fmt: skip
    refused = json.loads(explained(piped, file, ALICE, "logs", "--json", code=6).out)
    assert (refused["granted"], refused["session"]) == (False, None)
    assert [step["passed"] for step in refused["steps"]][:3] == [True, False, None]


def claims(tmp_path: Path, **values: Any) -> str:
    path = tmp_path / "claims.json"
    path.write_text(json.dumps(values), "utf-8")
    return str(path)


def test_explain_with_the_claims_of_a_token(piped: Bench, file: Path, tmp_path: Path) -> None:
    given = claims(tmp_path, iss=IDP, sub="00u9", groups=["sre"], preferred_username="alice")
    result = explained(
        piped, file, ALICE, "logs", "--scope", "read-logs", "--claims", given, "--json", code=0
    )
    assert json.loads(result.out)["user"].startswith("alice-")
    job = claims(tmp_path, repository_id="4711", environment="production")
    explained(piped, file, "https://ci.example.com|job", "deploy", "--claims", job, code=0)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ('{"iss": "https://other.example.com"}', 2, "the claims are of https://other.example.com"),
        ('{"sub": "00u8"}', 2, "the claims are of 00u8, not of 00u9"),
        ("[1]", 3, "no JSON object with claims"),
        ('{"a": 1, "a": 2}', 3, "no JSON object with claims"),
    ],
)
def test_explain_refuses_claims_that_are_of_somebody_else_or_none(
    piped: Bench, file: Path, text: str, code: int, said: str
) -> None:
    given = file.with_name("claims.json")
    given.write_text(text)
    result = explained(piped, file, ALICE, "logs", "--claims", str(given), code=code)
    assert said in result.err
    assert result.out == ""


def test_explain_refuses_groups_where_there_is_no_claim_for_them(piped: Bench, file: Path) -> None:
    result = explained(piped, file, "https://ci.example.com|job", "deploy", "--group", "x", code=2)
    assert "has no groups claim" in result.err


def test_explain_needs_a_store_for_a_shown_name(piped: Bench, file: Path) -> None:
    result = explained(piped, file, "alice-0123456789abcdef", "logs", code=2)
    assert "a shown name needs --data DIR" in result.err


def test_explain_with_a_store_says_what_is_enrolled_and_who_is_shut_out(
    piped: Bench, file: Path, data: str
) -> None:
    ask = (ALICE, "logs", "--group", "sre", "--scope", "read-logs", "--data", data)
    result = explained(piped, file, *ask, code=6)
    assert "✓  access          not disabled" in result.out
    assert "✗  enrolled        no webauthn or totp is enrolled" in result.out
    assert piped.run("broker", "users", "disable", "--data", data, ALICE).code == 0
    result = explained(piped, file, *ask, code=6)
    assert "✗  access          disabled" in result.out
    assert "·  role" in result.out


# reload


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_serve_follows_the_policy_file_and_a_hangup_makes_it_look_at_once(file: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "credx", "broker", "serve", "--policy", str(file),
         "--data", str(file.parent / "data"), "--listen", "127.0.0.1:0"],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"NO_PROXY": "*"},
    )  # fmt: skip
    assert running.stderr is not None

    def told(event: str) -> dict[str, Any]:
        assert running.stderr is not None
        for line in running.stderr:
            if f'"event": "{event}"' in line:
                return dict(json.loads(line))
        raise AssertionError("the broker has ended")

    try:
        while "listens on" not in (line := running.stderr.readline()):
            assert line, "the broker has ended"
        port = line.strip().rsplit(":", 1)[1]
        file.write_text(GOOD.replace("[roles.logs]", "[roles.logs"))
        running.send_signal(signal.SIGHUP)
        refused = told("policy_refused")
        assert refused["error"].startswith(f"{file}:")
        ready = urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10)
        with ready:
            assert json.loads(ready.read())["checks"]["policy"] == "stale"
        file.write_text(GOOD.replace("Shells on", "Shell on"))
        running.send_signal(signal.SIGHUP)
        assert told("policy_loaded")["version"] != refused["version"]
        running.send_signal(signal.SIGTERM)
        assert running.wait(15) == 0
    finally:
        running.kill()
        running.wait()
        running.stderr.close()
