"""What the sandbox plugs into the ``credx`` application in the place of a keyring, a USB port and a browser.

A person's things are in one 0700 directory, the pocket: ``keyring`` stands for the operating system's
keyring, ``security-key`` for the thing on the key ring, ``totp`` for the authenticator app. The shim on PATH
loads this module on every start, so it imports next to nothing.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from credx.model import Secret
from credx.sandbox.files import locked, read_private, write_private

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fido2.ctap import CtapDevice

KEY_BYTES: Final = 32  # as credentials.keystore
STEP: Final = 30  # seconds, RFC 6238 4.1
CODE_LONGEST_WAIT: Final = 90.0  # seconds; three steps, as many as may be in use at once
ROLL_OVER: Final = 5  # seconds: an old code is not begun with so shortly before it ends


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Values for the fields of ``credx.cli.edges.Edges`` that have the same names."""

    keystore: Callable[[], PocketKeyStore]
    devices: Callable[[], Sequence[CtapDevice]]
    totp_code: Callable[[], Secret | None]
    open_browser: Callable[[str], bool]


def edges_for(directory: Path, user: str) -> Parts:
    """The parts for one person of the sandbox in ``directory``. Opens nothing yet."""
    place = pocket(directory, user)
    app = AuthenticatorApp(place / "totp")

    def devices() -> Sequence[CtapDevice]:
        from credx.sandbox.security_key import SoftwareKey  # noqa: PLC0415 -- fido2 only when it is used

        path = security_key_path(directory, user)
        return [SoftwareKey(path)] if path.exists() else []

    def open_browser(url: str) -> bool:
        from credx.sandbox.robot import browser_for  # noqa: PLC0415 -- urllib only when it is used

        return browser_for(user)(url)

    return Parts(
        keystore=lambda: PocketKeyStore(place / "keyring"),
        devices=devices,
        totp_code=app.code,
        open_browser=open_browser,
    )


def pocket(directory: Path, user: str) -> Path:
    return directory / "homes" / user / "pocket"


def security_key_path(directory: Path, user: str) -> Path:
    return pocket(directory, user) / "security-key"


class PocketKeyStore:
    """``credentials.keystore.KeyStore`` in a 0600 file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> bytes | None:
        content = read_private(self._path)
        return content if content is not None and len(content) == KEY_BYTES else None

    def create(self) -> bytes:
        key = secrets.token_bytes(KEY_BYTES)
        with locked(self._path):
            write_private(self._path, key)
        return key

    def delete(self) -> None:
        with locked(self._path):
            self._path.unlink(missing_ok=True)


class AuthenticatorApp:
    """Codes of RFC 6238, each time step once, whichever process asks.

    The broker takes a step once and allows one step of delay and one of haste (RFC 6238 5.2), so up to
    three codes are there at once; after that ``code`` waits for the next step.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._now = now
        self._sleep = sleep

    def enrol(self, seed: Secret) -> None:
        """Keep ``seed`` (base32) in the place of any other."""
        with locked(self._path):
            self._save({"seed": seed.reveal(), "last_step": 0})

    def code(self) -> Secret | None:
        """Six digits that nobody has had, or None without a seed or after 90 s of waiting."""
        deadline = self._now() + CODE_LONGEST_WAIT
        while self._now() <= deadline:
            with locked(self._path):
                content = read_private(self._path)
                if content is None:
                    return None
                state = json.loads(content)
                now = self._now()
                step = _first_free(state["last_step"], now)
                if step <= int(now) // STEP + 1:
                    self._save({**state, "last_step": step})
                    return code_at(Secret(state["seed"]), step)
            # not under the lock: a step that another process gives back is nobody's business here
            self._sleep(STEP - now % STEP)
        return None

    def _save(self, state: dict[str, Any]) -> None:
        write_private(self._path, json.dumps(state).encode())


def _first_free(last_step: int, now: float) -> int:
    oldest = int(now) // STEP - 1
    if STEP - now % STEP < ROLL_OVER:
        oldest += 1
    return max(last_step + 1, oldest)


def code_at(seed: Secret, step: int) -> Secret:
    """RFC 4226 5.3 with six digits. Its own few lines: the broker's library must not check itself."""
    key = base64.b32decode(seed.reveal())
    digest = hmac.digest(key, struct.pack(">Q", step), "sha1")
    offset = digest[-1] & 0x0F
    number = struct.unpack(">I", digest[offset : offset + 4])[0] & 0x7FFFFFFF
    return Secret(f"{number % 1_000_000:06d}")
