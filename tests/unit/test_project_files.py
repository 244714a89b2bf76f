"""Promises that the project's own files make."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda p: p.name)
def test_a_lock_file_pins_hashes_and_names_no_index(lock: Path) -> None:
    text = lock.read_text()
    assert "http" not in text
    assert "index-url" not in text
    blocks = re.findall(r"^[a-z0-9](?:[^\n]*\\\n)*[^\n]*", text, flags=re.MULTILINE)
    assert len(blocks) > 10
    for block in blocks:
        assert re.match(r"[a-z0-9._\[\]-]+==", block), block.splitlines()[0]
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_every_lock_file_holds_what_pyproject_declares() -> None:
    declared = set(
        re.findall(
            r'^  "([a-z0-9-]+)(?:\[[a-z0-9,]+\])?[><=]',
            (ROOT / "pyproject.toml").read_text(),
            flags=re.MULTILINE,
        )
    )
    dev = (ROOT / "requirements" / "dev.txt").read_text()
    assert len(declared) > 10
    assert [
        name for name in declared if not re.search(rf"^{re.escape(name)}==", dev, flags=re.MULTILINE)
    ] == []


def test_the_project_names_no_registry_host() -> None:
    hosts = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "yarn" + "pkg.com"]
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout (an unpacked sdist)")
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert len(files) > 20
    found = [
        f"{path.name}: {host}"
        for path in files
        if path.is_file() and path.suffix != ".png"
        for host in hosts
        if host in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert found == []
