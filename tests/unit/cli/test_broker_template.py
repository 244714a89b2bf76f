"""``credx broker template``: data on stdout, what it cannot say on stderr."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from credx.sandbox.aws.policy import parse_policy as parse_aws
from credx.sandbox.scenario import policy_text

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    text = policy_text(
        broker="https://credx.example.com", issuer="https://idp.example.com", client_id="credx-cli"
    )
    path.write_text(text.replace('rp_id = "localhost"\n', ""), encoding="utf-8")
    return path


def test_it_prints_everything_that_aws_must_be_told(bare: Bench, policy: Path) -> None:
    result = bare.run("broker", "template", "--policy", str(policy), "--role", "prod-logs")
    assert (result.code, result.err) == (0, "")
    made = json.loads(result.out)
    assert list(made) == ["role", "max_session_duration", "trust_policy", "permission_policy", "provider"]
    assert (made["role"], made["max_session_duration"]) == ("prod-logs", 3600)
    assert made["provider"] == {
        "url": "https://credx.example.com", "client_ids": ["credx:aws:111122223333"],
    }  # fmt: skip
    assert parse_aws(json.dumps(made["trust_policy"]), "trust").statements
    assert parse_aws(json.dumps(made["permission_policy"]), "identity").statements


@pytest.mark.parametrize(
    ("part", "key"),
    [("trust", "trust_policy"), ("permissions", "permission_policy"), ("provider", "provider")],
)
def test_a_part_is_a_document_of_its_own(bare: Bench, policy: Path, part: str, key: str) -> None:
    where = ("broker", "template", "--policy", str(policy), "--role", "prod-logs")
    whole, one = bare.run(*where), bare.run(*where, "--part", part)
    assert json.loads(one.out) == json.loads(whole.out)[key]


def test_what_cannot_be_said_is_a_note_and_no_data(bare: Bench, policy: Path) -> None:
    result = bare.run("broker", "template", "--policy", str(policy), "--role", "prod-shell")
    assert result.code == 0
    assert "credx: prod-shell: an issuance for several targets" in result.err
    assert json.loads(result.out)["role"] == "prod-shell"


def test_a_role_that_is_not_there(bare: Bench, policy: Path) -> None:
    result = bare.run("broker", "template", "--policy", str(policy), "--role", "prod\x1b[31m")
    assert (result.code, result.out) == (2, "")
    assert "\x1b" not in result.err
    assert "prod-logs" in result.err.splitlines()[1]


def test_a_policy_that_iam_would_not_take_is_refused_with_a_hint(bare: Bench, policy: Path) -> None:
    text = policy.read_text()
    wide = ", ".join(f'"arn:aws:s3:::{"b" * 60}{number}/*"' for number in range(20))
    scopes = "".join(
        f'\n[roles.dev.scopes.s{n}]\ntags = {{ credx-scope-s{n} = "on" }}\n[[roles.dev.scopes.s{n}.statements]]\n'
        f'effect = "Allow"\nactions = ["s3:GetObject"]\nresources = [{wide}]\n'
        for n in range(5)
    )
    policy.write_text(text + scopes)
    result = bare.run("broker", "template", "--policy", str(policy), "--role", "dev")
    assert (result.code, result.out) == (3, "")
    assert "IAM takes 6144" in result.err
    assert "hint: credx broker check" in result.err
