from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from credx.credentials.keystore import KeyStoreUnavailable
from credx.credentials.store import Vault
from credx.model import AwsCredentials, Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = 1_800_000_000


class MemoryKeyStore:
    """A keyring that can be counted, wiped behind one's back, and switched off."""

    def __init__(self) -> None:
        self.key: bytes | None = None
        self.loads = 0
        self.broken = False

    def load(self) -> bytes | None:
        self._check()
        self.loads += 1
        return self.key

    def create(self) -> bytes:
        self._check()
        self.key = secrets.token_bytes(32)
        return self.key

    def delete(self) -> None:
        self._check()
        self.key = None

    def _check(self) -> None:
        if self.broken:
            raise KeyStoreUnavailable("it is switched off")


@pytest.fixture
def keystore() -> MemoryKeyStore:
    return MemoryKeyStore()


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def vault(keystore: MemoryKeyStore, tmp_path: Path, notes: list[str]) -> Vault:
    return Vault(keystore, tmp_path / "state", note=notes.append)


@pytest.fixture
def make_creds() -> Callable[..., AwsCredentials]:
    def make(**overrides: object) -> AwsCredentials:
        values = {
            "access_key_id": "ASIAEXAMPLE",
            "secret_access_key": Secret("wJalr/K7+bPx="),
            "session_token": Secret("FwoG//token=="),
            "expiration": NOW + 3600,
            "account_id": "111122223333",
            "region": "eu-central-1",
            "role_arn": "arn:aws:iam::111122223333:role/dev",
        }
        return AwsCredentials(**values | overrides)  # type: ignore[arg-type]

    return make
