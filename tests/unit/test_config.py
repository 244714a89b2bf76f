from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx import config
from credx.config import Places, Settings
from credx.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MINIMAL = Settings(
    broker="https://credx.example.com", issuer="https://idp.example.com", client_id="credx-cli"
)
FULL = Settings(
    broker="https://credx.example.com/base",
    issuer="http://localhost:8080/",
    client_id='with "quotes" \\ and ünïcode',
    id_scopes=("openid", "offline_access"),
    default_role="prod-ops",
    region="eu-central-1",
    sts_endpoint="http://127.0.0.1:4566",
    ca_file="/etc/ca.pem",
    token_source="file:/run/token",
    prompt="touch",
)
DOCUMENT = {
    "issuer": "https://credx.example.com",
    "broker": "https://credx.example.com",
    "token_endpoint": "https://credx.example.com/token",
    "identity_providers": [
        {"issuer": "https://idp.example.com", "client_id": "credx-cli", "scopes": ["openid", "profile"]},
        {"issuer": "https://two.example.com", "client_id": "x", "scopes": ["openid"]},
    ],
    "webauthn": {"rp_id": "credx.example.com"},
    "regions": ["eu-central-1"],
    "version": "0.1",
}


@pytest.fixture
def home(tmp_path: Path) -> Places:
    return config.places({"CREDX_HOME": str(tmp_path / "home")})


def write(home: Places, text: str | bytes, mode: int = 0o600) -> None:
    home.config_file.parent.mkdir(parents=True, exist_ok=True)
    home.config_file.write_bytes(text if isinstance(text, bytes) else text.encode())
    home.config_file.chmod(mode)


def complaint(home: Places) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config.load(home)
    assert caught.value.hint
    return caught.value


def test_credx_home_holds_everything(tmp_path: Path) -> None:
    home = config.places({"CREDX_HOME": str(tmp_path)})
    assert home == Places(config_file=tmp_path / "config.toml", state_dir=tmp_path / "state")


def test_without_it_the_operating_system_says_where() -> None:
    home = config.places({})
    assert home.config_file.name == "config.toml"
    assert home.config_file.is_absolute()
    assert "credx" in home.state_dir.parts


def test_a_relative_home_is_refused() -> None:
    with pytest.raises(ConfigError):
        config.places({"CREDX_HOME": "here"})


@pytest.mark.parametrize("settings", [MINIMAL, FULL])
def test_what_is_saved_is_loaded(home: Places, settings: Settings) -> None:
    config.save(home, settings)
    assert config.load(home) == settings


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_the_file_is_nobody_elses_whatever_the_umask(home: Places) -> None:
    before = os.umask(0)
    try:
        config.save(home, FULL)
    finally:
        os.umask(before)
    assert stat.S_IMODE(home.config_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.config_file.parent.stat().st_mode) == 0o700
    assert [p.name for p in home.config_file.parent.iterdir()] == ["config.toml"]


