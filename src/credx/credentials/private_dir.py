"""A directory that holds secrets, and the only way files in it are opened.

Nothing is followed and nothing is repaired: a directory or file that is a link, belongs to somebody else or
is open to others is refused with a hint (CVE-2025-9810: a link in place of a lock file; granted #944, aws-cli
#7369: credential files left at the umask's mercy). Files are made with their final mode, never changed by
path afterwards, and replaced by rename only. That is what ``AWS_RESTRICT_FILE_PERMISSIONS`` asks for, always.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from credx.errors import ConfigError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIR_MODE: Final = 0o700
FILE_MODE: Final = 0o600

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_LEAVE: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_COMMON: Final = _NOFOLLOW | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0)
_POSIX: Final = os.name == "posix"  # Windows has neither dirfds nor modes: the profile's ACL guards there


class NotWrittenError(ConfigError):
    """A full disk, a read-only file system: nothing is wrong with what is there, and what is there stays."""


class PrivateDir:
    """``path`` is created (0700) when missing. Every method raises ``ConfigError`` as described above."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str, limit: int) -> bytes | None:
        """The whole file, None when it is missing; at most ``limit + 1`` bytes."""
        with self._opened() as folder:
            # O_NONBLOCK: a FIFO in the file's place must not hang us before fstat refuses it
            flags = os.O_RDONLY | _COMMON | getattr(os, "O_NONBLOCK", 0)
            try:
                fd = self._open(folder, name, flags)
            except FileNotFoundError:
                return None
            try:
                self._check(fd, name)
                with os.fdopen(fd, "rb", closefd=False) as stream:
                    return stream.read(limit + 1)
            finally:
                os.close(fd)

    def replace(self, name: str, data: bytes) -> None:
        """Put ``data`` in place of the file, durably, whole or not at all. Call it under ``locked``."""
        fresh = f"{name}.new"  # one name is enough under the lock, and leaves no litter after a SIGKILL
        with self._opened() as folder:
            self._unlink(folder, fresh)
            fd = self._open(folder, fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _COMMON)
            try:
                with os.fdopen(fd, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(fd)
                if _POSIX:
                    os.replace(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
                    os.fsync(folder)
                else:
                    (self.path / fresh).replace(self.path / name)
            except OSError as exc:
                self._unlink(folder, fresh)
                raise self._not_written(name, exc) from exc

    def remove(self, name: str) -> None:
        with self._opened() as folder:
            self._unlink(folder, name)

    @contextmanager
    def locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the kernel's exclusive lock ``name``; it ends with the process, so no lock outlives a SIGKILL.

        Yields:
            Whether we have it; False only without ``wait``.
        """
        with self._opened() as folder:
            fd = self._open(folder, name, os.O_RDWR | os.O_CREAT | _COMMON)  # never truncated, never removed
        try:
            self._check(fd, name)
            yield _lock(fd, wait=wait)
        finally:
            os.close(fd)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the directory itself: what is checked is what is used."""
        try:
            self.path.parent.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)
            self.path.mkdir(mode=DIR_MODE)
        except FileExistsError:
            pass  # whatever is there is looked at below
        except OSError as exc:
            raise ConfigError(f"{self.path} cannot be made ({exc.strerror})", hint="set CREDX_HOME") from exc
        if not _POSIX:
            yield -1
            return
        try:
            fd = os.open(self.path, os.O_RDONLY | _DIRECTORY | _COMMON)
        except OSError as exc:
            raise ConfigError(
                f"{self.path} is not a directory of its own", hint=f"remove the link {self.path}"
            ) from exc
        try:
            self._own(os.fstat(fd), self.path, DIR_MODE)
            yield fd
        finally:
            os.close(fd)

    def _open(self, folder: int, name: str, flags: int) -> int:
        try:
            if _POSIX:
                return os.open(name, flags, FILE_MODE, dir_fd=folder)
            return os.open(self.path / name, flags, FILE_MODE)
        except FileNotFoundError:
            raise
        except OSError as exc:
            file = self.path / name
            if flags & os.O_CREAT and exc.errno in _NO_ROOM | _NO_LEAVE and not file.is_symlink():
                raise self._not_written(name, exc) from exc
            reason = "is a link" if file.is_symlink() else f"cannot be opened ({exc.strerror})"
            raise ConfigError(f"{file} {reason}", hint=f"look at it, then remove {file}") from exc

    def _not_written(self, name: str, cause: OSError) -> NotWrittenError:
        where = shlex.quote(str(self.path))
        hint = f"make {where} writable, or set CREDX_HOME" if cause.errno in _NO_LEAVE else f"df {where}"
        return NotWrittenError(f"{self.path / name} cannot be written ({cause.strerror})", hint=hint)

    def _check(self, fd: int, name: str) -> None:
        file, found = self.path / name, os.fstat(fd)
        # nlink 0: another process has just replaced the file that we hold open; its content is whole
        if not stat.S_ISREG(found.st_mode) or (_POSIX and found.st_nlink > 1):
            raise ConfigError(f"{file} is not a plain file of its own", hint=f"remove {file}")
        self._own(found, file, FILE_MODE)

    @staticmethod
    def _own(found: os.stat_result, path: Path, mode: int) -> None:
        if sys.platform != "win32" and found.st_uid != os.geteuid():
            raise ConfigError(f"{path} belongs to another user", hint=f"remove {path}, or set CREDX_HOME")
        if _POSIX and stat.S_IMODE(found.st_mode) & 0o077:
            raise ConfigError(
                f"{path} is open to other users", hint=f"chmod {mode:o} {shlex.quote(str(path))}"
            )

    def _unlink(self, folder: int, name: str) -> None:
        try:
            if _POSIX:
                os.unlink(name, dir_fd=folder)
            else:
                (self.path / name).unlink()
        except FileNotFoundError:
            pass


if sys.platform == "win32":

    def _lock(fd: int, *, wait: bool) -> bool:
        while True:
            try:
                msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            except OSError:  # LK_LOCK gives up after ten tries of one second
                if wait:
                    continue
                return False
            return True
else:

    def _lock(fd: int, *, wait: bool) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
