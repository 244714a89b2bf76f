"""Where the vault's key lives: one item in the operating system's keyring."""

from __future__ import annotations

from typing import Protocol

from credx.errors import CredxError


class KeyStoreUnavailable(CredxError):  # noqa: N818 -- a state of the machine, shown to people as it is
    """No keyring here that credx trusts, or it did not answer. The message is a short reason."""


class KeyStore(Protocol):
    """Keeps one 32-byte key. Each method raises ``KeyStoreUnavailable``."""

    def load(self) -> bytes | None:
        """The key, or None when there is none yet."""

    def create(self) -> bytes:
        """Make a new random key, keep it in place of any other, and return it."""

    def delete(self) -> None:
        """Forget the key; nothing happens when there is none."""


class SystemKeyStore:
    def load(self) -> bytes | None:
        raise NotImplementedError

    def create(self) -> bytes:
        raise NotImplementedError

    def delete(self) -> None:
        raise NotImplementedError
