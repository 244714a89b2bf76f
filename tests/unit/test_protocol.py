from __future__ import annotations

import contextlib
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.errors import Refusal
from credx.model import Secret
from credx.protocol import (
    GRANT_TYPE,
    ID_TOKEN_TYPE,
    MAX_BODY,
    Ask,
    FactorSessionProof,
    Issued,
    StepUp,
    TokenRequest,
    TotpProof,
    WebAuthnProof,
    parse_json,
    proof_from_json,
    proof_to_json,
)

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
HANDLES = st.from_regex(r"[A-Za-z0-9_-]{16,40}", fullmatch=True).map(Secret)
TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Cf", "Cn", "Co", "Zl", "Zp", "Zs"]), max_size=40
)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
JSON = st.dictionaries(
    TEXT, st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=8), max_size=4
)
ASKS = st.builds(
    Ask,
    role=NAMES,
    resources=st.lists(TEXT.filter(bool), unique=True, max_size=5).map(sorted).map(tuple),
    scopes=st.lists(NAMES, unique=True, max_size=5).map(sorted).map(tuple),
    operation=st.sampled_from(["creds", "shell", "run", "forward:db.internal:5432", "forward:[::1]:22"]),
    duration=st.none() | st.integers(1, 999_999),
    reason=TEXT,
)
PROOFS = st.one_of(
    st.builds(WebAuthnProof, auth_session=HANDLES, assertion=JSON),
    st.builds(TotpProof, auth_session=HANDLES, otp=st.from_regex(r"[0-9]{6}", fullmatch=True).map(Secret)),
    st.builds(FactorSessionProof, factor_session=HANDLES),
)
GOOD = {
    "grant_type": GRANT_TYPE,
    "subject_token": "a.b.c",
    "subject_token_type": ID_TOKEN_TYPE,
    "audience": "prod-ops",
}


@given(
    st.builds(TokenRequest, subject_token=TEXT.filter(bool).map(Secret), ask=ASKS, proof=st.none() | PROOFS)
)
def test_a_request_survives_the_wire(request: TokenRequest) -> None:
    assert TokenRequest.from_form(request.to_form()) == request


@given(st.binary() | st.dictionaries(st.sampled_from([*GOOD, "scope", "resource", "webauthn", "otp", "duration"]), st.text(st.characters(exclude_categories=["Cs"]))).map(lambda d: urlencode({**GOOD, **d}).encode()))  # fmt: skip
def test_any_form_is_parsed_or_refused(body: bytes) -> None:
    with contextlib.suppress(Refusal):
        assert isinstance(TokenRequest.from_form(body), TokenRequest)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"}, "invalid_request"),
        ({"subject_token": ""}, "invalid_request"),
        ({"audience": "Prod"}, "invalid_target"),
        ({"audience": "prod\n"}, "invalid_target"),
        ({"scope": "a a"}, "invalid_scope"),
        ({"scope": "a  b"}, "invalid_scope"),
        ({"scope": " ".join(f"s{n}" for n in range(21))}, "invalid_scope"),
        ({"resource": "x" * 2049}, "invalid_target"),
        ({"operation": "forward:host:99999999"}, "invalid_request"),
        ({"operation": "shell\n"}, "invalid_request"),
        ({"duration": "-1"}, "invalid_request"),
        ({"duration": "\uff11"}, "invalid_request"),
        ({"duration": "1e3"}, "invalid_request"),
        ({"reason": "x" * 257}, "invalid_request"),
        ({"reason": "two\nlines"}, "invalid_request"),
        ({"surprise": "x"}, "invalid_request"),
        ({"auth_session": "s" * 16}, "invalid_request"),
        ({"auth_session": "s" * 16, "otp": "\uff11\uff12\uff13456"}, "insufficient_authorization"),
        ({"auth_session": "s" * 16, "otp": " 123456"}, "insufficient_authorization"),
        ({"auth_session": "s" * 16, "otp": "123456", "webauthn": "{}"}, "invalid_request"),
        ({"auth_session": "short", "otp": "123456"}, "insufficient_authorization"),
        ({"auth_session": "s" * 16, "webauthn": "[]"}, "invalid_request"),
        ({"factor_session": "s" * 16, "otp": "123456"}, "invalid_request"),
    ],
)
def test_a_bad_form_is_refused(change: dict[str, str], code: str) -> None:
    with pytest.raises(Refusal) as caught:
        TokenRequest.from_form(urlencode({**GOOD, **change}).encode())
    assert caught.value.code == code


