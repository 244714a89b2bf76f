"""The one call into PyJWT, pinned: whoever loosens it has to change this test."""

from __future__ import annotations

import ast
from pathlib import Path

import credx.jose


def test_the_signature_is_checked_with_one_algorithm_and_a_minimum_key_length() -> None:
    source = Path(credx.jose.__file__).with_name("verify.py").read_text(encoding="utf-8")
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".decode") and node.keywords
    ]
    assert " ".join(ast.unparse(call) for call in calls) == (
        "jwt.PyJWS().decode(unverified.compact, key=key.public, algorithms=[key.algorithm], "
        "options={'verify_signature': True, 'enforce_minimum_key_length': True})"
    )
