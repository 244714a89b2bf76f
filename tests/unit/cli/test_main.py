"""Errors, hints and exit codes: one style, one place."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import pytest

from credx import errors
from credx.cli.edges import Edges
from credx.cli.main import COMMANDS, build, outcome

if TYPE_CHECKING:
    from conftest import Bench

CODES = [
    (errors.CredxError("x"), 1),
    (errors.UsageError("x"), 2),
    (errors.ConfigError("x"), 3),
    (errors.SignInError("x"), 4),
    (errors.FactorError("x"), 5),
    (errors.DeniedError("x"), 6),
    (errors.UnavailableError("x"), 7),
    (errors.AwsRefusedError("x", code="AccessDenied"), 8),
    (KeyboardInterrupt(), 130),
]


@pytest.mark.parametrize(("error", "code"), CODES)
def test_every_error_has_its_code_and_leaves_stdout_empty(
    bench: Bench, error: BaseException, code: int
) -> None:
    bench.flow.error = error
    for command in ("process", "creds"):
        result = bench.run(command, "dev")
        assert result.code == code
        assert result.out == ""
        assert result.err.lstrip("\n").startswith("credx: ")


def test_an_error_is_one_line_and_a_hint_and_both_are_cleaned(bench: Bench) -> None:
    bench.flow.error = errors.DeniedError("no\n\x1b[31mfor \u202eyou", hint="credx roles\nthe \x07 second")
    result = bench.run("process", "dev")
    assert result.err == "credx: no��[31mfor �you\nhint: credx roles\nhint: the � second\n"


def test_an_unexpected_error_hides_what_looks_like_a_secret(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
    bench.flow.error = ValueError(f"cannot read {secret} nor 123456")
    result = bench.run("process", "dev")
    assert result.code == 1
    assert result.err.splitlines() == [
        "credx: unexpected error: ValueError: cannot read *** nor ***",
        "hint: set CREDX_DEBUG=1 and run it again to see where it happened",
    ]
    bench.environ["CREDX_DEBUG"] = "1"
    result = bench.run("process", "dev")
    assert "Traceback" not in result.err
    assert "conftest.py" in result.err
    assert secret not in result.err
    assert "123456" not in result.err


def test_usage_errors_read_like_all_others(bench: Bench) -> None:
    result = bench.run("creds", "dev", "--format", "yaml")
    assert result.code == 2
    first, hint = result.err.splitlines()
    assert first.startswith("credx: invalid value for '--format'")
    assert not first.endswith(".")
    assert hint == "hint: credx creds --help"
    assert bench.run("nonsense").code == 2
    assert bench.run("process", "dev", "--nonsense").code == 2


def test_no_command_is_help_on_stderr(bench: Bench) -> None:
    result = bench.run()
    assert result.code == 2
    assert result.out == ""
    assert "Usage: credx" in result.err


def test_help_and_version(bench: Bench) -> None:
    shown = bench.run("--help")
    assert shown.code == 0
    for name, (_, _, line) in COMMANDS.items():
        assert name in shown.out
        assert line in shown.out
    assert bench.run("--version").out.startswith("credx, version ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists_and_explains_itself(bench: Bench, name: str) -> None:
    result = bench.run(name, "--help")
    assert result.code == 0, result.err
    assert "Usage: credx" in result.out


def test_a_reader_who_left_is_no_story() -> None:
    def leave() -> None:
        raise BrokenPipeError

    saved = sys.stdout
    assert outcome(leave, {}) == 1
    assert sys.stdout is saved


def test_abort_is_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    def abort() -> None:
        raise click.Abort

    assert outcome(abort, {}) == 130
    assert capsys.readouterr().err == "credx: interrupted\n"


def test_without_standalone_mode_errors_are_the_callers() -> None:
    with pytest.raises(click.UsageError):
        build(Edges()).main(["nonsense"], standalone_mode=False)
