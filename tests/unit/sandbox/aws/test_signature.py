"""SigV4 against botocore's own signer and a vector that AWS publishes."""

import calendar
import time
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from credx.model import Secret
from credx.sandbox.aws.faults import AwsFault
from credx.sandbox.aws.sessions import Key, Keys, Session
from credx.sandbox.aws.signature import claimed_scope, verify
from credx.sandbox.aws.wire import Request

NOW = time.time()


def session(expires: int) -> Session:
    return Session(
        role_arn="arn:aws:iam::111122223333:role/r",
        role_id="AROA1",
        name="alice",
        arn="arn:aws:sts::111122223333:assumed-role/r/alice",
        provider_arn="p",
        source_identity=None,
        tags={},
        policy=None,
        issued_at=int(NOW),
        expires_at=expires,
    )


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


def signed(key: Key, service: str = "sts", url: str = "http://127.0.0.1:1/", **parts: Any) -> Request:
    request = AWSRequest(
        method=parts.get("method", "POST"),
        url=url,
        data=parts.get("body", b""),
        headers=parts.get("headers", {}),
    )
    token = key.token.reveal() if key.token else None
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    signer(Credentials(key.access_key_id, key.secret.reveal(), token), service, "eu-central-1").add_auth(
        request
    )
    pieces = urlsplit(url)
    headers = {"host": pieces.netloc, **{k.lower(): v for k, v in request.headers.items()}}
    body = parts.get("body", b"")
    return Request(str(request.method), pieces.path, pieces.query, tuple(headers.items()), body)


def check(request: Request, keys: Keys, now: float = NOW) -> Key:
    return verify(request, claimed_scope(request, "sts"), keys, now=now)


def replaced(request: Request, **changes: Any) -> Request:
    fields = {name: getattr(request, name) for name in ("method", "path", "query", "headers", "body")}
    return Request(**{**fields, **changes})


def header(request: Request, name: str, value: str) -> Request:
    return replaced(request, headers=tuple((n, value if n == name else v) for n, v in request.headers))


def code(request: Request, keys: Keys, now: float = NOW) -> str:
    with pytest.raises(AwsFault) as caught:
        check(request, keys, now)
    return caught.value.code


@pytest.mark.parametrize("service", ["sts", "s3", "ec2"])
def test_what_botocore_signs_is_accepted(keys: Keys, service: str) -> None:
    assert check(signed(keys.admin, service, body=b"Action=x"), keys) is keys.admin
    issued = keys.issue(session(int(NOW) + 100))
    assert check(signed(issued, service, body=b"Action=x"), keys) is issued


PATHS = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=20)


@settings(deadline=None)
@given(PATHS, st.dictionaries(PATHS.filter(bool), PATHS, max_size=3))
def test_any_s3_path_and_query_that_botocore_signs(path: str, query: dict[str, str]) -> None:
    keys = Keys()
    url = "http://127.0.0.1:1/b/" + quote(path, safe="/~") + "?" + urlencode(query, quote_via=quote)
    assert check(signed(keys.admin, "s3", url, method="GET"), keys) is keys.admin


