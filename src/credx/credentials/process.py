"""The document of ``credential_process``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from credx.model import AwsCredentials


def document(creds: AwsCredentials, now: float) -> bytes:
    """One JSON document, Version 1. Raises CredxError for credentials with less than 5 minutes left."""
    raise NotImplementedError
