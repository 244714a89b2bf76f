"""A person's home: modes, profiles, shim, and an environment without anything of the machine's own."""

from __future__ import annotations

import configparser
import os
import stat
import sys
from typing import TYPE_CHECKING

from credx.sandbox.homes import Home

if TYPE_CHECKING:
    from pathlib import Path

INHERITED = {
    "PATH": "/usr/bin",
    "TERM": "xterm",
    "AWS_PROFILE": "mine",
    "AWS_ACCESS_KEY_ID": "AKIA",
    "CI": "true",
    "HTTPS_PROXY": "http://192.0.2.1",
    "PYTHONPATH": "/x",
    "CREDX_DEBUG": "1",
}


def made(tmp_path: Path) -> Home:
    home = Home(tmp_path, "alice")
    home.make()
    home.make()  # twice is harmless
    return home


def test_everything_in_it_is_private(tmp_path: Path) -> None:
    home = made(tmp_path)
    directories = [p for p in home.path.rglob("*") if p.is_dir()]
    assert {stat.S_IMODE(p.stat().st_mode) for p in [home.path, *directories]} == {0o700}


def test_the_shim_is_ten_lines_of_this_python(tmp_path: Path) -> None:
    home = made(tmp_path)
    text = home.credx.read_text()
    assert os.access(home.credx, os.X_OK)
    assert text.startswith(f"#!{sys.executable}\n")
    assert len(text.splitlines()) <= 10
    compile(text, "credx", "exec")


def test_one_profile_for_each_role(tmp_path: Path) -> None:
    home = made(tmp_path)
    home.write_aws_config([("dev", "eu-central-1"), ("prod-logs", "eu-west-1")])
    parsed = configparser.ConfigParser()
    parsed.read(home.aws_config)
    assert parsed.sections() == ["profile dev", "profile prod-logs"]
    assert parsed["profile dev"]["credential_process"] == f'"{home.credx}" process dev'
    assert parsed["profile prod-logs"]["region"] == "eu-west-1"


def test_the_environment_is_an_allow_list(tmp_path: Path) -> None:
    home = made(tmp_path)
    environ = home.environment(endpoint="http://127.0.0.1:1", region="eu-central-1", inherited=INHERITED)
    assert environ["PATH"].split(os.pathsep) == [str(home.bin), "/usr/bin"]
    assert environ["TERM"] == "xterm"
    assert not {"AWS_PROFILE", "AWS_ACCESS_KEY_ID", "CI", "HTTPS_PROXY", "PYTHONPATH", "CREDX_DEBUG"} & set(
        environ
    )
    assert environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert environ["AWS_EC2_METADATA_DISABLED"] == "true"
    assert environ["HOME"] == str(home.path)
