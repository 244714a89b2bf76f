"""Files that nobody but the broker's own user can read, write or plant: keys and the SQLite store.

The directory is the boundary: it belongs to this user and nobody else may write to it, so no name in it can
be swapped between two calls. Every open is relative to its descriptor, with O_NOFOLLOW, and what counts is
the state of the opened file, not of its path (the lock-file races of CVE-2025-68146 and CVE-2026-22701).
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from credx.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows: the package imports, a broker does not start
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_KEY_FILE = 16 * 1024  # bytes; an RSA-4096 key in PEM has 3.3 KB

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS_ANY = stat.S_IRWXG | stat.S_IRWXO


def read_or_create(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of an owner-only file; when there is none, ``make()`` is written first.

    Of several processes that start at once one creates, and all return the same bytes.

    Raises:
        ConfigError: the file or its directory is open to others, a link, foreign, or cannot be used.
    """
    with own_directory(path) as directory:
        try:
            content = _read(path, directory)
            if content is None:
                lock(directory)
                content = _read(path, directory)
            if content is None:
                content = make()
                _write(path, directory, content)
        except OSError as exc:
            raise _unusable(path, exc) from exc
    return content


def lock(directory: int) -> None:
    """Hold the directory of ``own_directory`` alone until its descriptor closes, even by SIGKILL."""
    fcntl.flock(directory, fcntl.LOCK_EX)


def create_empty(path: Path, directory: int) -> None:
    """Make sure that ``path`` is an owner-only file, perhaps empty. Raises ``ConfigError``."""
    try:
        with suppress(FileExistsError):
            os.close(_create(path.name, directory))
        os.close(_checked_open(path, directory, os.O_RDWR))
    except OSError as exc:
        raise _unusable(path, exc) from exc


@contextmanager
def own_directory(path: Path) -> Iterator[int]:
    """A descriptor of the directory of ``path``, made with mode 0700 when it is missing (not its parents).

    Raises:
        ConfigError: it belongs to somebody else, or others may write to it.
    """
    if fcntl is None:
        raise ConfigError(
            "this system has no owner-only files, which a broker needs",
            hint="run the broker on Linux or macOS",
        )
    parent = path.absolute().parent
    try:
        with suppress(FileExistsError):
            parent.mkdir(mode=0o700)
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise _unusable(parent, exc) from exc
    try:
        state = os.fstat(directory)
        if state.st_uid != os.geteuid():
            raise ConfigError(
                f"{parent} belongs to another user (uid {state.st_uid})",
                hint=f"give the broker a directory of its own, or: chown {os.geteuid()} {parent}",
            )
        if state.st_mode & _OTHERS_WRITE:
            raise ConfigError(f"{parent} can be written by others", hint=f"chmod go-w {parent}")
        yield directory
    finally:
        os.close(directory)


def _read(path: Path, directory: int) -> bytes | None:
    try:
        descriptor = _checked_open(path, directory, os.O_RDONLY)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(MAX_KEY_FILE + 1)
    if not 0 < len(content) <= MAX_KEY_FILE:
        raise ConfigError(
            f"{path} is empty or too large for a key",
            hint=f"restore {path} from a backup; without it a new key is a new broker to AWS",
        )
    return content


def _checked_open(path: Path, directory: int, flags: int) -> int:
    """Open and look at what was opened. O_NONBLOCK: a planted FIFO must not hold the start-up."""
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path.name, flags, dir_fd=directory)
    try:
        _check_file(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_file(path: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise ConfigError(f"{path} is not a regular file", hint=f"ls -l {path}")
    if state.st_uid != os.geteuid():
        raise ConfigError(
            f"{path} belongs to another user (uid {state.st_uid})",
            hint="run the broker as the user who owns its files",
        )
    if state.st_mode & _OTHERS_ANY:
        raise ConfigError(
            f"{path} is open to others (mode {stat.S_IMODE(state.st_mode):04o})",
            hint=f"others may have read it: replace its content, or if that is ruled out: chmod 600 {path}",
        )
    if state.st_nlink != 1:
        raise ConfigError(
            f"{path} has {state.st_nlink} names (hard links)",
            hint=f"find the other name and remove it: find / -xdev -samefile {path}",
        )


def _write(path: Path, directory: int, content: bytes) -> None:
    """Write beside, then rename, so that a crash leaves no half key. Called under the directory's lock."""
    beside = f".{path.name}.new"
    with suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=directory)  # of a process that died here
    with os.fdopen(_create(beside, directory), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(beside, path.name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def _create(name: str, directory: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    os.fchmod(descriptor, 0o600)  # whatever the umask took away
    return descriptor


def _unusable(path: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        f"{path} cannot be used: {(exc.strerror or 'unknown error').lower()}",
        hint=f"a regular file and no link, in a directory of the broker's own: ls -la {path}",
    )
