"""Windows has no fcntl, termios, pwd or resource: every module must still import there.

Played: all libraries are loaded as they are, then credx alone once more, on a platform that says win32.
"""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys, types
import credx
names = [m.name for m in pkgutil.walk_packages(credx.__path__, "credx.") if m.name != "credx.__main__"]
assert len(names) > 80, names
for name in names:
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] == "credx"]:
    del sys.modules[name]
for name in ("fcntl", "termios", "tty", "pwd", "grp", "resource"):
    sys.modules[name] = None
sys.modules["msvcrt"] = types.ModuleType("msvcrt")
sys.platform = "win32"
for name in names:
    importlib.import_module(name)
print("imported")
"""


def test_every_module_imports_on_windows() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout == "imported\n", done.stderr
