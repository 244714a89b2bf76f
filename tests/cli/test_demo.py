"""``credx demo``: the whole job, and honest about it."""

from __future__ import annotations

import json
import subprocess
import sys


def test_every_step_of_the_demo_comes_out_as_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "credx", "demo", "--json"],
        capture_output=True, text=True, check=False, timeout=100, start_new_session=True,
    )  # fmt: skip
    steps = json.loads(done.stdout)
    assert [step["step"] for step in steps if not step["ok"]] == [], done.stderr
    assert done.returncode == 0
    assert len(steps) == 9
    assert all(set(step) == {"step", "ok", "detail", "seconds"} for step in steps)
