"""The calls into PyJWT, pinned: whoever loosens them has to change this test."""

from __future__ import annotations

import ast
from pathlib import Path

import credx.jose


def test_the_signature_is_checked_with_the_algorithm_of_the_key_and_a_minimum_key_length() -> None:
    source = Path(credx.jose.__file__).with_name("verify.py").read_text(encoding="utf-8")
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(("jwt.", "algorithm."))
    ]
    assert sorted(ast.unparse(call) for call in calls) == [
        "algorithm.check_key_length(public)",
        "algorithm.prepare_key(key.public)",
        "algorithm.verify(unverified.signing_input, public, unverified.signature)",
        "jwt.get_algorithm_by_name(key.algorithm)",
    ]
