"""How long a person, or an SDK, waits for the process: `credx --help` and warm `credx process ROLE`.

Each figure is the median of RUNS runs, taken in turns in one go on one machine, and a ratio to the bare
interpreter of the same run. Where the AWS CLI v2 is installed, its `configure export-credentials` stands
beside them, with credentials that lie in a file.

    .venv/bin/python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from credx.sandbox.world import World

USER = "alice"
ROLE = "dev"


def once(command: list[str], env: dict[str, str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{command} ended with {done.returncode}: {done.stderr.decode()}")
    return taken * 1000


def aws_v2() -> str | None:
    for folder in os.environ["PATH"].split(os.pathsep):
        found = shutil.which("aws", path=folder)
        if (
            found
            and "aws-cli/2"
            in subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        ):
            return found
    return None


def main() -> None:
    runs = argparse.ArgumentParser(description=__doc__)
    runs.add_argument("--runs", type=int, default=20)
    count = runs.parse_args().runs
    with tempfile.TemporaryDirectory() as directory, World(Path(directory)) as world:
        env = world.environment(USER)
        credx = shutil.which("credx", path=env["PATH"]) or sys.exit("no credx in the world")
        once([credx, "process", ROLE], env)  # fills the cache
        static = Path(directory) / "static"
        static.write_text(
            "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = not-a-secret\n"
        )
        plain = {k: v for k, v in env.items() if not k.startswith("AWS_")} | {
            "AWS_SHARED_CREDENTIALS_FILE": str(static),
            "AWS_CONFIG_FILE": str(Path(directory) / "none"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        commands: dict[str, tuple[list[str], dict[str, str]]] = {
            "python -I -S -c pass": ([sys.executable, "-I", "-S", "-c", "pass"], env),
            "python -c pass": ([sys.executable, "-c", "pass"], env),
            "credx --help": ([credx, "--help"], env),
            f"credx process {ROLE} (warm)": ([credx, "process", ROLE], env),
        }
        if aws := aws_v2():
            commands["aws configure export-credentials"] = ([aws, "configure", "export-credentials"], plain)
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(count):
            for name, (command, environment) in commands.items():
                taken[name].append(once(command, environment))
    bare = statistics.median(taken["python -c pass"])
    print(f"{'':36}{'median ms':>10}{'x python -c pass':>18}")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"{name:36}{median:10.1f}{median / bare:18.2f}")


if __name__ == "__main__":
    main()
