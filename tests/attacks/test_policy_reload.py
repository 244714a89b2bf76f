"""The policy file is replaced while the broker serves: each named after what is refused. The policy that held goes on."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credx.broker.policy.reader import MAX_FILE
from credx.broker.policy.source import PolicySource

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD = (Path(__file__).parents[1] / "unit" / "broker" / "data" / "policy.toml").read_text("utf-8")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_FILE + 1)


def _link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


REPLACED: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda path: path.unlink(), "cannot be read"),
    "an empty file": (lambda path: path.write_bytes(b""), "version: must be 1"),
    "garbage": (lambda path: path.write_bytes(os.urandom(4096)), ""),
    "zeros": (lambda path: path.write_bytes(bytes(4096)), "no TOML"),
    "UTF-16": (lambda path: path.write_bytes(GOOD.encode("utf-16")), "is not UTF-8"),
    "half of itself": (lambda path: path.write_text(GOOD[: len(GOOD) // 2]), ""),
    "a file without end": (_sparse, "is larger than"),
    "nested tables without end": (lambda path: path.write_text("x = " + "[" * 100_000), "no TOML"),
    "a directory": (_directory, ""),
    "a FIFO that nobody writes": (_fifo, "is no regular file"),
    "a device": (_device, "is no regular file"),
    "a link to itself": (_link_to_itself, "cannot be read"),
    "another issuer": (lambda path: path.write_text(GOOD.replace("//credx.", "//evil.")), "takes a restart"),
    "another relying party": (
        lambda path: path.write_text(GOOD.replace("[broker]\n", '[broker]\nrp_id = "example.com"\n')),
        "takes a restart",
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
@pytest.mark.parametrize("what", REPLACED)
def test_a_policy_file_replaced_by(what: str, tmp_path: Path) -> None:
    path, time = tmp_path / "policy.toml", [0.0]
    path.write_text(GOOD)
    source = PolicySource(path, clock=lambda: time[0])
    held = source()
    replace, said = REPLACED[what]
    replace(path)
    for look in (source, source, source.look_now, source):
        time[0] += 1
        look()
    assert source() is held
    error = source.state().error
    assert error is not None
    assert said in error
    assert error.startswith(str(path))


def test_a_policy_file_that_cannot_be_read_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(GOOD)
    source = PolicySource(path)
    held = source()

    def refuse(*_: object) -> int:  # root reads everything, so permissions would show nothing
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    source.look_now()
    assert source() is held
    assert source.state().error == f"{path}: cannot be read: Permission denied"
