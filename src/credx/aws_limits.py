"""What AWS takes, where more than one room has to know it. Source: the STS API, AssumeRoleWithWebIdentity."""

from __future__ import annotations

import re
from typing import Final

REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}")
DURATION_RANGE: Final = (900, 43200)  # seconds, DurationSeconds
MAX_SESSION_POLICY: Final = 2048  # characters, Policy
TOKEN_RANGE: Final = (4, 20_000)  # characters, WebIdentityToken