def test_a_failed_save_leaves_the_old_file(home: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    config.save(home, MINIMAL)
    before = home.config_file.read_bytes()
    for bad in ({"prompt": "never"}, {"client_id": "\ud800"}, {"client_id": "a\nb"}, {"id_scopes": ()}):
        with pytest.raises(ConfigError):
            config.save(home, dataclasses.replace(FULL, **bad))  # type: ignore[arg-type]

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        config.save(home, FULL)
    assert home.config_file.read_bytes() == before
    assert [p.name for p in home.config_file.parent.iterdir()] == ["config.toml"]


def test_a_missing_file_says_what_to_type(home: Places) -> None:
    error = complaint(home)
    assert error.hint == "credx init URL"
    assert str(home.config_file) in error.message


GOOD = 'broker = "https://b.example"\nissuer = "https://i.example"\nclient_id = "c"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD + "colour = 1\n", '"colour": unknown setting'),
        (GOOD + '"new\\nline" = 1\n', "unknown setting"),
        (GOOD + "[table]\n", "unknown setting"),
        (GOOD.replace("client_id", "#"), "client_id: is missing"),
        ("", "broker: is missing"),
        ("= 3", "is not readable as TOML"),
        (b"\xff", "is not readable as TOML"),
        ("x = " + "[" * 5000, "is not readable as TOML"),
        ("#" * 70_000, "is larger than"),
        (GOOD.replace("https://b.example", "http://b.example"), "broker: must be"),
        (GOOD.replace("https://b.example", "https://b.example/"), "broker: must be"),
        (GOOD.replace("https://b.example", "https://u@b.example"), "broker: must be"),
        (GOOD.replace("https://i.example", "http://localhost.evil"), "issuer: must be"),
        (GOOD.replace('"c"', "3"), "client_id: must be"),
        (GOOD + 'sts_endpoint = "http://sts.example"\n', "sts_endpoint: must be"),
        (GOOD + 'default_role = "Prod Ops"\n', "default_role: must be"),
        (GOOD + 'region = "eu-central-1.evil.example/"\n', "region: must be"),
        (GOOD + 'ca_file = "ca.pem"\n', "ca_file: must be"),
        (GOOD + 'token_source = "command:rm"\n', "token_source: must be"),
        (GOOD + 'prompt = "never"\n', "prompt: must be"),
        (GOOD + 'id_scopes = "openid"\n', "id_scopes: must be"),
        (GOOD + 'id_scopes = ["profile"]\n', 'must hold "openid"'),
        (GOOD + 'id_scopes = ["openid", "a b"]\n', "id_scopes: must be"),
    ],
)
def test_a_bad_setting_is_named_with_file_and_key(home: Places, text: str | bytes, said: str) -> None:
    write(home, text)
    message = complaint(home).message
    assert message.startswith(f"{home.config_file}: ")
    assert said in message
    assert message.isprintable()


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_a_file_that_others_may_write_is_refused(home: Places) -> None:
    write(home, GOOD, 0o666)
    error = complaint(home)
    assert "others may write" in error.message
    assert (error.hint or "").startswith("chmod 600")


def test_a_directory_is_no_settings_file(home: Places) -> None:
    home.config_file.mkdir(parents=True)
    assert "cannot be read" in complaint(home).message


def test_a_brokers_document_makes_settings() -> None:
    assert config.from_broker_document("https://credx.example.com/", DOCUMENT) == Settings(
        broker="https://credx.example.com",
        issuer="https://idp.example.com",
        client_id="credx-cli",
        id_scopes=("openid", "profile"),
        region="eu-central-1",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"broker": "https://evil.example.com"},
        {"broker": None},
        {"identity_providers": []},
        {"identity_providers": {}},
        {"identity_providers": [{}]},
        {"identity_providers": ["x"]},
        {"identity_providers": None},
        {
            "identity_providers": [
                {"issuer": "http://idp.example.com", "client_id": "c", "scopes": ["openid"]}
            ]
        },
        {
            "identity_providers": [
                {"issuer": "https://idp.example.com", "client_id": "c\n", "scopes": ["openid"]}
            ]
        },
        {"identity_providers": [{"issuer": "https://idp.example.com", "client_id": "c", "scopes": 3}]},
        {"regions": 3},
        {"regions": ["nowhere"]},
    ],
)
def test_a_document_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        config.from_broker_document("https://credx.example.com", {**DOCUMENT, **change})


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
)
def test_the_writer_speaks_toml(text: str, several: list[str]) -> None:
    written = f"a = {config._toml(text)}\nb = {config._toml(tuple(several))}\n"
    assert tomllib.loads(written) == {"a": text, "b": several}


@given(
    st.dictionaries(
        st.sampled_from([f.name for f in dataclasses.fields(Settings)]),
        st.text() | st.integers() | st.lists(st.text()),
    )
)
def test_any_values_are_settings_or_refused(values: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(config._settings(values, "f"), Settings)
