"""What is wrong with a policy file, and where in it: findings, and the lines that they are on."""

from __future__ import annotations

import functools
import re
import tomllib
from typing import TYPE_CHECKING, Final, NamedTuple

from credx.errors import ConfigError
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_FAULTS: Final = 100  # told of one file; the first are worth mending before the rest is
SHOWN: Final = 60  # characters of a wrong value or a name that a complaint quotes

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_DOTTED = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*((?:[A-Za-z0-9_-]|\"[^\"]*\"|'[^']*'|\s*\.\s*)+)\s*=")


class Finding(NamedTuple):
    """What is wrong, or looks wrong, with a policy file.

    Attributes:
        level: ``error``: the broker refuses the file; ``warning``: it means something else than it seems to.
        path: where it is in the tree. text: one line, ready to be shown.
    """

    level: str
    path: Path
    text: str


class Fault(NamedTuple):
    """A finding of level ``error``: where it is, and the line to show, ``FILE:LINE: key: text``."""

    finding: Finding
    line: int | None
    told: str


class PolicyFileError(ConfigError):
    """A policy file with faults: the message is the first of them, ``faults`` are all."""

    def __init__(self, faults: Sequence[Fault], name: str) -> None:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(faults[0].told + more, hint=f"credx broker check {name}")
        self.faults = tuple(faults)


class Source:
    """A file's name, where in it what stands, and the faults found so far."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._text = text
        self.faults: list[Finding] = []

    @functools.cached_property
    def _lines(self) -> dict[Path, int]:
        return dict(_positions(self._text))

    def line(self, path: Path) -> int | None:
        """Where ``path`` or else the nearest table around it stands; None where that cannot be told."""
        inner = (path[:n] for n in range(len(path), 0, -1))
        return next((self._lines[at] for at in inner if at in self._lines), None)

    def where(self, path: Path) -> str:
        """``FILE:LINE``."""
        line = self.line(path)
        return self.name if line is None else f"{self.name}:{line}"

    def told(self, finding: Finding) -> str:
        """``FILE:LINE: key: text``."""
        level = "" if finding.level == "error" else f"{finding.level}: "
        subject = f"{dotted(finding.path)}: " if finding.path else ""
        return f"{self.where(finding.path)}: {level}{subject}{finding.text}"

    def fault(self, path: Path, text: str) -> None:
        self.faults.append(Finding("error", path, text))

    def finish(self) -> None:
        """Raises ``PolicyFileError`` if anything was wrong."""
        if self.faults:
            first = sorted(self.faults, key=lambda finding: self.line(finding.path) or 0)[:MAX_FAULTS]
            raise PolicyFileError([Fault(f, self.line(f.path), self.told(f)) for f in first], self.name)


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
    if _DOTTED.fullmatch(key):
        return tuple(key.split("."))
    try:
        value: object = tomllib.loads(f"{key} = 0")
    except ValueError:
        return (key,)
    path: list[str] = []
    while isinstance(value, dict) and value:
        part, value = next(iter(value.items()))
        path.append(part)
    return tuple(path)
