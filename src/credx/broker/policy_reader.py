"""Reading a TOML table strictly: every key is asked for by name, and what nobody asked for is refused.

Every complaint is a ``ConfigError`` that begins ``FILE:LINE: table.key:``; the line is left out where it
cannot be told (tomllib keeps no positions, so a scan for table headers and keys looks for them).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from credx.errors import ConfigError
from credx.protocol import NAME
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

MAX_FILE: Final = 1024 * 1024  # bytes; a thousand roles are about half of it
MAX_VALUES: Final = 1000  # of one list
SHOWN: Final = 60  # characters of a wrong value that a complaint quotes

Path = tuple[str | int, ...]

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(0|[1-9][0-9]{0,5})([smhd]?)")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*((?:[A-Za-z0-9_-]|\"[^\"]*\"|'[^']*'|\s*\.\s*)+)\s*=")


@dataclass(frozen=True)
class Source:
    """A file's name and the lines of what is in it."""

    name: str
    lines: Mapping[Path, int] = field(repr=False)

    def error(self, path: Path, reason: str) -> ConfigError:
        known = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in self.lines), None)
        where = self.name if known is None else f"{self.name}:{self.lines[known]}"
        subject = f"{dotted(path)}: " if path else ""
        return ConfigError(f"{where}: {subject}{reason}", hint=f"credx broker check {self.name}")


def parse(text: str, name: str) -> Table:
    """The root table of a TOML text.

    Raises:
        ConfigError: it is no TOML.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # also numbers of thousands of digits
        reason = str(exc) if isinstance(exc, tomllib.TOMLDecodeError) else "not readable"
        at = re.search(r" \(at line ([0-9]+), column [0-9]+\)$", reason)
        where, reason = (f"{name}:{at[1]}", reason[: at.start()]) if at else (name, reason)
        raise ConfigError(f"{where}: no TOML: {clean(reason)}", hint=f"credx broker check {name}") from exc
    return Table(values, (), Source(name, dict(_positions(text))))


def dotted(path: Path) -> str:
    """``roles."a b".statements[0]`` for people."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            word = part if _BARE.fullmatch(part) else f'"{clean(part, SHOWN)}"'
            shown += f".{word}" if shown else word
    return shown


class Table:
    """One table that is being read. Each method takes a key away; ``close`` refuses what is left."""

    def __init__(self, values: Mapping[str, Any], path: Path, source: Source) -> None:
        self._values = dict(values)
        self.path = path
        self._source = source

    def error(self, key: str | None, reason: str) -> ConfigError:
        return self._source.error((*self.path, key) if key is not None else self.path, reason)

    def close(self) -> None:
        for key in self._values:
            raise self.error(key, "unknown key")

    def has(self, key: str) -> bool:
        return key in self._values

    def text(
        self,
        key: str,
        default: str | None = None,
        *,
        good: Callable[[str], object] | None = None,
        want: str = "",
    ) -> str:
        """A string of one line that is not empty; missing only with a default, which may be anything."""
        value = self._values.pop(key, None)
        if value is None:
            if default is None:
                raise self.error(key, "is missing")
            return default
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise self.error(key, f"must be {want or 'a string of one line'}, {_shown(value)} is not")
        if good is not None and not good(value):
            raise self.error(key, f"must be {want}, {_shown(value)} is not")
        return value

    def choice(self, key: str, choices: Collection[str], default: str) -> str:
        return self.text(key, default, good=choices.__contains__, want=f"one of {', '.join(choices)}")

    def flag(self, key: str, default: bool) -> bool:
        value = self._values.pop(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, {_shown(value)} is neither")
        return value

    def seconds(self, key: str, default: int, low: int, high: int) -> int:
        """A duration: ``"15m"``, ``"1h"``, ``"0"`` or whole seconds."""
        value = self._values.pop(key, default)
        if isinstance(value, str) and (found := _DURATION.fullmatch(value)):
            value = int(found[1]) * _UNITS[found[2]]
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, f'must be a duration such as "15m", "1h" or 900, {_shown(value)} is not')
        if not low <= value <= high:
            raise self.error(key, f"must be {low} to {high} seconds, {_shown(value)} is not")
        return value

    def words(
        self,
        key: str,
        default: tuple[str, ...] | None = None,
        *,
        good: Callable[[str], object] | None = None,
        want: str = "a string of one line",
        empty: bool = False,
    ) -> tuple[str, ...]:
        """A list of different strings, at least one unless ``empty``; missing only with a default."""
        value = self._values.pop(key, None)
        if value is None:
            if default is None:
                raise self.error(key, "is missing")
            return default
        if not isinstance(value, list) or len(value) > MAX_VALUES or not (value or empty):
            raise self.error(key, "must be a list of strings that is not empty")
        for word in value:
            if not isinstance(word, str) or not word.strip() or not word.isprintable():
                raise self.error(key, f"must hold strings of one line, {_shown(word)} is not")
            if good is not None and not good(word):
                raise self.error(key, f"{_shown(word)} is not {want}")
        if len(set(value)) != len(value):
            raise self.error(key, "names something twice")
        return tuple(value)

    def table(self, key: str) -> Table:
        """The table under ``key``; an absent one is empty."""
        return self._table(self._values.pop(key, {}), (*self.path, key))

    def tables(self, key: str) -> list[Table]:
        """The tables of an array; an absent one is empty."""
        value = self._values.pop(key, [])
        if not isinstance(value, list) or len(value) > MAX_VALUES:
            raise self.error(key, "must be a list of tables")
        return [self._table(entry, (*self.path, key, n)) for n, entry in enumerate(value)]

    def named(self, key: str) -> dict[str, Table]:
        """The tables of a table, by names as ``protocol.NAME`` wants them; an absent one is empty."""
        outer = self.table(key)
        for name in outer.names():
            if not NAME.fullmatch(name):
                raise outer.error(name, "a name is lower-case letters, digits, _ and -, at most 64")
        return {name: outer.table(name) for name in outer.names()}

    def strings(self, key: str) -> dict[str, str]:
        """A table of strings, taken whole; an absent one is empty."""
        inner = self.table(key)
        return {name: inner.text(name) for name in inner.names()}

    def one_or_more(self, key: str) -> tuple[str, ...]:
        """A string, or a list of strings."""
        return (self.text(key),) if isinstance(self._values.get(key), str) else self.words(key)

    def names(self) -> list[str]:
        """The keys that are left."""
        return list(self._values)

    def integer(self, key: str) -> int | None:
        """A whole number, or None where something else or nothing stands."""
        value = self._values.pop(key, None)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def _table(self, value: object, path: Path) -> Table:
        if not isinstance(value, dict):
            raise self._source.error(path, f"must be a table, {_shown(value)} is not")
        return Table(value, path, self._source)


def _shown(value: object) -> str:
    return clean(repr(value), SHOWN)


def _positions(text: str) -> Iterator[tuple[Path, int]]:
    """Where each table begins and each key stands. A guess on odd layouts; used in complaints alone."""
    here: Path = ()
    counts: dict[Path, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.fullmatch(line):
            here = _key_path(header[2])
            if header[1] == "[[":
                counts[here] = counts.get(here, -1) + 1
                here = (*here, counts[here])
            yield here, number
        elif key := _KEY.match(line):
            yield (*here, *_key_path(key[1])), number


def _key_path(key: str) -> Path:
    try:
        value: object = tomllib.loads(f"{key} = 0")
    except ValueError:
        return (key,)
    path: list[str] = []
    while isinstance(value, dict) and value:
        part, value = next(iter(value.items()))
        path.append(part)
    return tuple(path)