def test_a_published_vector() -> None:
    """The "get-vanilla" example of AWS's SigV4 test suite, with x-amz-date as its only extra header."""
    keys = Keys()
    secret = Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    key = Key(access_key_id="AKIDEXAMPLEAKIDE", secret=secret, token=None, session=None)
    keys._keys[key.access_key_id] = key
    authorization = (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLEAKIDE/20150830/us-east-1/service/aws4_request,"
        " SignedHeaders=host;x-amz-date,"
        " Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    )
    headers = (
        ("host", "example.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
        ("authorization", authorization),
    )
    when = calendar.timegm((2015, 8, 30, 12, 36, 0))
    assert check(Request("GET", "/", "", headers, b""), keys, when) is key


def test_every_part_of_a_request_is_covered(keys: Keys) -> None:
    good = signed(keys.issue(session(int(NOW) + 100)), body=b"Action=a", url="http://127.0.0.1:1/x?a=1&b=2")
    check(good, keys)
    for changed in (
        replaced(good, body=b"Action=b"),
        replaced(good, method="PUT"),
        replaced(good, path="/y"),
        replaced(good, query="a=1&b=3"),
        replaced(good, query="a=1&b=2&c=3"),
        header(good, "host", "127.0.0.1:2"),
        replaced(good, headers=(*good.headers, ("x-amz-target", "AmazonSSM.StartSession"))),
        replaced(good, headers=(*good.headers, ("host", "127.0.0.1:1"))),
    ):
        assert code(changed, keys) == "SignatureDoesNotMatch"
    authorization = good.header("authorization") or ""
    flipped = authorization[:-1] + ("0" if authorization[-1] != "0" else "1")
    assert code(header(good, "authorization", flipped), keys) == "SignatureDoesNotMatch"
    elsewhere = authorization.replace("eu-central-1", "us-east-1")
    assert code(header(good, "authorization", elsewhere), keys) == "SignatureDoesNotMatch"


def test_a_signed_header_comes_once(keys: Keys) -> None:
    empty = signed(keys.admin, headers={"X-Amz-Target": ""})
    check(empty, keys)
    rest = tuple(h for h in empty.headers if h[0] != "x-amz-target")
    twice = (*rest, ("x-amz-target", "AmazonSSM.A"), ("x-amz-target", "AmazonSSM.B"))
    assert code(replaced(empty, headers=twice), keys) == "SignatureDoesNotMatch"


def test_keys_and_tokens(keys: Keys) -> None:
    issued, other = keys.issue(session(int(NOW) + 100)), keys.issue(session(int(NOW) + 100))
    assert other.token
    assert code(signed(Keys().admin), keys) == "InvalidClientTokenId"
    assert (
        code(header(signed(issued), "x-amz-security-token", other.token.reveal()), keys)
        == "InvalidClientTokenId"
    )
    without = Key(access_key_id=issued.access_key_id, secret=issued.secret, token=None, session=None)
    assert code(signed(without), keys) == "InvalidClientTokenId"
    admin = keys.admin
    extra = Key(access_key_id=admin.access_key_id, secret=admin.secret, token=other.token, session=None)
    assert code(signed(extra), keys) == "InvalidClientTokenId"


@pytest.mark.parametrize(
    ("service", "expired"),
    [
        ("sts", "ExpiredToken"),
        ("s3", "ExpiredToken"),
        ("ec2", "RequestExpired"),
        ("ssm", "ExpiredTokenException"),
    ],
)
def test_a_session_ends_to_the_second(keys: Keys, service: str, expired: str) -> None:
    end = int(NOW) + 100
    request = signed(keys.issue(session(end)), service)
    check(request, keys, end - 1)
    assert code(request, keys, end) == expired


@pytest.mark.parametrize("shift", [-16 * 60, 16 * 60])
def test_clocks_may_differ_by_a_quarter_of_an_hour(keys: Keys, shift: int) -> None:
    request = signed(keys.admin, "s3")
    signed_at = time.time()
    check(request, keys, signed_at + 14 * 60)
    assert code(request, keys, signed_at + shift) == "RequestTimeTooSkewed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bearer x", "IncompleteSignature"),
        ("AWS4-HMAC-SHA256 Credential=A/b/c", "IncompleteSignature"),
        ("AWS AKIA:signature", "IncompleteSignature"),
    ],
)
def test_other_schemes(keys: Keys, text: str, expected: str) -> None:
    assert code(header(signed(keys.admin), "authorization", text), keys) == expected


def test_unsigned_and_presigned(keys: Keys) -> None:
    bare = Request("GET", "/", "", (("host", "h"),), b"")
    assert code(bare, keys) == "MissingAuthenticationToken"
    assert code(replaced(bare, query="X-Amz-Signature=1"), keys) == "NotImplemented"


def test_declared_payload_hashes(keys: Keys) -> None:
    declared = {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}
    assert code(signed(keys.admin, "sts", headers=declared), keys) == "SignatureDoesNotMatch"
    streaming = header(signed(keys.admin, "s3"), "x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    assert code(streaming, keys) == "NotImplemented"
    lie = header(signed(keys.admin, "s3"), "x-amz-content-sha256", "0" * 64)
    assert code(lie, keys) == "SignatureDoesNotMatch"


def test_keys_do_not_print_their_secrets(keys: Keys) -> None:
    issued = keys.issue(session(int(NOW)))
    assert issued.token
    assert issued.secret.reveal() not in repr(issued)
    assert issued.token.reveal() not in repr(issued)
