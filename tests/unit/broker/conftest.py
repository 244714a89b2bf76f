"""A whole broker in memory, and security keys in software."""

from __future__ import annotations

import pytest
from support.broker_world import SecurityKey, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def new_world() -> type[World]:
    return World


@pytest.fixture
def new_key() -> type[SecurityKey]:
    return SecurityKey
