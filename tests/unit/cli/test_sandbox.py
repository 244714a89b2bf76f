"""How the sandbox runs a child and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from credx.cli.longrun import ended_by_signals
from credx.cli.sandbox import run_child
from credx.errors import UsageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 41", 41), ("kill -KILL $$", 128 + signal.SIGKILL)]
)
def test_exit_codes_pass_through(script: str, code: int) -> None:
    with ended_by_signals():
        assert run_child(["sh", "-c", script], os.environ) == code


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="cannot be run"):
        run_child(["no-such-command-here"], os.environ)


@pytest.mark.parametrize("missing", ["moto", "flask", "waitress"])
def test_a_missing_extra_is_named(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; from credx.cli.main import main\n"
        "sys.argv = ['credx', 'sandbox', 'run', '--', 'true']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.splitlines()[1] == "hint: pip install 'credx[sandbox]'"


def test_sigterm_is_handed_on_to_the_child() -> None:
    def send() -> None:
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)

    with ended_by_signals():
        thread = threading.Thread(target=send)
        thread.start()
        code = run_child(["sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done"], os.environ)
        thread.join()
    assert code == 5


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_leaves_through_finally_once(number: signal.Signals, error: type[BaseException]) -> None:
    before = signal.getsignal(number)
    cleaned = []

    def interrupted() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), number)  # an impatient second Ctrl-C does not stop the cleaning up
            time.sleep(0.05)
            cleaned.append(True)

    with pytest.raises(error), ended_by_signals():
        interrupted()
    assert cleaned == [True]
    assert signal.getsignal(number) is before
