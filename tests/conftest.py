"""For every test: no test may wait for a real AWS, a slow machine is no failure, helpers are in ``support``."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # where `support` is

NODE = Path(__file__).parent / "node"  # npm packages that judge from outside

os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

settings.register_profile("credx", deadline=None, print_blob=True)
settings.load_profile("credx")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A real component that is missing: said aloud on a workstation, a failure in CI."""
    for mark in item.iter_markers("component"):
        name = str(mark.args[0])
        missing = (
            not (NODE / "node_modules" / name[4:]).is_dir()
            if name.startswith("npm:")
            else not shutil.which(name)
        )
        if missing:
            reason = f"{name} is not installed" + (": npm ci --prefix tests/node" if "npm:" in name else "")
            if os.environ.get("CI") == "true":
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def _logs_reach_the_test() -> None:
    """A command that ran in this process has sent the logs elsewhere, as it does for its own process."""
    for name in ("credx", "waitress"):
        logger = logging.getLogger(name)
        logger.propagate = True
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
