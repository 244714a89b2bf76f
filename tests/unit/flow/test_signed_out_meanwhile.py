"""Signing out ends what other commands are in the middle of: nothing that they were given comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from credx.credentials.store import Vault
from credx.protocol import Ask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from credx.model import Secret

DEV = Ask(role="dev")


class Keyring:
    key: bytes | None = None

    def load(self) -> bytes | None:
        return self.key

    def create(self) -> bytes:
        self.key = b"k" * 32
        return self.key

    def delete(self) -> None:
        self.key = None


@pytest.fixture
def another(world: Any, tmp_path: Path) -> Callable[[], Any]:
    """Another command of the same user."""
    keyring = Keyring()
    return lambda: world.flow(Vault(keyring, tmp_path / "state"))


def secrets_of(flow: Any) -> list[str]:
    return [name for name in flow._vault.names() if not name.startswith("factor-groups:")]


def test_credentials_that_come_after_the_sign_out_are_not_kept(
    world: Any, another: Callable[[], Any]
) -> None:
    world.broker.factor_max_age = 3600

    def type_late() -> Secret | None:
        another().log_out()
        return None

    world.totp_code = type_late  # a code that is typed after somebody signed out in the next window
    world.ui.answers = ["123456"]
    assert another().credentials(DEV).access_key_id == "ASIA1"
    assert secrets_of(another()) == []


def test_what_was_there_before_is_kept_as_ever(world: Any, another: Callable[[], Any]) -> None:
    world.broker.factor_max_age = 3600
    world.ui.answers = ["123456"]
    another().credentials(DEV)
    assert {name.partition(":")[0] for name in secrets_of(another())} == {
        "aws", "identity", "factor-sessions",
    }  # fmt: skip


def test_a_renewal_that_ends_after_the_sign_out_does_not_sign_in_again(
    world: Any, another: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import credx.identity

    another().sign_in()
    world.now += 3590
    real = credx.identity.code_flow.refresh

    def slow(*args: Any) -> Any:
        another().log_out()
        return real(*args)

    monkeypatch.setattr(credx.identity.code_flow, "refresh", slow)
    another().id_token()
    assert another().status()["signed_in"] is None
    assert secrets_of(another()) == []
