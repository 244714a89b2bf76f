from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credx.credentials import env
from credx.errors import CredxError, UsageError
from credx.model import AwsCredentials, Secret

NOW = 1_800_000_000

printable = st.text(
    st.characters(exclude_categories=["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"]) | st.just(" "),
    max_size=40,
).filter(str.isprintable)


def _creds(key: str, secret: str, token: str) -> AwsCredentials:
    return AwsCredentials(
        access_key_id=key,
        secret_access_key=Secret(secret),
        session_token=Secret(token),
        expiration=NOW + 3600,
        account_id="111122223333",
        region="eu-central-1",
        role_arn="arn:aws:iam::111122223333:role/dev",
    )


creds = st.builds(_creds, printable, printable, printable)


def _parsed(text: str, start: str, one: re.Pattern[str], undo: Any) -> dict[str, str]:
    """Reads the assignments of a shell by its own quoting rules."""
    found = {}
    for line in text.splitlines():
        if line.startswith(start) and (match := one.fullmatch(line)):
            found[match[1]] = undo(match[2])
    return found


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(creds)
def test_bash_reads_back_exactly_the_values(given: AwsCredentials) -> None:
    script = env.render(given, "env", NOW) + "\n".join(
        f'printf "%s\\0" "${name}"' for name in env.variables(given)
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        check=True,
        env={"AWS_PROFILE": "other", "LC_ALL": "C.UTF-8"},
    )
    assert done.stdout.decode().split("\0")[:-1] == list(env.variables(given).values())


@given(creds)
def test_fish_reads_back_exactly_the_values(given: AwsCredentials) -> None:
    line = re.compile(r"set -gx (\w+) '((?:[^'\\]|\\\\|\\')*)'")
    values = _parsed(env.render(given, "fish", NOW), "set -gx", line, lambda v: re.sub(r"\\(.)", r"\1", v))
    assert values == env.variables(given)


@pytest.mark.component("fish")
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(creds)
def test_a_real_fish_reads_back_exactly_the_values(given: AwsCredentials) -> None:
    script = env.render(given, "fish", NOW) + "\n".join(
        f"printf '%s\\0' ${name}" for name in env.variables(given)
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        capture_output=True,
        check=True,
        env={"AWS_PROFILE": "other", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "PATH": os.environ["PATH"]},
    )
    assert done.stdout.decode().split("\0")[:-1] == list(env.variables(given).values())


@given(creds)
def test_powershell_reads_back_exactly_the_values(given: AwsCredentials) -> None:
    quote = "['\u2018\u2019\u201a\u201b]"
    line = re.compile(rf"\$Env:(\w+) = '((?:(?!{quote}).|{quote}{{2}})*)'")
    values = _parsed(
        env.render(given, "powershell", NOW), "$Env:", line, lambda v: re.sub(f"({quote}){quote}", r"\1", v)
    )
    assert values == env.variables(given)


@given(creds)
def test_dotenv_says_what_it_was_given_or_nothing(given: AwsCredentials) -> None:
    try:
        text = env.render(given, "dotenv", NOW)
    except CredxError:
        assert any(set("'\\") & set(value) for value in env.variables(given).values())
        return
    line = re.compile(r"(\w+)=(?:'([^']*)'|([A-Za-z0-9_./+=:@-]*))")
    found = [line.fullmatch(one) for one in text.split("\n")[:-1]]
    assert {m[1]: m[2] or m[3] or "" for m in found} == env.variables(given)


def test_what_aws_gives_is_bare_in_dotenv(make_creds: Any) -> None:
    assert env.render(make_creds(), "dotenv", NOW).splitlines()[:3] == [
        "AWS_ACCESS_KEY_ID=ASIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY=wJalr/K7+bPx=",
        "AWS_SESSION_TOKEN=FwoG//token==",
    ]


@pytest.mark.parametrize("fmt", ["env", "fish", "powershell", "dotenv"])
@pytest.mark.parametrize("bad", ["a\nexport X=1", "a\x00", "\x1b[2J", "a\u2028b", "a\u202eb"])
def test_a_value_that_could_end_a_line_is_refused(fmt: str, bad: str, make_creds: Any) -> None:
    with pytest.raises(CredxError) as caught:
        env.render(make_creds(session_token=Secret(bad)), fmt, NOW)
    assert bad not in str(caught.value)


def test_shells_forget_what_would_win_over_the_new_keys(make_creds: Any) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", env.render(make_creds(), "env", NOW) + "env"],
        capture_output=True, check=True, text=True,
        env={"AWS_SECURITY_TOKEN": "stale", "AWS_PROFILE": "other", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert "stale" not in done.stdout
    assert "AWS_PROFILE" not in done.stdout
    assert "set -e AWS_SECURITY_TOKEN" in env.render(make_creds(), "fish", NOW)
    assert "Remove-Item Env:AWS_SECURITY_TOKEN" in env.render(make_creds(), "powershell", NOW)


def test_json_uses_the_names_that_aws_uses(make_creds: Any) -> None:
    assert json.loads(env.render(make_creds(), "json", NOW)) == {
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": "wJalr/K7+bPx=",
        "SessionToken": "FwoG//token==",
        "Expiration": "2027-01-15T09:00:00Z",
        "AccountId": "111122223333",
        "Region": "eu-central-1",
        "RoleArn": "arn:aws:iam::111122223333:role/dev",
    }
    assert json.loads(env.render(make_creds(), "process", NOW))["Version"] == 1


def test_a_format_that_is_not_known_is_a_usage_error(make_creds: Any) -> None:
    with pytest.raises(UsageError, match="there is no format 'xml'"):
        env.render(make_creds(), "xml", NOW)


def test_a_child_gets_these_credentials_and_no_others(make_creds: Any) -> None:
    before = dict.fromkeys(env.FOREIGN, "stale") | {
        "AWS_ACCESS_KEY_ID": "stale", "AWS_REGION": "stale", "AWS_SESSION_TOKEN": "stale", "HOME": "/h",
        "aws_profile": "stale",
    }  # fmt: skip
    after = env.child_environment(make_creds(), before)
    assert "stale" not in after.values()
    assert after == {
        "HOME": "/h",
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalr/K7+bPx=",
        "AWS_SESSION_TOKEN": "FwoG//token==",
        "AWS_CREDENTIAL_EXPIRATION": "2027-01-15T09:00:00Z",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    assert before["AWS_PROFILE"] == "stale"
