"""For every test: no test may wait for a real AWS, and a slow machine is no failure."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

settings.register_profile("credx", deadline=None, print_blob=True)
settings.load_profile("credx")
