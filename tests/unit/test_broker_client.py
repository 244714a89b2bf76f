from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.broker_client import BrokerClient, Enrolment
from credx.errors import AwsRefusedError, CredxError, DeniedError, FactorError, SignInError, UnavailableError
from credx.http import Response
from credx.model import Secret
from credx.protocol import Ask, Issued, StepUp, TokenRequest, TotpProof

URL = "https://credx.example.com"
TOKEN = Secret("aaa.bbb.ccc")
HANDLE = Secret("s" * 20)
DATE = "Tue, 15 Nov 1994 08:12:31 GMT"
THEN = 784887151
PROOF = TotpProof(auth_session=HANDLE, otp=Secret("123456"))
STEP_UP = StepUp(
    auth_session=HANDLE, expires_in=300, factors=({"kind": "totp", "id": "f1", "name": "phone"},)
)
ISSUED = Issued(
    token=Secret("x.y.z"),
    issued_token_type="urn:ietf:params:oauth:token-type:jwt",
    expires_in=120,
    issuance_id="i1",
    role_arn="arn:aws:iam::111122223333:role/x",
    region="eu-central-1",
    session_name="alice-12345678",
    session_policy=None,
    duration=3600,
)


@dataclass
class FakeHttp:
    """Answers with what it was given and remembers what was asked."""

    status: int = 200
    body: object = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[str, str, dict[str, str], bytes | None]] = field(default_factory=list)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        cap: int = 0,
        deadline: float = 0,
    ) -> Response:
        self.calls.append((method, url, dict(headers or {}), body))
        data = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return Response(status=self.status, headers=self.headers, body=data)


def client(http: FakeHttp, now: float = THEN) -> BrokerClient:
    return BrokerClient(URL + "/", http, now=lambda: now)  # type: ignore[arg-type]


def error(name: str, status: int, text: str = "No, thank you.", **headers: str) -> FakeHttp:
    return FakeHttp(status, {"error": name, "error_description": text}, headers)


def test_configuration_roles_and_factors() -> None:
    assert client(FakeHttp(body={"issuer": "i"})).configuration() == {"issuer": "i"}
    http = FakeHttp(body={"roles": [{"name": "a"}]})
    assert client(http).roles(TOKEN) == [{"name": "a"}]
    assert http.calls == [
        ("GET", f"{URL}/roles", {"accept": "application/json", "authorization": "Bearer aaa.bbb.ccc"}, None)
    ]
    assert client(FakeHttp(body={"factors": [{"id": "f"}]})).factors(TOKEN) == [{"id": "f"}]


def test_a_token_is_asked_for_with_a_form() -> None:
    http = FakeHttp(body=ISSUED.to_json())
    assert client(http).token(TokenRequest(subject_token=TOKEN, ask=Ask(role="x"), proof=PROOF)) == ISSUED
    method, url, headers, body = http.calls[0]
    assert (method, url) == ("POST", f"{URL}/token")
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs((body or b"").decode())["otp"] == ["123456"]


def test_a_step_up_is_an_answer_not_an_error() -> None:
    http = FakeHttp(403, STEP_UP.to_json())
    request = TokenRequest(subject_token=TOKEN, ask=Ask(role="x"))
    assert client(http).token(request) == STEP_UP
    assert client(http).begin_enrolment(TOKEN, kind="totp", name="phone") == STEP_UP
    assert client(http).remove_factor(TOKEN, "f1") == STEP_UP


def test_proofs_and_enrolments() -> None:
    http = FakeHttp(body={"public_key": {"challenge": "c"}, "expires_in": 120})
    assert client(http).begin_proof(TOKEN, HANDLE) == {"challenge": "c"}
    assert json.loads(http.calls[0][3] or b"") == {"purpose": "prove", "auth_session": "s" * 20}

    http = FakeHttp(body={"enrolment": "e", "expires_in": 300, "secret": "ABC", "uri": "otpauth://totp/x"})
    begun = client(http).begin_enrolment(
        TOKEN, kind="totp", name="phone", invitation=Secret("inv"), proof=PROOF
    )
    assert begun == Enrolment(enrolment=Secret("e"), secret=Secret("ABC"), uri=Secret("otpauth://totp/x"))
    assert "ABC" not in repr(begun)
    assert json.loads(http.calls[0][3] or b"") == {
        "purpose": "enrol",
        "kind": "totp",
        "name": "phone",
        "invitation": "inv",
        "auth_session": "s" * 20,
        "otp": "123456",
    }
    http = FakeHttp(body={"enrolment": "e", "expires_in": 300, "public_key": {"challenge": "c"}})
    assert client(http).begin_enrolment(TOKEN, kind="webauthn", name="key") == Enrolment(
        enrolment=Secret("e"), public_key={"challenge": "c"}
    )
    http = FakeHttp(201, {"factor": {"id": "f"}})
    assert client(http).complete_enrolment(TOKEN, Secret("e"), otp=Secret("123456")) == {"id": "f"}
    assert client(http).complete_enrolment(TOKEN, Secret("e"), webauthn={"id": "x"}) == {"id": "f"}
    assert [json.loads(c[3] or b"") for c in http.calls] == [
        {"enrolment": "e", "otp": "123456"},
        {"enrolment": "e", "webauthn": {"id": "x"}},
    ]


