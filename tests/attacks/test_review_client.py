"""What an outside review of the command line got through with, each named after what is refused since."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from credx.cli import tables
from credx.cli.terminal import Terminal
from credx.config import Settings, load, places
from credx.errors import ConfigError, UnavailableError
from credx.factors.fido2 import _options
from credx.flow.answers import credentials_of
from credx.flow.proving import Proving
from credx.identity import pkce
from credx.identity.discovery import Provider
from credx.model import Secret
from credx.protocol import AWS_CREDENTIALS_TYPE, Issued

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = Settings(broker="https://b.example", issuer="https://i.example", client_id="c")
DOCUMENT = {
    "AccessKeyId": "ASIAEXAMPLE",
    "SecretAccessKey": "secret",
    "SessionToken": "token",
    "Expiration": "2027-01-15T09:00:00Z",
}


# -- stdout belongs to whoever reads the credentials

BROWSER = """#!/bin/sh
echo "Opening in existing browser session."
echo "some warning" >&2
sleep 30 &
echo $! >"$0.pid"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script as browser")
def test_a_browser_neither_writes_into_our_output_nor_holds_it_open(tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(BROWSER)
    browser.chmod(0o700)
    code = (
        "import os\n"
        "from credx.cli.edges import _open_browser\n"
        "assert _open_browser('https://idp.example/authorize')\n"
        "os.write(1, b'{}'); os.write(2, b'note')\n"
    )
    before = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"BROWSER": str(browser)},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert (done.stdout, done.stderr) == (b"{}", b"note")
        assert time.monotonic() - before < 25  # the browser runs on
    finally:
        os.kill(int((tmp_path / "browser.pid").read_text()), 9)


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors")
def test_closed_outputs_are_closed_for_a_browser_too() -> None:
    code = (
        "import os\n"
        "os.close(1); os.close(2)\n"
        "from credx.cli.edges import _lent_output\n"
        "with _lent_output(): pass\n"
        "for number in (1, 2):\n"
        "    try: os.fstat(number)\n"
        "    except OSError: continue\n"
        "    os._exit(3)\n"
        "os._exit(0)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- a broker that answers with credentials is held to what STS is held to


def issued(document: Any, **changes: Any) -> Issued:
    text = document if isinstance(document, str) else json.dumps(document)
    fields: dict[str, Any] = {
        "token": Secret(text), "issued_token_type": AWS_CREDENTIALS_TYPE, "expires_in": 900,
        "issuance_id": "i", "role_arn": "arn:aws:iam::111122223333:role/dev", "region": "eu-central-1",
        "session_name": "ada", "session_policy": None, "duration": 900,
    }  # fmt: skip
    return Issued(**fields | changes)


def test_a_document_as_it_should_be() -> None:
    assert credentials_of(issued(DOCUMENT), SETTINGS).account_id == "111122223333"


@pytest.mark.parametrize("region", ["evil.example/#", "", "x@evil.example", "eu-central-1\n", "EU"])
def test_a_region_that_would_make_sdks_call_another_host(region: str) -> None:
    with pytest.raises(UnavailableError):
        credentials_of(issued(DOCUMENT, region=region), SETTINGS)


@pytest.mark.parametrize("arn", ["a:b:c:d:e\x1b[2J:f", "arn:aws:iam::1:role/x", "arn:aws:iam::*:role/dev"])
def test_an_account_that_is_none(arn: str) -> None:
    with pytest.raises(UnavailableError):
        credentials_of(issued(DOCUMENT, role_arn=arn), SETTINGS)


@pytest.mark.parametrize("name", ["AccessKeyId", "SecretAccessKey", "SessionToken"])
@pytest.mark.parametrize("value", ["", None, ["x"], "two\nlines", "\u202e"])
def test_keys_without_which_sdks_would_take_those_of_another_profile(name: str, value: Any) -> None:
    with pytest.raises(UnavailableError):
        credentials_of(issued(DOCUMENT | {name: value}), SETTINGS)


@pytest.mark.parametrize(
    "text", ["[" * 50_000, "[]", '{"Expiration": 1}', json.dumps(DOCUMENT)[:-1] + ', "SessionToken": "x"}']
)
def test_a_document_that_is_none(text: str) -> None:
    with pytest.raises(UnavailableError) as refused:
        credentials_of(issued(text), SETTINGS)
    assert refused.value.__suppress_context__  # the cause would carry the document


# -- a security key gives a site its signature and no more


def test_extensions_and_time_limits_of_a_broker_do_not_reach_the_key() -> None:
    from fido2.webauthn import PublicKeyCredentialRequestOptions

    options = _options(
        PublicKeyCredentialRequestOptions,
        {
            "challenge": "A" * 43,
            "rpId": "b.example",
            "timeout": 10**30,
            "extensions": {"prf": {"eval": {"first": "AAAA"}}, "largeBlob": {"read": True}},
        },
    )
    assert not options.extensions
    assert not options.timeout


class Client:
    def __init__(self, begun: Any) -> None:
        self.begun = begun

    def begin_enrolment(self, _token: Secret, **_rest: Any) -> Any:
        return self.begun


@pytest.mark.parametrize(("kind", "other"), [("webauthn", "totp"), ("totp", "webauthn")])
def test_a_factor_of_another_kind_than_was_asked_for(kind: str, other: str) -> None:
    from credx.broker_client import Enrolment

    handle = Secret("e" * 20)
    begun = {
        "totp": Enrolment(enrolment=handle, secret=Secret("S"), uri=Secret("otpauth://x")),
        "webauthn": Enrolment(enrolment=handle, public_key={}),
    }[other]
    shown: list[Any] = []
    proving: Any = Proving(lambda: Client(begun), object(), object())  # type: ignore[arg-type,return-value]
    with pytest.raises(UnavailableError):
        proving.add(Secret("t"), kind, "mine", None, lambda *secret: shown.append(secret))
    assert shown == []


# -- what is listed and told


@pytest.mark.parametrize(
    "role",
    [
        {},
        {"account": "1", "duration": "x"},
        {"account": "1", "duration": 900, "factors": 5},
        {"account": "1", "duration": 900, "scopes": [{}]},
        {"account": "1", "duration": 900, "scopes": 5},
    ],
)
def test_a_list_of_roles_of_another_shape_is_no_answer(role: dict[str, Any]) -> None:
    with pytest.raises(UnavailableError):
        tables.roles([{"name": "dev", **role}], is_terminal=False)


@pytest.mark.parametrize("more", [{}, {"kind": "totp", "name": "x", "created_at": 10**30}])
def test_a_list_of_factors_of_another_shape_is_no_answer(more: dict[str, Any]) -> None:
    with pytest.raises(UnavailableError):
        tables.factors([{"id": "f", **more}], is_terminal=False)


def test_the_address_to_sign_in_at_is_told_whole() -> None:
    told: list[str] = []
    terminal = Terminal(
        environ={}, open_device=lambda: None, write_note=told.append, notes_visible=lambda: True
    )
    site = "https://login.identity.example/" + "9f4d8b0e-0000-0000-0000-9f4d8b0e0000" * 3
    provider = Provider(
        issuer=site, authorization_endpoint=f"{site}/authorize", token_endpoint=site, jwks_uri=site
    )
    attempt = pkce.begin("http://127.0.0.1:54321/callback", os.urandom)
    url = pkce.authorization_url(provider, attempt, client_id="c" * 72, scopes=["profile", "email"])
    terminal.note(f"open this address: {url}")
    assert told == [f"credx: open this address: {url}\n"]


# -- what the environment and the file system may choose

KEYRING = """
import sys
from keyring.backend import KeyringBackend
from credx.credentials import keyring_child
class Backend(KeyringBackend):
    priority = 5
    keychain = "the user's own"
    def get_password(self, service, username): return self.keychain
    def set_password(self, service, username, password): pass
    def delete_password(self, service, username): pass
keyring_child.main(sys.stdin.buffer, sys.stdout.buffer, [("__main__", "Backend")])
"""


def test_a_variable_does_not_choose_the_keychain() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KEYRING],
        env=os.environ | {"KEYRING_PROPERTY_KEYCHAIN": "/elsewhere"},
        input=b'{"do": "load"}',
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert json.loads(done.stdout) == {"key": "the user's own"}


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes")
def test_a_pipe_in_the_place_of_the_settings_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.toml", 0o600)
    with pytest.raises(ConfigError, match="regular file"):
        load(places({"CREDX_HOME": str(tmp_path)}))
