"""Private files under a hostile umask, links in their place, and writers that die."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from credx.sandbox import files
from credx.sandbox.files import locked, read_private, write_private

if TYPE_CHECKING:
    from pathlib import Path


def test_written_whole_and_0600_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "f", b"one")
        write_private(tmp_path / "f", b"two")
        with locked(tmp_path / "f"):
            pass
    finally:
        os.umask(before)
    assert read_private(tmp_path / "f") == b"two"
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o600}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f", "f.lock"]


def test_missing_is_none(tmp_path: Path) -> None:
    assert read_private(tmp_path / "f") is None


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "f").symlink_to("real")
    (tmp_path / "g.lock").symlink_to("real")
    with pytest.raises(OSError, match="symbolic"):
        read_private(tmp_path / "f")
    with pytest.raises(OSError, match="symbolic"), locked(tmp_path / "g"):
        pass
    write_private(tmp_path / "f", b"y")  # replaces the link, not what it points to
    assert (tmp_path / "real").read_bytes() == b"x"


def test_a_failed_write_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_private(tmp_path / "f", b"old")

    def broken(_descriptor: int) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(files.os, "fsync", broken)
    with pytest.raises(OSError, match="no space"):
        write_private(tmp_path / "f", b"new")
    assert read_private(tmp_path / "f") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_lock_holds_between_threads(tmp_path: Path) -> None:
    write_private(tmp_path / "n", b"0")

    def count() -> None:
        for _ in range(20):
            with locked(tmp_path / "n"):
                write_private(tmp_path / "n", str(int(read_private(tmp_path / "n") or b"0") + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_private(tmp_path / "n") == b"80"
