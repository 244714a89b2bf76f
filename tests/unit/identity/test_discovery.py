from __future__ import annotations

from typing import Any

import pytest

from credx.errors import SignInError, UnavailableError
from credx.identity.discovery import discover

ISSUER = "https://idp.example.com"


def test_what_the_provider_says(idp: Any, provider: Any) -> None:
    assert discover(ISSUER, idp) == provider
    assert idp.fetched == [f"{ISSUER}/.well-known/openid-configuration"]
    idp.document["authorization_response_iss_parameter_supported"] = True
    assert discover(ISSUER, idp).iss_parameter_supported


def test_an_issuer_with_a_final_slash(idp: Any) -> None:
    idp.document["issuer"] = ISSUER + "/"
    assert discover(ISSUER + "/", idp).issuer == ISSUER + "/"
    assert idp.fetched == [f"{ISSUER}/.well-known/openid-configuration"]


def test_no_list_of_pkce_methods_and_no_revocation(idp: Any) -> None:
    del idp.document["code_challenge_methods_supported"], idp.document["revocation_endpoint"]
    assert discover(ISSUER, idp).revocation_endpoint is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("issuer", ISSUER + "/", "another name"),
        ("issuer", "https://evil.example", "another name"),
        ("issuer", None, "another name"),
        ("code_challenge_methods_supported", ["plain"], "PKCE"),
        ("code_challenge_methods_supported", "S256", "PKCE"),
        ("code_challenge_methods_supported", None, "PKCE"),
        ("authorization_endpoint", "http://idp.example.com/authorize", "authorization_endpoint"),
        ("authorization_endpoint", "javascript:alert(1)", "authorization_endpoint"),
        ("authorization_endpoint", "file:///bin/sh", "authorization_endpoint"),
        ("token_endpoint", "http://idp.example.com/token", "token_endpoint"),
        ("token_endpoint", None, "token_endpoint"),
        ("token_endpoint", ["https://idp.example.com/token"], "token_endpoint"),
        ("token_endpoint", "http://127.0.0.1:1/token", "token_endpoint"),
        ("token_endpoint", "https://user@idp.example.com/token", "token_endpoint"),
        ("token_endpoint", "https://idp.example.com/token#x", "token_endpoint"),
        ("authorization_endpoint", "http://localhost/authorize", "authorization_endpoint"),
        ("authorization_endpoint", "https://idp.example.com/\x1b[2J", "authorization_endpoint"),
        ("jwks_uri", "data:,{}", "jwks_uri"),
        ("revocation_endpoint", "http://idp.example.com/revoke", "revocation_endpoint"),
    ],
)
def test_a_description_that_is_refused(idp: Any, name: str, value: object, said: str) -> None:
    idp.document[name] = value
    with pytest.raises(SignInError, match=said):
        discover(ISSUER, idp)


@pytest.mark.parametrize("body", [b"", b"[]", b'"x"', b"\xff", b'{"issuer":"a","issuer":"b"}', b"{" * 60_000])
def test_junk(idp: Any, body: bytes) -> None:
    idp.document = body
    with pytest.raises(SignInError):
        discover(ISSUER, idp)


def test_a_provider_on_this_machine(idp: Any) -> None:
    here = "http://localhost:8080"
    idp.document = {
        name: value.replace(ISSUER, here) if isinstance(value, str) else value
        for name, value in idp.document.items()
    }
    assert discover(here, idp).token_endpoint == f"{here}/token"


@pytest.mark.parametrize("said", ["true", 1, [], None])
def test_only_true_announces_the_issuer_parameter(idp: Any, said: object) -> None:
    idp.document["authorization_response_iss_parameter_supported"] = said
    assert not discover(ISSUER, idp).iss_parameter_supported


def test_no_json_and_no_answer(idp: Any) -> None:
    idp.document = b"<html>"
    with pytest.raises(SignInError, match="not JSON"):
        discover(ISSUER, idp)
    idp.down = True
    with pytest.raises(UnavailableError):
        discover(ISSUER, idp)
