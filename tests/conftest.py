"""For every test: no test may wait for a real AWS, a slow machine is no failure, helpers are in ``support``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # where `support` is

os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

settings.register_profile("credx", deadline=None, print_blob=True)
settings.load_profile("credx")
