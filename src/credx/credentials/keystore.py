"""Where the vault's key lives: one item in the operating system's keyring.

The keyring is asked in a child process, because a library that speaks D-Bus may hang for minutes on a machine
without a session bus (keyring #403, #473) and because a dead child is all it takes to stop it. The key goes
through pipes only: a process list and ``/proc/PID/environ`` show nothing.
"""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, Protocol

from credx.errors import CredxError
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY_BYTES: Final = 32  # AES-256
LIMIT_SECONDS: Final = 3.0  # for a person who waits; a keyring that is unlocked answers at once
CHILD: Final = (
    sys.executable,
    "-E",  # PYTHON* variables and the working directory choose no code for the process that holds the key
    "-P",
    "-m",
    "credx.credentials.keyring_child",
)
_HINT: Final = "unlock or install a keyring (Keychain, Secret Service, KWallet), then: credx status"


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
    """The keyring of the operating system, behind the allow-list in ``keyring_child``."""

    def __init__(self, command: Sequence[str] = CHILD, limit: float = LIMIT_SECONDS) -> None:
        self._command = command
        self._limit = limit

    def load(self) -> bytes | None:
        encoded = self._call({"do": "load"}).get("key")
        if encoded is None:
            return None
        try:
            key = base64.b64decode(str(encoded), validate=True)
        except ValueError:
            key = b""
        return key if len(key) == KEY_BYTES else None  # not ours or damaged: the vault makes a new one

    def create(self) -> bytes:
        key = secrets.token_bytes(KEY_BYTES)
        self._call({"do": "save", "key": base64.b64encode(key).decode()})
        return key

    def delete(self) -> None:
        self._call({"do": "delete"})

    def _call(self, request: dict[str, str]) -> dict[str, Any]:
        try:
            done = subprocess.run(
                self._command,
                input=json.dumps(request).encode(),
                capture_output=True,
                timeout=self._limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            reason = f"the keyring did not answer within {self._limit:g} s (locked?)"
            raise KeyStoreUnavailable(reason, hint=_HINT) from None  # it carries the output so far
        except OSError as exc:
            raise KeyStoreUnavailable("the keyring helper cannot be started", hint=_HINT) from exc
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
            error = answer.get("error")
        except (ValueError, AttributeError):
            raise KeyStoreUnavailable("the keyring helper failed", hint=_HINT) from None
        if error is not None:
            raise KeyStoreUnavailable(clean(error, 200), hint=_HINT)
        return answer