def test_factors_are_removed() -> None:
    http = FakeHttp(204, b"")
    assert client(http).remove_factor(TOKEN, "f1", proof=PROOF) is None
    assert http.calls[0][:2] == ("DELETE", f"{URL}/factors/f1")
    with pytest.raises(FactorError, match="no such factor"):
        client(error("not_found", 404)).remove_factor(TOKEN, "f1")
    for odd in ("", "../roles", "a/b", "a?b", "a\n"):
        with pytest.raises(FactorError, match="no such factor"):
            client(http).remove_factor(TOKEN, odd)
    with pytest.raises(UnavailableError):
        client(FakeHttp(200, {})).remove_factor(TOKEN, "f1")
    assert client(FakeHttp(body={"ended": 2})).end_factor_sessions(TOKEN) == 2


@pytest.mark.parametrize(
    ("name", "status", "kind", "hint"),
    [
        ("access_denied", 403, DeniedError, "credx roles"),
        ("invalid_scope", 400, DeniedError, "credx roles"),
        ("invalid_target", 400, DeniedError, "credx roles"),
        ("invalid_request", 400, DeniedError, "--help"),
        ("aws_refused", 403, AwsRefusedError, "docs/broker.md"),
        ("invalid_token", 401, SignInError, "credx login"),
        ("insufficient_user_authentication", 401, SignInError, "credx login --force"),
        ("insufficient_authorization", 403, FactorError, "credx factor list"),
        ("slow_down", 429, UnavailableError, "wait"),
        ("temporarily_unavailable", 503, UnavailableError, "try again"),
        ("server_error", 500, UnavailableError, "try again"),
    ],
)
def test_an_error_answer_becomes_the_error_of_its_room(
    name: str, status: int, kind: type[CredxError], hint: str
) -> None:
    with pytest.raises(kind) as caught:
        client(error(name, status)).token(TokenRequest(subject_token=TOKEN, ask=Ask(role="x")))
    assert type(caught.value) is kind
    assert caught.value.message == ("x: " if kind is DeniedError else "") + "No, thank you"
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    "http",
    [
        FakeHttp(502, b"<html>bad gateway</html>"),
        FakeHttp(200, b"<html>sign in to the guest network</html>"),
        FakeHttp(302, b""),
        FakeHttp(404, {"error": "not_found"}),
        FakeHttp(403, {"error": ["access_denied"]}),
        FakeHttp(403, {"error": "brand_new"}),
        FakeHttp(403, {**STEP_UP.to_json(), "factors": 3}),
        FakeHttp(403, {**STEP_UP.to_json(), "factors": ["totp"]}),
        FakeHttp(200, {**ISSUED.to_json(), "duration": "3600"}),
        FakeHttp(200, {"access_token": "x"}),
        FakeHttp(200, {}),
        FakeHttp(200, b'{"a":1,"a":2}'),
    ],
)
def test_an_answer_that_is_not_understood_is_as_good_as_none(http: FakeHttp) -> None:
    with pytest.raises(UnavailableError) as caught:
        client(http).token(TokenRequest(subject_token=TOKEN, ask=Ask(role="x")))
    assert caught.value.hint


@pytest.mark.parametrize(
    "body", [{}, {"roles": {}}, {"roles": [1]}, {"roles": [{"name": 1}]}, {"factors": [{}]}]
)
def test_listings_of_another_shape(body: dict[str, Any]) -> None:
    for call in (client(FakeHttp(body=body)).roles, client(FakeHttp(body=body)).factors):
        with pytest.raises(UnavailableError):
            call(TOKEN)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (THEN + 400, "; the clock here is 400 seconds ahead of the broker's"),
        (THEN - 3600, "; the clock here is 3600 seconds behind the broker's"),
        (THEN + 20, ""),
    ],
)
def test_a_clock_that_is_wrong_is_named_with_its_seconds(now: float, said: str) -> None:
    with pytest.raises(SignInError) as caught:
        client(error("invalid_token", 401, "the ID token has expired", date=DATE), now).roles(TOKEN)
    assert caught.value.message == f"the ID token has expired{said}"
    assert ("set the clock" in (caught.value.hint or "")) == bool(said)


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 99 Nov 1994 08:12:31 GMT", "\0"])
def test_a_date_that_is_none_is_not_needed(date: str) -> None:
    with pytest.raises(SignInError):
        client(error("invalid_token", 401, date=date), THEN + 9999).roles(TOKEN)


def test_what_the_broker_says_is_cleaned_and_cut() -> None:
    with pytest.raises(DeniedError) as caught:
        client(error("access_denied", 403, "\x1b]0;owned\x07\u202e" + "x" * 5000)).roles(TOKEN)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 310


@pytest.mark.parametrize("token", ["", "a\r\nX-Evil: 1", "a b", "\u00e9"])
def test_a_token_that_could_end_a_header_never_leaves(token: str) -> None:
    http = FakeHttp()
    with pytest.raises(SignInError):
        client(http).roles(Secret(token))
    assert not http.calls


@given(st.integers(200, 599), st.binary())
def test_any_answer_is_understood_or_an_error_of_credx(status: int, body: bytes) -> None:
    broker = client(FakeHttp(status, body))
    for call in (
        broker.configuration,
        lambda: broker.roles(TOKEN),
        lambda: broker.token(TokenRequest(subject_token=TOKEN, ask=Ask(role="x"))),
        lambda: broker.begin_enrolment(TOKEN, kind="totp", name="n"),
        lambda: broker.remove_factor(TOKEN, "f"),
        lambda: broker.end_factor_sessions(TOKEN),
    ):
        try:
            call()
        except CredxError:
            continue
