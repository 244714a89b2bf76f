"""Secrets at rest: one AES-GCM file, its key in the keyring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from credx.credentials.keystore import KeyStore


class AnyVault(Protocol):
    """What ``Vault`` and ``NoVault`` have in common; ``flow`` and ``cache`` are written to it."""

    @property
    def persistent(self) -> bool: ...
    def get(self, name: str) -> dict[str, Any] | None: ...
    def put(self, name: str, value: dict[str, Any]) -> None: ...
    def delete(self, name: str) -> None: ...
    def names(self) -> list[str]: ...
    def wipe(self) -> None: ...


class Vault:
    persistent = True

    def __init__(
        self, keystore: KeyStore, state_dir: Path, *, note: Callable[[str], None] = lambda _: None
    ) -> None:
        raise NotImplementedError

    def get(self, name: str) -> dict[str, Any] | None:
        raise NotImplementedError

    def put(self, name: str, value: dict[str, Any]) -> None:
        raise NotImplementedError

    def delete(self, name: str) -> None:
        raise NotImplementedError

    def names(self) -> list[str]:
        raise NotImplementedError

    def wipe(self) -> None:
        raise NotImplementedError


class NoVault:
    """Keeps nothing beyond this process."""

    persistent = False

    def get(self, name: str) -> dict[str, Any] | None:
        raise NotImplementedError

    def put(self, name: str, value: dict[str, Any]) -> None:
        raise NotImplementedError

    def delete(self, name: str) -> None:
        raise NotImplementedError

    def names(self) -> list[str]:
        raise NotImplementedError

    def wipe(self) -> None:
        raise NotImplementedError


def open_vault(keystore: KeyStore, state_dir: Path, *, note: Callable[[str], None]) -> Vault | NoVault:
    """The vault, or ``NoVault`` with a note saying why nothing is kept. THE way for a command to get one."""
    raise NotImplementedError
