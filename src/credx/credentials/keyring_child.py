"""The child process that talks to the keyring: one JSON request on stdin, one JSON answer on stdout.

``{"do": "load" | "save" | "delete", "key"?: base64}`` -> ``{"key"?: base64}`` or ``{"error": reason}``.

Neither ``PYTHON_KEYRING_BACKEND`` nor keyring's configuration file nor an installed plugin chooses the
backend: each of them could name one that keeps the key in a plain file, or nowhere. The classes below are
tried by name, so keyring's chainer, which would pass the key on to any of them, never takes part.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from keyring.backend import KeyringBackend

SERVICE: Final = "credx"
USERNAME: Final = "vault-key"
ALLOWED: Final = (
    ("keyring.backends.macOS", "Keyring"),
    ("keyring.backends.Windows", "WinVaultKeyring"),
    ("keyring.backends.SecretService", "Keyring"),
    ("keyring.backends.kwallet", "DBusKeyring"),
)
SETTERS: Final = "KEYRING_PROPERTY_"  # variables that set attributes of a backend: which keychain, which file
MAX_REQUEST: Final = 1024  # bytes


def choose(allowed: Sequence[tuple[str, str]]) -> KeyringBackend | None:
    """The first backend of the list that works on this machine."""
    for module, name in allowed:
        try:
            backend = getattr(importlib.import_module(module), name)
            if backend.priority <= 0:  # reading it raises RuntimeError where the backend cannot work
                continue
            chosen: KeyringBackend = backend()
        except Exception:  # noqa: BLE001, S112 -- whatever a missing bus or service raises, it is not here
            continue
        if name == "WinVaultKeyring":
            chosen.persist = "local machine"  # type: ignore[attr-defined]  # the default roams with the domain profile
        return chosen
    return None


def answer(request: dict[str, Any], backend: KeyringBackend) -> dict[str, str]:
    match request:
        case {"do": "load"}:
            key = backend.get_password(SERVICE, USERNAME)
            return {} if key is None else {"key": key}
        case {"do": "save", "key": str(key)}:
            backend.set_password(SERVICE, USERNAME, key)
            return {}
        case {"do": "delete"}:
            if backend.get_password(SERVICE, USERNAME) is not None:
                backend.delete_password(SERVICE, USERNAME)
            return {}
    return {"error": "the request is not known"}


def main(stdin: BinaryIO, stdout: BinaryIO, allowed: Sequence[tuple[str, str]] = ALLOWED) -> None:
    for name in [name for name in os.environ if name.upper().startswith(SETTERS)]:
        del os.environ[name]
    try:
        request = json.loads(stdin.read(MAX_REQUEST))
        backend = choose(allowed)
        if backend is None:
            result = {"error": "there is no keyring that credx trusts on this machine"}
        else:
            result = answer(request, backend)
    except Exception as exc:  # noqa: BLE001 -- the parent wants a reason; the class name holds no secret, a message might
        result = {"error": f"the keyring refused ({type(exc).__name__})"}
    stdout.write(json.dumps(result).encode())
    stdout.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
