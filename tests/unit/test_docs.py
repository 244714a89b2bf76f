"""What the documents show must hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from credx.broker.policy_file import parse_policy

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


def test_the_trust_policy_that_is_shown_is_one() -> None:
    (text,) = blocks("broker.md", "json")
    assert [s["Action"].split(":")[1] for s in json.loads(text)["Statement"]] == [
        "AssumeRoleWithWebIdentity", "TagSession", "SetSourceIdentity",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "page", sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md"]), ids=lambda p: p.name
)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
