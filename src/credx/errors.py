"""The one exception tree of credx.

::

    CredxError                 exit 1   unexpected
    ├── UsageError             exit 2   the command line is wrong
    ├── ConfigError            exit 3   a file or a setting is wrong
    ├── SignInError            exit 4   no acceptable ID token
    ├── FactorError            exit 5   no acceptable second factor
    ├── DeniedError            exit 6   the broker's policy says no
    ├── UnavailableError       exit 7   network or broker out of reach
    └── AwsRefusedError        exit 8   AWS said no
    Refusal                    the broker's answer to one request (never reaches a terminal)

A message is one line, lower case, without a full stop; a hint is the next command to type.
Exceptions of libraries are wrapped (``raise ... from``) in the module that owns the library.
"""

from __future__ import annotations

from typing import ClassVar


class CredxError(Exception):
    """Something a person has to know about.

    Args:
        message: one line, what happened.
        hint: one line, what to type next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(CredxError):
    exit_code = 2


class ConfigError(CredxError):
    exit_code = 3


class SignInError(CredxError):
    exit_code = 4


class FactorError(CredxError):
    exit_code = 5


class DeniedError(CredxError):
    exit_code = 6


class UnavailableError(CredxError):
    exit_code = 7


class AwsRefusedError(CredxError):
    """AWS refused. ``code`` is the error code AWS gave, such as ``ExpiredTokenException``."""

    exit_code = 8

    def __init__(self, message: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class Refusal(Exception):  # noqa: N818 -- it is an answer, not an error of the broker
    """The broker's no to one request.

    Args:
        code: an OAuth error name from ``protocol.ERROR_STATUS``; goes on the wire.
        public: what the caller may read; goes on the wire. Tells nothing about other people.
        detail: the private cause; goes to the audit record or the security log only.
    """

    def __init__(self, code: str, public: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.public = public
        self.detail = detail or public
