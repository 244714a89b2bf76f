"""What is loaded when: `--help` and a warm `process` stay light."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = (
    "boto3",
    "botocore",
    "fido2",
    "keyring",
    "moto",
    "rich",
    "falcon",
    "waitress",
    "flask",
    "credx.broker",
)

PROBE = """
import sys
sys.argv[0] = "credx"
from credx.cli.main import build
from credx.cli.edges import Edges
try:
    build(Edges()).main({args!r})
finally:
    loaded = [name for name in {heavy!r} if name in sys.modules]
    print("loaded:", *loaded, file=sys.stderr)
"""


def loaded(args: list[str], environ: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(args=args, heavy=HEAVY)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environ,
    )
    return done.returncode, done.stderr.rpartition("loaded:")[2].strip()


def test_help_loads_no_command() -> None:
    assert loaded(["--help"], {}) == (0, "")


def test_the_probe_sees_what_is_loaded(tmp_path: Path) -> None:
    code, found = loaded(["broker", "check", str(tmp_path / "missing.toml")], {})
    assert code != 0
    assert "credx.broker" in found
