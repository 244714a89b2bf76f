"""The broker killed at every system call of a redemption: nothing forgotten, nothing doubled, nothing to mend."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from support.strace import MARKS, afterwards, calls_of_one_request, seeded, spoil

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = MARKS


@pytest.mark.parametrize("kind", ["webauthn", "totp"])
def test_a_broker_killed_at_any_system_call(tmp_path: Path, kind: str) -> None:
    seed = seeded(tmp_path, kind)
    ends = spoil(tmp_path, *calls_of_one_request(tmp_path), "signal=SIGKILL")
    assert set(ends.values()) == {signal.SIGKILL}
    used_up = {afterwards(tmp_path / run, seed) for run in ends}
    assert used_up == {False, True}  # before the commit and after it
