"""Reading a TOML table strictly: every key is asked for by name, and what nobody asked for is refused.

A wrong value does not end the reading. It is noted, a harmless one stands in for it, and ``close`` ends the
table it is in; the tables beside it are read on, so that one run tells every fault. Whoever holds the root has
to call ``finish``: nothing is made of a file with a fault in it.
"""

from __future__ import annotations

import contextlib
import difflib
import re
import tomllib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from credx.broker.policy.faults import MAX_FAULTS, SHOWN, Fault, Finding, PolicyFileError, Source
from credx.protocol import NAME
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from credx.broker.policy.faults import Path

MAX_FILE: Final = 8 * 1024 * 1024  # bytes; ten thousand roles of some length
MAX_VALUES: Final = 1000  # of one list

T = TypeVar("T")

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(0|[1-9][0-9]{0,5})([smhd]?)")


class FaultyTable(Exception):  # noqa: N818 -- ends the reading of one table; its faults are noted already
    pass


def parse(text: str, name: str) -> tuple[Table, Source]:
    """The root table of a TOML text, and what knows where in it a thing stands.

    Raises:
        PolicyFileError: it is no TOML.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # also numbers of thousands of digits
        reason = str(exc) if isinstance(exc, tomllib.TOMLDecodeError) else "not readable"
        at = re.search(r" \(at line ([0-9]+), column [0-9]+\)$", reason)
        finding = Finding("error", (), f"no TOML: {clean(reason[: at.start()] if at else reason)}")
        line = int(at[1]) if at else None
        where = name if line is None else f"{name}:{line}"
        raise PolicyFileError([Fault(finding, line, f"{where}: {finding.text}")], name) from exc
    source = Source(name, text)
    return Table(values, (), source), source


class Table:
    """One table that is being read. Each method takes a key away; ``close`` refuses what is left."""

    def __init__(
        self, values: Mapping[str, Any], path: Path, source: Source, around: Table | None = None
    ) -> None:
        self._values = dict(values)
        self.path = path
        self._source = source
        self._around = around
        self._faulty = False
        self._missing: list[str] = []
        self._absent: list[str] = []  # asked for, and not in the file

    def fault(self, key: str | None, text: str) -> None:
        """Something is wrong here: ``close`` and ``sound`` will raise, of the tables around it as well."""
        self._source.fault((*self.path, key) if key is not None else self.path, text)
        self.spoilt()

    def spoilt(self) -> None:
        table: Table | None = self
        while table is not None:
            table._faulty, table = True, table._around  # noqa: SLF001 -- of this class

    @property
    def faulty(self) -> bool:
        """Something was wrong so far, here or in a table within."""
        return self._faulty

    def sound(self) -> None:
        """Raises ``FaultyTable`` if anything was wrong so far: what follows could not be judged."""
        for key in self._missing:
            meant = difflib.get_close_matches(key, self._values, n=1)
            if meant:
                del self._values[meant[0]]
                self.fault(meant[0], f"unknown key, did you mean {key}?")
            else:
                self.fault(key, "is missing")
        self._missing.clear()
        if self._faulty:
            raise FaultyTable

    def close(self) -> None:
        """Every key has been asked for.

        Raises:
            FaultyTable: some value was wrong or missing, or a key is left over.
        """
        with contextlib.suppress(FaultyTable):
            self.sound()
        for key in self._values:
            few = len(self._source.faults) < MAX_FAULTS  # guessing takes time
            meant = difflib.get_close_matches(key, self._absent, n=1) if few else ()
            self.fault(key, f"unknown key, did you mean {meant[0]}?" if meant else "unknown key")
        self.sound()

    def each(self, tables: Iterable[tuple[str, Table]], read: Callable[[str, Table], T]) -> dict[str, T]:
        """What ``read`` makes of every one of ``tables``; one with a fault is left out."""
        made: dict[str, T] = {}
        for name, table in tables:
            try:
                made[name] = read(name, table)
            except FaultyTable:
                continue
        return made

    def all(self, tables: Iterable[Table], read: Callable[[Table], T]) -> tuple[T, ...]:
        """As ``each``, of an array of tables."""
        return tuple(self.each(((str(n), t) for n, t in enumerate(tables)), lambda _, t: read(t)).values())

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
        value = self._take(key)
        if value is None:
            if default is None:
                self._missing.append(key)
                self.spoilt()
            return default or ""
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            self.fault(key, f"must be {want or 'a string of one line'}, {_shown(value)} is not")
        elif good is not None and not good(value):
            self.fault(key, f"must be {want}, {_shown(value)} is not")
        else:
            return value
        return default or ""

    def choice(self, key: str, choices: Collection[str], default: str) -> str:
        return self.text(key, default, good=choices.__contains__, want=f"one of {', '.join(choices)}")

    def flag(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            self.fault(key, f"must be true or false, {_shown(value)} is neither")
            return default
        return value

    def seconds(self, key: str, default: int, low: int, high: int) -> int:
        """A duration: ``"15m"``, ``"1h"``, ``"0"`` or whole seconds."""
        value = self._take(key, default)
        if isinstance(value, str) and (found := _DURATION.fullmatch(value)):
            value = int(found[1]) * _UNITS[found[2]]
        if not isinstance(value, int) or isinstance(value, bool):
            self.fault(key, f'must be a duration such as "15m", "1h" or 900, {_shown(value)} is not')
        elif not low <= value <= high:
            self.fault(key, f"must be {low} to {high} seconds, {_shown(value)} is not")
        else:
            return value
        return default

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
        value = self._take(key)
        if value is None:
            if default is None:
                self._missing.append(key)
                self.spoilt()
            return default or ()
        wrong = _wrong_words(value, good, want, empty=empty)
        if wrong is not None:
            self.fault(key, wrong)
            return default or ()
        return tuple(value)

    def table(self, key: str) -> Table:
        """The table under ``key``; an absent one is empty."""
        return self._table(self._take(key, {}), (*self.path, key))

    def tables(self, key: str) -> list[Table]:
        """The tables of an array; an absent one is empty."""
        value = self._take(key, [])
        if not isinstance(value, list) or len(value) > MAX_VALUES:
            self.fault(key, "must be a list of tables")
            return []
        return [self._table(entry, (*self.path, key, n)) for n, entry in enumerate(value)]

    def named(self, key: str) -> dict[str, Table]:
        """The tables of a table, by names as ``protocol.NAME`` wants them; an absent one is empty."""
        outer = self.table(key)
        found: dict[str, Table] = {}
        for name in outer.names():
            if NAME.fullmatch(name):
                found[name] = outer.table(name)
            else:
                outer.fault(name, "a name is lower-case letters, digits, _ and -, at most 64")
        return found

    def strings(self, key: str) -> dict[str, str]:
        """A table of strings, taken whole; an absent one is empty."""
        inner = self.table(key)
        return {name: inner.text(name) for name in inner.names()}

    def one_or_more(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A string, or a list of strings; missing only with a default."""
        return (self.text(key),) if isinstance(self._values.get(key), str) else self.words(key, default)

    def _take(self, key: str, default: object = None) -> Any:
        if key not in self._values:
            self._absent.append(key)
        return self._values.pop(key, default)

    def names(self) -> list[str]:
        """The keys that are left."""
        return list(self._values)

    def integer(self, key: str) -> int | None:
        """A whole number, or None where something else or nothing stands."""
        value = self._take(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def _table(self, value: object, path: Path) -> Table:
        if not isinstance(value, dict):
            self._source.fault(path, f"must be a table, {_shown(value)} is not")
            self.spoilt()
            value = {}
        return Table(value, path, self._source, self)


def _wrong_words(
    value: object, good: Callable[[str], object] | None, want: str, *, empty: bool
) -> str | None:
    if not isinstance(value, list) or len(value) > MAX_VALUES or not (value or empty):
        return "must be a list of strings that is not empty"
    for word in value:
        if not isinstance(word, str) or not word.strip() or not word.isprintable():
            return f"must hold strings of one line, {_shown(word)} is not"
        if good is not None and not good(word):
            return f"{_shown(word)} is not {want}"
    return None if len(set(value)) == len(value) else "names something twice"


def _shown(value: object) -> str:
    return clean(repr(value), SHOWN)
