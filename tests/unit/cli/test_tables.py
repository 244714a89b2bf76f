"""What a terminal shows of the audit: whole names, whatever its width."""

from __future__ import annotations

import re

import pytest

from credx.cli import tables

RECORD = {
    "at": 1_800_000_000,
    "event": "granted",
    "user": "ada@example.com-f0df07b6f324c586",
    "role": "prod-shell",
    "resources": ["arn:aws:ec2:eu-central-1:111122223333:instance/i-0123456789abcdef0"],
    "scopes": ["read-logs"],
    "factor_kind": "webauthn",
    "factor_id": "5f0c9e3a71d2b844",
    "reason": "INC-4711: checkout errors",
}


def shown(columns: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    return re.sub(r"\x1b\[[0-9;]*m", "", tables.audit([RECORD, RECORD], is_terminal=True)).splitlines()


@pytest.mark.parametrize("columns", [80, 120])
def test_a_narrow_terminal_has_each_word_of_a_record_in_one_piece(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown(columns, monkeypatch)
    assert max(map(len, lines)) <= columns
    for word in (
        "ada@example.com-f0df07b6f324c586",
        "prod-shell  read-logs  webauthn 5f0c9e3a71d2b844",
        "INC-4711: checkout errors",
    ):
        assert sum(word in line for line in lines) == 2


def test_a_wide_terminal_has_a_line_for_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in shown(300, monkeypatch) if "granted" in line]
    assert len(lines) == 2
    assert all(RECORD["user"] in line and "INC-4711" in line and "instance/i-0" in line for line in lines)
