"""The client's settings: one flat TOML file, read strictly, replaced atomically. No secret is ever in it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import stat
import sys
import tempfile
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from credx.aws_limits import REGION
from credx.errors import ConfigError
from credx.urls import permitted_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HOME_VARIABLE: Final = "CREDX_HOME"
CONFIG_NAME: Final = "config.toml"
MAX_CONFIG: Final = 64 * 1024  # bytes; a dozen short settings
HINT: Final = "credx init URL"
REPAIR: Final = f"correct the file, or write a new one: {HINT}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``credx init`` writes.

    Attributes:
        broker: base URL without final slash. issuer, client_id, id_scopes: the identity provider.
        default_role, region: used where the command line names none.
        sts_endpoint: instead of the region's own endpoint. ca_file: PEM bundle beside the system's trust store.
        token_source: ``file:PATH``, ``env:NAME`` or ``stdin`` instead of a browser.
        prompt: ``auto`` or ``touch``: whether ``credx process`` may start a ceremony.
    """

    broker: str
    issuer: str
    client_id: str
    id_scopes: tuple[str, ...] = ("openid",)
    default_role: str | None = None
    region: str | None = None
    sts_endpoint: str | None = None
    ca_file: str | None = None
    token_source: str | None = None
    prompt: str = "auto"


@dataclass(frozen=True, kw_only=True)
class Places:
    config_file: Path
    state_dir: Path


_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
_ROLE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # as credx.protocol.NAME
TOKEN_SOURCE = re.compile(r"file:.+|env:[A-Za-z_][A-Za-z0-9_]*|stdin")
_SCOPE = re.compile(r"[!#-\[\]-~]{1,256}")  # RFC 6749 3.3
_REQUIRED: Final = ("broker", "issuer", "client_id")

# what each setting has to be, and how to say so
_RULES: Final[Mapping[str, tuple[Callable[[str], object], str]]] = {
    "broker": (
        lambda v: permitted_url(v) and "?" not in v and not v.endswith("/"),
        "an https URL (http on a loopback host) without query and final slash",
    ),
    "issuer": (lambda v: permitted_url(v) and "?" not in v, "an https URL (http on a loopback host)"),
    "client_id": (str.isprintable, "one line"),
    "default_role": (_ROLE_NAME.fullmatch, "the name of a role"),
    "region": (REGION.fullmatch, "a region such as eu-central-1"),
    "sts_endpoint": (permitted_url, "an https URL (http on a loopback host)"),
    "ca_file": (os.path.isabs, "an absolute path"),
    "token_source": (TOKEN_SOURCE.fullmatch, "file:PATH, env:NAME or stdin"),
    "prompt": (("auto", "touch").__contains__, "auto or touch"),
}


def places(environ: Mapping[str, str]) -> Places:
    """Where configuration and state live: under ``$CREDX_HOME``, else where the operating system wants them.

    Raises:
        ConfigError: ``CREDX_HOME`` is not an absolute path.
    """
    home = environ.get(HOME_VARIABLE)
    if home:
        if not Path(home).is_absolute():
            raise ConfigError(f"{HOME_VARIABLE} must be an absolute path", hint=f"unset {HOME_VARIABLE}")
        return Places(config_file=Path(home) / CONFIG_NAME, state_dir=Path(home) / "state")
    import platformdirs  # noqa: PLC0415 -- not needed where CREDX_HOME says it

    config = platformdirs.user_config_path("credx", appauthor=False)
    state = platformdirs.user_state_path("credx", appauthor=False)
    return Places(config_file=config / CONFIG_NAME, state_dir=state)


def load(places: Places) -> Settings:
    """Read the settings.

    Raises:
        ConfigError: ``FILE: key: reason``.
    """
    path = places.config_file
    try:
        values = tomllib.loads(_read(path))
    except FileNotFoundError as exc:
        raise ConfigError(f"credx is not set up here: {path} does not exist", hint=HINT) from exc
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}", hint=HINT) from exc
    except (ValueError, RecursionError) as exc:
        at = re.search(r"\(at line ([0-9]+),", str(exc))
        line = f"line {at[1]} " if at else ""
        raise ConfigError(f"{path}: {line}is not readable as TOML", hint=REPAIR) from exc
    return _settings(values, str(path), REPAIR)


