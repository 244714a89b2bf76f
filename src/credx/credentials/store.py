"""Secrets at rest: one AES-GCM file, its key in the keyring.

The file is ``HEADER || nonce || AES-256-GCM(JSON object of entries, AAD = HEADER)``. It is a cache: what
cannot be decrypted (the key is gone, the file was damaged or forged) counts as empty and is replaced by the
next write. What somebody else could have read or planted is refused instead, see ``PrivateDir``.
"""

from __future__ import annotations

import json
import secrets
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from credx.credentials.keystore import KEY_BYTES, KeyStoreUnavailable
from credx.credentials.private_dir import NotWrittenError, PrivateDir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from credx.credentials.keystore import KeyStore

FILE: Final = "vault"
LOCK: Final = "vault.lock"
TURN: Final = "turn.lock"
HEADER: Final = b"credx-vault-v1\n\x00"  # authenticated: a later format cannot be passed off as this one
NONCE_BYTES: Final = 12  # NIST SP 800-38D 8.2: 96 bits; random, and far below 2^32 writes per key
# what keeps nothing, but spoils nothing either: what was issued is good all the same
NOT_KEPT: Final = (KeyStoreUnavailable, NotWrittenError)
MAX_FILE: Final = 4 * 1024 * 1024  # bytes; about 1,500 role sessions of 2.5 KiB

Entries: TypeAlias = dict[str, dict[str, Any]]


class AnyVault(Protocol):
    """What ``Vault`` and ``NoVault`` have in common. Values are JSON objects."""

    @property
    def persistent(self) -> bool: ...
    def get(self, name: str) -> dict[str, Any] | None: ...
    def put(self, name: str, value: dict[str, Any]) -> None: ...
    def delete(self, name: str) -> None: ...
    def names(self) -> list[str]: ...
    def update(self, change: Callable[[Entries], None]) -> None:
        """Change several entries in one write."""

    def turn(self, *, wait: bool = True) -> AbstractContextManager[bool]:
        """Be the only process of this user that asks the person or renews something; not for threads.

        Yields:
            Whether it is our turn; False only without ``wait``.
        """

    def wipe(self) -> None: ...


class Vault:
    """Entries by name, shared by all processes of one user.

    Every method raises ``KeyStoreUnavailable`` when the key cannot be had and ``ConfigError`` when the
    directory or a file in it is not the user's own.
    """

    persistent: Final = True

    def __init__(
        self, keystore: KeyStore, state_dir: Path, *, note: Callable[[str], None] = lambda _: None
    ) -> None:
        self._keystore = keystore
        self._dir = PrivateDir(state_dir)
        self._note = note
        self._key: bytes | None = None
        self._rubbish: bytes | None = None  # what could not be decrypted; each try costs a child process
        self._has_turn = False

    def get(self, name: str) -> dict[str, Any] | None:
        return self._read().get(name)

    def names(self) -> list[str]:
        return sorted(self._read())

    def put(self, name: str, value: dict[str, Any]) -> None:
        self.update(lambda entries: entries.__setitem__(name, value))

    def delete(self, name: str) -> None:
        def change(entries: Entries) -> None:
            entries.pop(name, None)

        self.update(change)

    def update(self, change: Callable[[Entries], None]) -> None:
        with self._dir.locked(LOCK):
            entries = self._read()
            before = json.dumps(entries)
            change(entries)
            text = json.dumps(entries)
            if text != before:
                # made under the lock, so that two first writers cannot make two keys
                self._key = self._key or self._keystore.load() or self._keystore.create()
                self._dir.replace(FILE, _seal(self._key, text))

    @contextmanager
    def turn(self, *, wait: bool = True) -> Iterator[bool]:
        """As ``AnyVault.turn``. Whoever waited reads again: what it wanted may be there by now.

        Parallel callers otherwise open a browser each (aws-vault #291, go-aws-sso #138) or spend one rotating
        refresh token twice (aws-cli #9632).
        """
        if self._has_turn:
            yield True
            return
        with self._dir.locked(TURN, wait=wait) as mine:
            self._has_turn = mine
            try:
                yield mine
            finally:
                self._has_turn = False

    def wipe(self) -> None:
        """Delete the key, which is what makes the entries unreadable, and the file."""
        with self._dir.locked(LOCK):
            self._key = None
            try:
                self._keystore.delete()
            finally:
                self._dir.remove(FILE)

    def load_key(self) -> None:
        """Find out now whether the keyring answers. Raises ``KeyStoreUnavailable``."""
        self._key = self._keystore.load()

    def _read(self) -> Entries:
        data = self._dir.read(FILE, MAX_FILE)
        if data is None:
            self._key = None  # somebody wiped: the key is gone from the keyring, ours must not come back
            return {}
        if data == self._rubbish:
            return {}
        if self._key and (entries := _open(self._key, data)) is not None:
            return entries
        self.load_key()  # not asked yet, or replaced by another process since
        if self._key and (entries := _open(self._key, data)) is not None:
            return entries
        self._rubbish = data
        self._note("the stored sign-in cannot be decrypted and is dropped")
        return {}


class NoVault:
    """Keeps nothing beyond this process; what is needed twice within one command is still there."""

    persistent: Final = False

    def __init__(self, state_dir: Path | None = None) -> None:
        self._entries: Entries = {}
        self._state_dir = state_dir

    def get(self, name: str) -> dict[str, Any] | None:
        return self._entries.get(name)

    def names(self) -> list[str]:
        return sorted(self._entries)

    def put(self, name: str, value: dict[str, Any]) -> None:
        self._entries[name] = value

    def delete(self, name: str) -> None:
        self._entries.pop(name, None)

    def update(self, change: Callable[[Entries], None]) -> None:
        change(self._entries)

    def turn(self, *, wait: bool = True) -> AbstractContextManager[bool]:  # noqa: ARG002
        return nullcontext(True)  # without a vault a waiter would find nothing when its turn comes

    def wipe(self) -> None:
        """What an earlier command kept, when there was a keyring, goes too."""
        self._entries.clear()
        if self._state_dir is not None and (self._state_dir / FILE).exists():
            directory = PrivateDir(self._state_dir)
            with directory.locked(LOCK):
                directory.remove(FILE)


def open_vault(keystore: KeyStore, state_dir: Path, *, note: Callable[[str], None]) -> Vault | NoVault:
    """The vault, or ``NoVault`` with a note saying why. THE way for a command to get one."""
    vault = Vault(keystore, state_dir, note=note)
    try:
        vault.load_key()
    except KeyStoreUnavailable as exc:
        note(f"nothing is kept, because {exc.message}")
        return NoVault(state_dir)
    return vault


def _seal(key: bytes, text: str) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 -- 40 ms

    nonce = secrets.token_bytes(NONCE_BYTES)
    return HEADER + nonce + AESGCM(key).encrypt(nonce, text.encode(), HEADER)


def _open(key: bytes, data: bytes) -> Entries | None:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    start = len(HEADER) + NONCE_BYTES
    if len(key) != KEY_BYTES or len(data) > MAX_FILE or len(data) < start or not data.startswith(HEADER):
        return None
    try:
        text = AESGCM(key).decrypt(data[len(HEADER) : start], data[start:], HEADER)
    except InvalidTag:
        return None
    entries: Entries = json.loads(text)  # authenticated: written by us
    return entries
