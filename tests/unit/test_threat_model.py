"""The threat model names tests, and they exist; each attack that is tested has its place in the model."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import click
import pytest

from credx.cli.edges import Edges
from credx.cli.main import build

ROOT = Path(__file__).resolve().parents[2]
MODEL, BREAK_GLASS = ROOT / "docs" / "threat-model.md", ROOT / "docs" / "break-glass.md"
PAGES = (MODEL, BREAK_GLASS)
TEST_ID = re.compile(r"`(tests/[A-Za-z0-9_/.]+\.py)((?:::\w+)+)`")
LOOKS_LIKE_ONE = re.compile(r"tests/[A-Za-z0-9_/.]*::")
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")
# what is about nobody in particular: how the other tests are set up
NOT_IN_THE_MODEL = {"conftest.py"}
NO_ATTACKER = {"What is worth having", "Who trusts whom", "Not defended, on purpose"}


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def sections(page: Path) -> dict[str, str]:
    heads = re.split(r"^## (.+)$", text(page), flags=re.MULTILINE)[1:]
    return dict(zip(heads[::2], heads[1::2], strict=True))


@cache
def named_in(path: str) -> frozenset[str]:
    """``::test_x`` and ``::TestY::test_x`` of a file, as it is written."""
    found: set[str] = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(f"::{node.name}")
        elif isinstance(node, ast.ClassDef):
            found |= {f"::{node.name}::{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return frozenset(name for name in found if name.rpartition("::")[2].startswith("test_"))


NAMED = sorted({(page.name, *match) for page in PAGES for match in TEST_ID.findall(text(page))})


@pytest.mark.parametrize(("page", "path", "name"), NAMED, ids=[path + name for _, path, name in NAMED])
def test_a_test_that_is_named_exists(page: str, path: str, name: str) -> None:
    assert (ROOT / path).is_file(), page
    assert name in named_in(path), page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_looks_like_a_test_id_is_one(page: Path) -> None:
    assert len(LOOKS_LIKE_ONE.findall(text(page))) == len(TEST_ID.findall(text(page))) > 0


@pytest.mark.parametrize("section", sorted(set(sections(MODEL)) - NO_ATTACKER))
def test_each_attacker_is_held_by_tests_and_told_honestly(section: str) -> None:
    body = sections(MODEL)[section]
    rows = [line for line in body.splitlines() if line.startswith("| ") and "`tests/" in line]
    assert rows, "no test"
    claims = [line for line in body.splitlines() if line.startswith("| ")][
        1:
    ]  # but for the head of the table
    assert [line for line in claims if not TEST_ID.search(line)] == [], "a claim without a test"
    assert "**Not stopped" in body
    assert "**Noticed.**" in body


def test_the_sections_that_are_no_attackers_are_there() -> None:
    assert set(sections(MODEL)) >= NO_ATTACKER
    assert len(sections(MODEL)) >= len(NO_ATTACKER) + 11


def test_each_file_of_attacks_has_its_place() -> None:
    named = {path for page, path, _ in NAMED if page == MODEL.name}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "attacks").glob("*.py")}
    assert {path for path in there - named if Path(path).name not in NOT_IN_THE_MODEL} == set()


def test_each_limit_that_is_shown_is_told() -> None:
    """What a test shows to be possible is on the page."""
    limits = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in (ROOT / "tests" / "attacks").glob("test_*.py")
        for name in named_in(path.relative_to(ROOT).as_posix())
        if "::test_limit_" in name
    }
    assert limits
    assert limits <= {(path, name) for _, path, name in NAMED}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(text(page)):
        if target.startswith("http"):
            continue
        where = page.parent / target if target else page
        assert where.is_file(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", text(where), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, (
                anchor
            )


def commands(page: Path) -> list[str]:
    """What begins with ``credx`` in a block of shell or between backticks, as it would be typed."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text(page), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    typed = [part for line in lines for part in re.findall(r"\bcredx [^|>#;&)]*", line)]
    return sorted({*typed, *re.findall(r"`(credx [^`]*)`", text(page))})


@pytest.mark.parametrize("typed", [line for page in PAGES for line in commands(page)])
def test_a_command_exists_with_its_options(typed: str) -> None:
    command: click.Command | None = build(Edges())
    context, words = click.Context(build(Edges()), info_name="credx"), typed.split()[1:]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        command = command.get_command(context, words.pop(0))
    assert command is not None, typed
    options = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given <= options, typed
