"""Credentials as environment variables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.model import AwsCredentials

FORMATS: Final = ("env", "fish", "powershell", "dotenv", "json", "process")


def render(creds: AwsCredentials, fmt: str, now: float) -> str:
    """The credentials in one of ``FORMATS``, ending with a newline."""
    raise NotImplementedError


def child_environment(creds: AwsCredentials, environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` with these credentials and no others."""
    raise NotImplementedError
