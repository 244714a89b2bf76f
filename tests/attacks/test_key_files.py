"""Nobody else reads, plants or swaps the broker's key files and store (CVE-2025-68146, CVE-2026-22701)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from credx.broker.ownfile import read_or_create
from credx.broker.seal import Sealer
from credx.broker.signer import LocalSigner
from credx.broker.stores.sqlite import SqliteStore
from credx.errors import ConfigError

Open = Callable[[Path], object]
OPENERS: dict[str, Open] = {
    "signer": LocalSigner.open,
    "sealer": Sealer.open,
    "sqlite": lambda path: SqliteStore(path).close(),
}


@pytest.fixture(params=OPENERS)
def opener(request: pytest.FixtureRequest) -> Open:
    return OPENERS[request.param]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "broker.key"


def refused(opener: Open, path: Path, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        opener(path)
    assert str(path) in caught.value.message or str(path.parent) in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_a_new_file_is_0600_under_any_umask(opener: Open, path: Path, mask: int) -> None:
    old = os.umask(mask)
    try:
        opener(path)
        assert path.stat().st_mode & 0o777 == 0o600
        opener(path)
    finally:
        os.umask(old)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o640, 0o620, 0o601, 0o644, 0o777])
def test_a_file_open_to_others_is_refused_and_not_quietly_closed(opener: Open, path: Path, mode: int) -> None:
    opener(path)
    path.chmod(mode)
    refused(opener, path, "open to others")
    assert path.stat().st_mode & 0o777 == mode


def test_a_symlink_is_refused_even_to_a_good_file(opener: Open, path: Path) -> None:
    opener(path)
    link = path.with_name("link")
    link.symlink_to(path)
    refused(opener, link, "cannot be used")


def test_a_dangling_symlink_creates_nothing_elsewhere(opener: Open, path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    path.symlink_to(elsewhere)
    with pytest.raises(ConfigError):
        opener(path)
    assert not elsewhere.exists()


def test_a_hard_link_is_refused(opener: Open, path: Path) -> None:
    opener(path)
    os.link(path, path.with_name("other"))
    refused(opener, path, "2 names")


def test_a_directory_that_others_write_to_is_refused(opener: Open, path: Path) -> None:
    opener(path)
    for mode in (0o770, 0o707, 0o1777):
        path.parent.chmod(mode)
        refused(opener, path, "can be written by others")
    path.parent.chmod(0o700)
    opener(path)


def test_a_foreign_directory_is_refused(opener: Open, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opener(path)
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    refused(opener, path, "belongs to another user")


def test_a_foreign_file_is_refused(opener: Open, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opener(path)
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        state = real(descriptor)
        if state.st_ino != path.stat().st_ino:
            return state
        return os.stat_result((*state[:4], state.st_uid + 1, *state[5:10]))

    monkeypatch.setattr(os, "fstat", fstat)
    refused(opener, path, "belongs to another user")


def test_a_fifo_neither_hangs_nor_passes(opener: Open, path: Path) -> None:
    os.mkfifo(path, 0o600)
    refused(opener, path, "not a regular file")


def test_a_directory_in_its_place_is_refused(opener: Open, path: Path) -> None:
    path.mkdir(0o700)
    with pytest.raises(ConfigError):
        opener(path)


def test_a_directory_that_cannot_be_made_is_said(opener: Open, path: Path) -> None:
    refused(opener, path.parent / "no" / "such" / "file", "cannot be used")


@pytest.mark.parametrize("content", [b"", b"x" * (16 * 1024 + 1), b"not a key", b"\x00\xff" * 16])
@pytest.mark.parametrize("open_key", [LocalSigner.open, Sealer.open])
def test_no_key_is_made_over_a_spoilt_one(open_key: Open, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    refused(open_key, path, str(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize("open_key", [LocalSigner.open, Sealer.open])
def test_an_error_never_shows_the_key(open_key: Open, path: Path) -> None:
    open_key(path)
    secret = path.read_text().splitlines()[-2:][0][:20]
    path.write_text(path.read_text().replace(secret, f"{secret}!"))
    with pytest.raises(ConfigError) as caught:
        open_key(path)
    assert secret not in repr(caught.value) + str(caught.value) + str(caught.value.hint)


def test_what_a_dead_process_left_is_cleared_and_a_planted_link_is_not_followed(path: Path) -> None:
    beside = path.with_name(".broker.key.new")
    for plant in (
        lambda: beside.write_bytes(b"half a k"),
        lambda: beside.symlink_to(path.with_name("victim")),
    ):
        plant()
        assert read_or_create(path, lambda: b"whole") == b"whole"
        assert sorted(file.name for file in path.parent.iterdir()) == ["broker.key"]
        path.unlink()


def test_a_full_disk_leaves_no_half_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="no space left"):
        LocalSigner.open(path)
    monkeypatch.undo()
    assert not path.exists()
    LocalSigner.open(path)


def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from credx.broker.signer import LocalSigner; from credx.broker.seal import Sealer\n"
        "sys.stdin.readline()\n"
        "print(LocalSigner.open(Path(sys.argv[1])).kid)\n"
        "print(Sealer.open(Path(sys.argv[2])).seal(b'x', 'c'))\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "mint.key"), str(tmp_path / "seal.key")]
    running = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in running:  # all are past their imports, or nearly: let them go together
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0].split() for process in running]
    assert len({kid for kid, _ in answers}) == 1
    sealer = Sealer.open(tmp_path / "seal.key")
    assert [sealer.open_(sealed, "c") for _, sealed in answers] == [b"x"] * 4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mint.key", "seal.key"]


def test_a_system_without_such_files_is_told_apart(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("credx.broker.ownfile.fcntl", None)
    with pytest.raises(ConfigError, match="no owner-only files"):
        LocalSigner.open(path)


def test_a_copied_key_is_the_same_broker(path: Path) -> None:
    kid = LocalSigner.open(path).kid
    shutil.copy2(path, path.with_name("moved"))
    assert LocalSigner.open(path.with_name("moved")).kid == kid
