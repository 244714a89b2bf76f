"""A hint is a command to type: each that the source tells exists, with the options it names."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

import credx
from credx.cli.edges import Edges
from credx.cli.main import build

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(credx.__file__).parent
COMMAND = re.compile(r"(?:^|[`'\"; ])credx (--[a-z-]+|[a-z][a-z-]*)((?: (?:--)?[a-z][a-z-]*)*)")


def told() -> Iterator[tuple[str, str, str]]:
    """(file, command, what follows) of every string given as a hint."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                parts: list[ast.AST] = [node.value]
            elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
                parts = [node.elts[1]]  # broker_client's table: (error, hint)
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").endswith("HINT"):
                parts = [node.value]
            else:
                continue
            for part in parts:
                for text in ast.walk(part):
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        for command, rest in COMMAND.findall(text.value):
                            yield path.name, command, rest


PROSE = {"and", "version"}  # "credx and the broker differ", "the credx version that"
HINTS = sorted({hint for hint in told() if hint[1] not in PROSE})


def test_there_are_hints() -> None:
    assert {"init", "login", "roles"} <= {command for _, command, _ in HINTS}


@pytest.mark.parametrize(("file", "name", "rest"), HINTS)
def test_a_hint_can_be_typed(file: str, name: str, rest: str) -> None:
    root = build(Edges())
    assert isinstance(root, click.Group)
    context = click.Context(root, info_name="credx")
    if name.startswith("--"):
        assert name in {option for p in root.params for option in p.opts}, file
        return
    command = root.get_command(context, name)
    assert command is not None, f"{file}: credx {name}"
    words = rest.split()
    if isinstance(command, click.Group) and words:
        assert command.get_command(context, words[0]) is not None, f"{file}: credx {name} {words[0]}"
        command = command.get_command(context, words[0])
    assert command is not None
    options = {option for p in command.params for option in p.opts} | {"--help"}
    assert {word for word in words if word.startswith("--")} <= options, f"{file}: credx {name}{rest}"
