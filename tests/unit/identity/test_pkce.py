from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, quote, unquote_plus, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.errors import SignInError
from credx.identity import pkce
from credx.identity.discovery import Provider
from credx.identity.loopback import parameters_of
from credx.model import Secret

ISSUER = "https://idp.example.com"
PROVIDER = Provider(
    issuer=ISSUER, authorization_endpoint=f"{ISSUER}/a", token_endpoint=f"{ISSUER}/t", jwks_uri=ISSUER
)
STRICT = replace(PROVIDER, iss_parameter_supported=True)
ATTEMPT = pkce.begin("http://127.0.0.1:5000/callback", random.Random(7).randbytes)  # noqa: S311 -- the same in every worker
STATE = ATTEMPT.state.reveal()


def test_the_example_of_rfc_7636_appendix_b() -> None:
    verifier = Secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    assert pkce.challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_the_three_values_are_of_256_bits_each_and_differ() -> None:
    values = [
        attempt for a in (ATTEMPT, pkce.begin("x", os.urandom)) for attempt in (a.state, a.nonce, a.verifier)
    ]
    assert {len(value.reveal()) for value in values} == {43}
    assert len({value.reveal() for value in values}) == 6
    assert STATE not in repr(ATTEMPT)


def test_the_authorization_request(provider: Any) -> None:
    url = pkce.authorization_url(
        provider, ATTEMPT, client_id="credx cli", scopes=("profile", "openid", "profile")
    )
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{ISSUER}/authorize"
    assert {name: value for name, (value,) in parse_qs(parts.query).items()} == {
        "tenant": "1",
        "response_type": "code",
        "client_id": "credx cli",
        "redirect_uri": "http://127.0.0.1:5000/callback",
        "scope": "openid profile",
        "state": STATE,
        "nonce": ATTEMPT.nonce.reveal(),
        "code_challenge": pkce.challenge(ATTEMPT.verifier),
        "code_challenge_method": "S256",
    }
    assert ATTEMPT.verifier.reveal() not in url


def test_a_good_callback_gives_the_code() -> None:
    for provider, parameters in [
        (PROVIDER, {}),
        (PROVIDER, {"iss": ISSUER}),
        (STRICT, {"iss": ISSUER}),
        (PROVIDER, {"session_state": "x"}),
    ]:
        assert pkce.judge(provider, ATTEMPT, {"state": STATE, "code": "c", **parameters}) == Secret("c")


@pytest.mark.parametrize("state", [None, "", "x", STATE[:-1], STATE + "x", STATE.swapcase(), "é", "\ud800"])
def test_another_state_is_not_ours(state: str | None) -> None:
    for rest in ({"code": "c"}, {"error": "access_denied"}, {"iss": "https://evil.example"}, {}):
        parameters = rest if state is None else {"state": state, **rest}
        assert pkce.judge(PROVIDER, ATTEMPT, parameters) is None


@pytest.mark.parametrize("iss", ["https://evil.example", ISSUER + "/", "", ISSUER.upper()])
def test_the_answer_of_another_issuer(iss: str) -> None:
    """RFC 9207: a mix-up ends the sign-in, whether the provider announced the parameter or not."""
    for provider in (PROVIDER, STRICT):
        with pytest.raises(SignInError, match="another identity provider"):
            pkce.judge(provider, ATTEMPT, {"state": STATE, "code": "c", "iss": iss})


def test_no_issuer_where_the_provider_announced_it() -> None:
    with pytest.raises(SignInError, match="another identity provider"):
        pkce.judge(STRICT, ATTEMPT, {"state": STATE, "code": "c"})


def test_the_providers_no_is_passed_on_cleaned() -> None:
    parameters = {
        "state": STATE,
        "error": "access_denied",
        "error_description": "no \x1b]52;c;x\x07\u202e" + "y" * 999,
    }
    with pytest.raises(SignInError) as caught:
        pkce.judge(PROVIDER, ATTEMPT, {**parameters, "code": "c"})
    assert caught.value.message.isprintable()
    assert "no " in caught.value.message
    assert len(caught.value.message) < 300
    with pytest.raises(SignInError, match="login_required"):
        pkce.judge(PROVIDER, ATTEMPT, {"state": STATE, "error": "login_required"})


