"""``login``, ``logout``, ``status``, ``roles`` and ``factor``: what is shown where."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Bench


def test_without_configuration_the_hint_is_init(bare: Bench) -> None:
    for command in (("login",), ("roles",), ("status",), ("process", "dev"), ("factor", "list")):
        result = bare.run(*command)
        assert result.code == 3
        assert "credx init" in result.err
        assert result.out == ""


def test_login_names_the_person_without_their_escapes(bench: Bench) -> None:
    result = bench.run("login", "--token-source", "env:CI_TOKEN")
    assert result.code == 0
    assert result.out == ""
    assert "signed in as a�[31m@b.example at https://idp.example.com" in result.err
    assert bench.flow.settings is not None
    assert bench.flow.settings.token_source == "env:CI_TOKEN"
    assert bench.flow.forced is False
    bench.run("login", "--force")
    assert bench.flow.forced is True


def test_logout_says_what_lives_on(bench: Bench) -> None:
    assert bench.run("logout").err == "credx: signed out\n"
    bench.flow.not_revoked = ["the refresh token: the identity provider offers no revocation"]
    result = bench.run("logout")
    assert result.code == 0
    assert "credx: the refresh token: the identity provider offers no revocation\n" in result.err


def test_status(bench: Bench) -> None:
    assert "no; credx login" in bench.run("status").out
    bench.flow.signed_in = {
        "issuer": "https://idp.example.com", "subject": "s", "user": "alice-1a2b3c4d",
        "expires_at": 1_800_000_000 + 1500, "renewable": True,
    }  # fmt: skip
    shown = bench.run("status").out
    assert "alice-1a2b3c4d" in shown
    assert "for 25m, renews itself" in shown
    assert "dev --scope read-logs  for 30m" in shown
    assert json.loads(bench.run("status", "--json").out)["signed_in"]["user"] == "alice-1a2b3c4d"


def test_roles_say_what_enforces_them(bench: Bench) -> None:
    shown = bench.run("roles").out
    for word in (
        "dev",
        "111122223333",
        "webauthn, totp",
        "1h",
        "trust-policy",
        "  read-logs",
        "narrowing",
    ):
        assert word in shown
    assert "\x1b" not in shown  # piped: no colour, nothing cut
    listed = json.loads(bench.run("roles", "--json").out)
    assert listed == bench.flow.listed
    bench.flow.listed = []
    assert json.loads(bench.run("roles", "--json").out) == []


def test_names_are_text_and_never_markup_or_escapes(bench: Bench) -> None:
    bench.flow.listed = [bench.flow.listed[0] | {"name": "[red]x[/red]\x1b]0;t\x07"}]
    assert "[red]x[/red]�]0;t�" in bench.run("roles").out


def test_factor_list(bench: Bench) -> None:
    shown = bench.run("factor", "list").out
    assert "phone�" in shown
    assert "never" in shown
    assert json.loads(bench.run("factor", "list", "--json").out)[0]["id"] == "f1"


def test_a_totp_secret_is_shown_on_the_terminal_alone(bench: Bench) -> None:
    result = bench.run("factor", "add", "totp", "--name", "phone")
    assert result.code == 5
    device = bench.sit_down()
    result = bench.run("factor", "add", "totp", "--name", "phone")
    assert result.code == 0
    assert "otpauth://totp/x?secret=SEED" in device.shown
    assert "SEED" not in result.out + result.err


def test_an_invitation_never_comes_from_the_command_line(bench: Bench) -> None:
    bench.stdin = io.StringIO("the-invitation-itself\n")
    result = bench.run("factor", "add", "webauthn", "--name", "k", "--invitation", "the-invitation-itself")
    assert result.code == 2
    assert "the-invitation-itself" not in result.err
    assert bench.run("factor", "add", "webauthn", "--name", "k", "--invitation", "-").code == 0
    assert bench.flow.added == [("webauthn", "k", "the-invitation-itself")]
    assert bench.run("factor", "add", "webauthn", "--name", "k", "--invitation", "-").code == 2  # empty now


def test_at_a_terminal_the_invitation_is_asked_for_unechoed(bench: Bench) -> None:
    class Typed(io.StringIO):
        def isatty(self) -> bool:
            return True

    bench.stdin = Typed()
    device = bench.sit_down("  the-invitation-itself ")
    assert bench.run("factor", "add", "webauthn", "--name", "k", "--invitation", "-").code == 0
    assert bench.flow.added == [("webauthn", "k", "the-invitation-itself")]
    assert device.echoed == [False]


def test_factor_remove(bench: Bench) -> None:
    assert bench.run("factor", "remove", "f1").code == 0
    assert bench.flow.removed == ["f1"]


@pytest.mark.parametrize("url", ["http://broker.example.com", "ftp://x", "https://u:p@x.example", "broker"])
def test_init_refuses_an_address_that_cannot_be_trusted(bare: Bench, url: str) -> None:
    assert bare.run("init", url).code == 2


def test_nobody_is_asked_in_ci(bench: Bench) -> None:
    device = bench.sit_down("never read")
    bench.environ["CI"] = "true"
    assert bench.run("factor", "add", "totp", "--name", "phone").code == 5
    assert device.shown == ""
