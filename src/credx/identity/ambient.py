"""A token that is already there: in a file, the environment or on stdin, as CI systems leave it."""

from __future__ import annotations

import os
import re
import stat
from typing import IO, TYPE_CHECKING, Final

from credx.errors import SignInError
from credx.model import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TOKEN: Final = 16 * 1024  # characters, as jose takes; white space at the ends comes on top
_MAX_READ: Final = MAX_TOKEN + 1024
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")  # RFC 7515 7.1
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # anything else may be a token in the wrong place
_SOURCES: Final = "token_source can be file:PATH, env:NAME or stdin"


def read_token(source: str, *, environ: Mapping[str, str], stdin: IO[str] | IO[bytes] | None) -> Secret:
    """Read an ID token; nothing about it is verified here.

    Args:
        source: ``file:PATH``, ``env:NAME`` or ``stdin``.
        environ: for ``env:``.
        stdin: for ``stdin``; text or bytes.

    Raises:
        SignInError: nothing there, too long, or not of the form of a token; never quotes what was read.
    """
    kind, _, name = source.partition(":")
    if kind == "file" and name:
        where, text = f"the file {name}", _from_file(name)
    elif kind == "env" and _VARIABLE.fullmatch(name):
        where, text = f"the variable {name}", environ.get(name, "")
    elif source == "stdin":
        where, text = "standard input", _from_stdin(stdin)
    else:
        raise SignInError("the source of the token is not known", hint=_SOURCES)
    token = text.strip()
    if not token:
        raise SignInError(f"there is no token in {where}", hint=_SOURCES)
    if len(token) > MAX_TOKEN or len(text) > _MAX_READ:
        raise SignInError(f"what is in {where} is too long for a token")
    if not _COMPACT.fullmatch(token):
        raise SignInError(
            f"what is in {where} is not a token", hint="it must be one ID token in compact form, three parts"
        )
    return Secret(token)


def _from_file(name: str) -> str:
    try:
        with open(name, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SignInError(f"the file {name} cannot be read: not a regular file", hint=_SOURCES)
            return _text(file.read(_MAX_READ + 1))
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "not a usable path"
        raise SignInError(f"the file {name} cannot be read: {reason.lower()}", hint=_SOURCES) from exc


def _at_once(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe that nobody writes to would hold us


def _from_stdin(stdin: IO[str] | IO[bytes] | None) -> str:
    try:
        if stdin is None or stdin.isatty():
            raise SignInError("standard input holds no token", hint="pipe it in: ... | credx creds ROLE")
        read = stdin.read(_MAX_READ + 1)
    except (OSError, ValueError):  # from None: a decoding error holds what was read
        raise SignInError("standard input cannot be read", hint=_SOURCES) from None
    return read if isinstance(read, str) else _text(read)


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "replace")  # what was not ASCII fails the form