def test_a_parameter_given_twice_is_refused() -> None:
    body = urlencode([*GOOD.items(), ("audience", "dev")]).encode()
    with pytest.raises(Refusal):
        TokenRequest.from_form(body)
    with pytest.raises(Refusal):
        TokenRequest.from_form(urlencode([*GOOD.items(), ("resource", "a"), ("resource", "a")]).encode())
    with pytest.raises(Refusal) as caught:
        TokenRequest.from_form(b"x" * (MAX_BODY + 1))
    assert caught.value.code == "payload_too_large"


@given(ASKS, ASKS)
def test_two_asks_never_share_a_text(one: Ask, two: Ask) -> None:
    assert (one.canonical() == two.canonical()) == (one == two)


def test_asks_that_look_alike_stay_apart() -> None:
    asks = [
        Ask(role="a", scopes=("b", "c")),
        Ask(role="a", scopes=('b","c',)),
        Ask(role="a", resources=("b", "c")),
        Ask(role='a",["b"],', scopes=()),
        Ask(role="a", duration=900),
        Ask(role="a", reason="900"),
        Ask(role="a", reason="\\u0041"),
        Ask(role="a", reason="A"),
    ]
    assert len({ask.canonical() for ask in asks}) == len(asks)


@given(PROOFS)
def test_a_proof_survives_json(proof: Any) -> None:
    assert proof_from_json(parse_json(json.dumps(proof_to_json(proof)).encode())) == proof


@given(JSON)
def test_an_object_is_parsed(value: dict[str, Any]) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@given(st.binary() | TEXT.map(str.encode))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    with contextlib.suppress(Refusal):
        assert isinstance(parse_json(body), dict)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"a":1}}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"[]",
        b"null",
        b"",
        b'\xef\xbb\xbf{"a":1}',
        '{"a":1}'.encode("utf-16"),
        b"\xff",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_json_that_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        parse_json(body)


STEP_UP = StepUp(
    auth_session=Secret("s" * 16), expires_in=300, factors=({"kind": "totp", "id": "f1", "name": "phone"},)
)


def test_a_step_up_keeps_the_reason_of_a_retry() -> None:
    again = StepUp(
        auth_session=STEP_UP.auth_session,
        expires_in=290,
        factors=STEP_UP.factors,
        retry="the code was not right",
    )
    assert "retry" not in STEP_UP.to_json()
    assert again.to_json()["retry"] is True
    for step_up in (STEP_UP, again):
        assert StepUp.from_json(json.loads(json.dumps(step_up.to_json()))) == step_up


ISSUED = Issued(
    token=Secret("a.b.c"),
    issued_token_type="jwt",
    expires_in=120,
    issuance_id="i1",
    role_arn="arn:aws:iam::111122223333:role/x",
    region="eu-central-1",
    session_name="alice-12345678",
    session_policy='{"Version":"2012-10-17"}',
    duration=3600,
    scopes=("a", "b"),
    factor_session=Secret("s" * 16),
    factor_session_expires_in=28800,
    factor_group="dev",
)


def test_an_issued_token_survives_json() -> None:
    plain = Issued(**{**{n: getattr(ISSUED, n) for n in ISSUED.__dataclass_fields__}, "factor_session": None, "factor_session_expires_in": None, "factor_group": None, "session_policy": None, "scopes": ()})  # fmt: skip
    for issued in (ISSUED, plain):
        assert Issued.from_json(json.loads(json.dumps(issued.to_json()))) == issued


@pytest.mark.parametrize("key", list(ISSUED.to_json()))
def test_an_answer_of_another_shape_is_an_error_that_callers_expect(key: str) -> None:
    if key == "token_type":
        return
    for value in ([], {}, True):
        with pytest.raises((KeyError, TypeError, ValueError)):
            Issued.from_json({**ISSUED.to_json(), key: value})
    if key not in ("session_policy", "factor_session"):
        body = {k: v for k, v in ISSUED.to_json().items() if k != key}
        with pytest.raises((KeyError, TypeError, ValueError)):
            Issued.from_json(body)


@given(st.dictionaries(st.sampled_from(list(STEP_UP.to_json())), LEAVES | st.lists(LEAVES)))
def test_any_object_is_a_step_up_or_an_expected_error(change: dict[str, Any]) -> None:
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
        assert isinstance(StepUp.from_json({**STEP_UP.to_json(), **change}), StepUp)