@pytest.mark.parametrize("code", [None, "", "c" * 4097, "a\nb", "é", "\0"])
def test_a_code_of_another_form(code: str | None) -> None:
    with pytest.raises(SignInError, match="no usable code"):
        pkce.judge(PROVIDER, ATTEMPT, {"state": STATE} if code is None else {"state": STATE, "code": code})


@given(
    st.dictionaries(st.sampled_from(["state", "code", "iss", "error", "error_description", "x"]), st.text())
)
def test_no_callback_without_the_state_does_anything(parameters: dict[str, str]) -> None:
    assert pkce.judge(PROVIDER, ATTEMPT, parameters) is None


def outcome(query: str) -> Secret | None:
    parameters = parameters_of(query)
    try:
        return None if parameters is None else pkce.judge(STRICT, ATTEMPT, parameters)
    except SignInError:
        return None


@given(st.text())
def test_no_query_of_any_kind_yields_a_code(query: str) -> None:
    assert outcome(query) is None


NAMES = st.sampled_from(
    ["state", "code", "iss", "error", "%73tate", "c%6Fde", "State", "state[]", "+state", ""]
)
VALUES = st.sampled_from(
    [STATE, quote(STATE[0]) + STATE[1:], STATE[:-1], STATE + "%00", "c", "", ISSUER, "%ff"]
)
JOINTS = st.sampled_from(["&", "&", "&", ";", "&&", "#", "?", ""])


@given(st.lists(st.tuples(NAMES, st.sampled_from(["=", "=", "=", "", "=="]), VALUES, JOINTS), max_size=6))
def test_a_query_yields_a_code_only_with_one_right_state_and_one_code(
    parts: list[tuple[str, str, str, str]],
) -> None:
    """Held against a reading of the query that is written another way."""
    query = "".join(map("".join, parts))
    if outcome(query) is None:
        return
    fields = [tuple(map(unquote_plus, field.split("=", 1))) for field in query.split("&")]
    assert [value for name, value in fields if name == "state"] == [STATE]
    assert [value for name, value in fields if name == "iss"] == [ISSUER]
    assert len([name for name, _ in fields if name == "code"]) == 1
    assert not [name for name, _ in fields if name == "error"]


def test_the_two_properties_are_not_vacuous() -> None:
    assert outcome(f"state={STATE}&code=c&iss={quote(ISSUER, safe='')}") == Secret("c")


def test_the_state_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def spy(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr(pkce.hmac, "compare_digest", spy)
    pkce.judge(PROVIDER, ATTEMPT, {"state": "x", "code": "c"})
    assert compared == [(b"x", STATE.encode())]


@pytest.mark.parametrize(
    ("answer", "said", "hint"),
    [
        ({"error": "access_denied"}, "access_denied", "credx login"),
        ({"error": "invalid_grant", "error_description": "expired"}, "expired", "credx login"),
        ({"error": "invalid_client"}, "invalid_client", "credx init"),
        ({"error": "unauthorized_client", "error_description": "no"}, "no", "credx init"),
        ({"error": "invalid_scope"}, "invalid_scope", "credx init"),
        ({"error": ""}, "it gave no reason", "credx login"),
        ({"error": "e", "error_description": 7}, "e", "credx login"),
        ({"error": "e", "error_description": "bad code hunter2"}, "e", "credx login"),
        ({"error": "hunter2", "error_description": "hunter2"}, "it gave no reason", "credx login"),
        ({"error": "e\n\x9b2J"}, "e\ufffd\ufffd2J", "credx login"),
    ],
)
def test_the_errors_of_rfc_6749(answer: dict[str, Any], said: str, hint: str) -> None:
    error = pkce.refused(answer, ["hunter2"])
    assert error.message == f"the identity provider refused: {said}"
    assert hint in (error.hint or "")


def test_the_token_request() -> None:
    assert pkce.redemption(ATTEMPT, Secret("c"), client_id="credx-cli") == {
        "grant_type": "authorization_code",
        "code": "c",
        "redirect_uri": "http://127.0.0.1:5000/callback",
        "client_id": "credx-cli",
        "code_verifier": ATTEMPT.verifier.reveal(),
    }
