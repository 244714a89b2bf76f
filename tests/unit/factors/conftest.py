from __future__ import annotations

import pytest
from support.ui import FakeUI


@pytest.fixture
def ui() -> FakeUI:
    return FakeUI()
