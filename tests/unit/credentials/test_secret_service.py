"""The vault's key in a real Secret Service: gnome-keyring on a session bus of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

STORY = """
from pathlib import Path
import sys
from credx.credentials.keystore import SystemKeyStore
from credx.credentials.store import open_vault

state = Path(sys.argv[1])
keystore = SystemKeyStore()
assert keystore.load() is None
open_vault(keystore, state, note=print).put("a", {"secret": "hunter2"})
again = open_vault(SystemKeyStore(), state, note=print)
assert again.persistent
assert again.get("a") == {"secret": "hunter2"}
assert not [f for f in state.rglob("*") if f.is_file() and b"hunter2" in f.read_bytes()]
again.wipe()
assert keystore.load() is None
assert open_vault(SystemKeyStore(), state, note=print).get("a") is None
print("kept, found, forgotten")
"""


@pytest.mark.component("gnome-keyring-daemon")
@pytest.mark.component("dbus-run-session")
def test_the_key_is_kept_in_a_real_secret_service(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    unlocked = 'printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null && exec "$0" "$@"'
    done = subprocess.run(
        [
            "dbus-run-session",
            "--",
            "sh",
            "-c",
            unlocked,
            sys.executable,
            "-c",
            STORY,
            str(tmp_path / "state"),
        ],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "kept, found, forgotten\n", done.stderr