def save(places: Places, settings: Settings) -> None:
    """Write the settings whole, 0600, or leave what was there.

    Raises:
        ConfigError: a setting that ``load`` would refuse, or a file system that does.
    """
    path = places.config_file
    values = {f.name: getattr(settings, f.name) for f in fields(settings)}
    given = {name: value for name, value in values.items() if value is not None}
    text = "".join(f"{name} = {_toml(value)}\n" for name, value in given.items())
    try:
        data = text.encode("utf-8")
        _settings(tomllib.loads(text), str(path))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, data)
    except ValueError as exc:  # a lone surrogate, which neither UTF-8 nor TOML can say
        raise ConfigError(f"{path}: a setting is no text", hint=HINT) from exc
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written: {exc.strerror}", hint=HINT) from exc


def from_broker_document(url: str, document: Mapping[str, Any]) -> Settings:
    """The settings that a broker's ``/.well-known/credx-configuration`` proposes.

    Args:
        url: what the person typed; the document must name the same broker.
        document: ``broker``, ``identity_providers`` (the first is taken) and ``regions``.

    Raises:
        ConfigError: another broker, or a document of another shape.
    """
    where = url.rstrip("/")
    try:
        provider = document["identity_providers"][0]
        broker, regions = document["broker"], document.get("regions", [])
        values = {
            "broker": where,
            "issuer": provider["issuer"],
            "client_id": provider["client_id"],
            "id_scopes": provider["scopes"],
        }
        if len(regions) == 1:
            values["region"] = regions[0]
    except (KeyError, IndexError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{where}: the broker's configuration is not understood", hint=HINT) from exc
    if broker != where:
        raise ConfigError(f"{where}: the broker there calls itself by another address", hint=HINT)
    return _settings(values, where)


def _settings(values: Mapping[str, Any], source: str, hint: str = HINT) -> Settings:
    known = {f.name for f in fields(Settings)}
    for key in values:
        if key not in known:
            raise ConfigError(f"{source}: {json.dumps(key)}: unknown setting", hint=hint)
    for key in _REQUIRED:
        if key not in values:
            raise ConfigError(f"{source}: {key}: is missing", hint=hint)
    for key, (good, want) in _RULES.items():
        if key in values:
            value = values[key]
            if not isinstance(value, str) or not value or not value.isprintable() or not good(value):
                raise ConfigError(f"{source}: {key}: must be {want}", hint=hint)
    scopes = values.get("id_scopes", ["openid"])
    if not isinstance(scopes, list | tuple) or not all(
        isinstance(s, str) and _SCOPE.fullmatch(s) for s in scopes
    ):
        raise ConfigError(f"{source}: id_scopes: must be a list of scopes", hint=hint)
    if "openid" not in scopes:
        raise ConfigError(f'{source}: id_scopes: must hold "openid"', hint=hint)
    return Settings(**{**values, "id_scopes": tuple(scopes)})


def _read(path: Path) -> str:
    # O_NONBLOCK: a FIFO in the file's place must not hang us before fstat refuses it
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path}: is not a regular file", hint=REPAIR)
        if sys.platform != "win32" and (
            status.st_uid not in (0, os.getuid()) or stat.S_IMODE(status.st_mode) & 0o022
        ):
            raise ConfigError(f"{path}: others may write to it", hint=f"chmod 600 {shlex.quote(str(path))}")
        data = file.read(MAX_CONFIG + 1)
    if len(data) > MAX_CONFIG:
        raise ConfigError(f"{path}: is larger than {MAX_CONFIG} bytes", hint=REPAIR)
    return data.decode("utf-8")


def _toml(value: str | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # TOML's basic strings escape as JSON does, and DEL besides
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _replace(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
