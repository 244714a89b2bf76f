"""The values that carry trust have one maker each, and libraries have one home each (read from the source)."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

import credx
from credx.model import Secret

SOURCE = Path(credx.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

MAKERS = {
    "VerifiedClaims": {"jose/"},
    "Grant": {"broker/policy"},
}

HOMES = {
    "jwt": {"jose/", "sandbox/"},
    "keyring": {"credentials/"},
    "fido2": {"factors/", "broker/", "sandbox/"},
    "boto3": {"sts.py", "sandbox/", "cli/demo"},
    "botocore": {"aws_client.py", "sts.py", "broker/stores/dynamodb_calls.py", "sandbox/"},
    "click": {"cli/"},
    "rich": {"cli/"},
    "pyotp": {"broker/", "sandbox/"},
    "moto": {"sandbox/"},
    "flask": {"sandbox/"},
    "authlib": {"sandbox/"},
    "urllib3": {"http.py"},
    "truststore": {"http.py", "aws_client.py"},
    "waitress": {"broker/"},
    "platformdirs": {"config.py"},
}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def allowed(path: Path, homes: set[str]) -> bool:
    return any(name_of(path).startswith(home) for home in homes)


def calls(path: Path, name: str) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(
        isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", None)) == name
        for node in ast.walk(tree)
    )


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_a_value_that_carries_trust_is_made_in_one_room(name: str) -> None:
    makers = [path for path in FILES if calls(path, name)]
    assert makers, "nobody makes it: the test would hold nothing"
    assert [name_of(p) for p in makers if not allowed(p, MAKERS[name])] == []


@pytest.mark.parametrize("library", HOMES)
def test_a_library_has_one_home(library: str) -> None:
    users = [path for path in FILES if library in imports(path)]
    assert users, "nobody imports it: drop the dependency"
    assert [name_of(p) for p in users if not allowed(p, HOMES[library])] == []


def test_a_secret_does_not_print_compare_slowly_or_pickle() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {secret!s} {secret:>20} {[secret]} { ({'a': secret}) }"
    assert secret == Secret("hunter2")
    assert secret != Secret("hunter3")
    assert secret != "hunter2"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        hash(secret)
