"""What the documents show must hold."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from credx.broker.policy.file import parse_policy
from credx.broker.policy.review import review
from credx.cli.broker.template import template
from credx.cli.edges import App, Edges

DOCS = Path(__file__).resolve().parents[2] / "docs"
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def test_the_policy_that_is_explained_loads() -> None:
    (text,) = blocks("policy.md", "toml")
    policy = parse_policy(text, "policy.md")
    assert set(policy.roles) == {"prod-logs", "prod-shell", "prod-admin", "dev"}
    assert review(policy) == []


def test_the_template_that_is_shown_is_what_the_command_prints(tmp_path: Path) -> None:
    (policy,), (shown,) = blocks("policy.md", "toml"), blocks("broker.md", "json")
    path = tmp_path / "policy.toml"
    path.write_text(policy, encoding="utf-8")
    printed: list[bytes] = []
    app = App(dataclasses.replace(Edges(), write=printed.append))
    template.main(["--policy", str(path), "--role", "prod-logs"], obj=app, standalone_mode=False)
    assert b"".join(printed).decode() == shown


@pytest.mark.parametrize(
    "page", sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md"]), ids=lambda p: p.name
)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
