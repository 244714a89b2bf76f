"""The second factor, as the person meets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from credx.model import Secret

TotpCode: TypeAlias = Callable[[], Secret | None]
"""Answers a code without a terminal (a password manager, the sandbox); None means: ask the person."""
