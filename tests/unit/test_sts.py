from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import sys
import threading
import traceback
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from credx import sts
from credx.errors import AwsRefusedError, ConfigError, CredxError, UnavailableError
from credx.model import AwsCredentials, Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzZWNyZXQiOiJwYXlsb2FkIn0.c2lnbmF0dXJl"
ROLE = "arn:aws:iam::111122223333:role/teams/prod-ops"
ASSUMED = "arn:aws:sts::111122223333:assumed-role/prod-ops/alice-1234"


def success(arn: str = ASSUMED, expiration: str = "2030-01-01T00:00:00Z") -> str:
    return f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><AssumedRoleUser><AssumedRoleId>AROA:alice</AssumedRoleId><Arn>{arn}</Arn>
</AssumedRoleUser><Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>hidden</SecretAccessKey>
<SessionToken>token</SessionToken><Expiration>{expiration}</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


def failure(code: str, message: str) -> str:
    return f"""<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>{code}</Code><Message>{message}</Message></Error><RequestId>r</RequestId></ErrorResponse>"""


@dataclass
class Sts:
    """A loopback STS that answers from a list; the last answer stays."""

    url: str = ""
    answers: list[tuple[int, str]] = field(default_factory=lambda: [(200, success())])
    forms: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sts]:
    yield from serve(monkeypatch)


def serve(monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext | None = None) -> Iterator[Sts]:
    fake = Sts()
    sts._client.cache_clear()  # a client keeps the proxies and the trust of its first call

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            fake.forms.append({k: v[0] for k, v in parse_qs(body).items()})
            fake.headers.append({k.lower(): v for k, v in self.headers.items()})
            status, text = fake.answers.pop(0) if len(fake.answers) > 1 else fake.answers[0]
            self.send_response(status)
            self.send_header("content-type", "text/xml")
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that refuses our certificate

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    fake.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def call(endpoint: str | None, **more: Any) -> AwsCredentials:
    given: dict[str, Any] = {
        "token": Secret(TOKEN),
        "role_arn": ROLE,
        "session_name": "alice-1234",
        "duration": 3600,
        "policy": None,
        "region": "eu-central-1",
        "endpoint": endpoint,
    }
    return sts.assume_role_with_web_identity(**{**given, **more})


def refused(endpoint: str | None, **more: Any) -> CredxError:
    with pytest.raises(CredxError) as caught:
        call(endpoint, **more)
    assert_silent(caught.value)
    return caught.value


def assert_silent(error: BaseException) -> None:
    """The token is nowhere in an error: not in its text, its traceback, its context or what that refers to."""
    text = "".join(traceback.format_exception(error))
    seen: BaseException | None = error
    while seen is not None:
        text += repr(seen) + repr(vars(seen))
        seen = seen.__cause__ or seen.__context__
    assert TOKEN not in text
    assert TOKEN.split(".")[1] not in text


def test_credentials_come_back(aws: Sts) -> None:
    credentials = call(aws.url, policy='{"Version":"2012-10-17","Statement":[]}', duration=900)
    assert credentials == AwsCredentials(
        access_key_id="ASIAEXAMPLE",
        secret_access_key=Secret("hidden"),
        session_token=Secret("token"),
        expiration=1893456000,
        account_id="111122223333",
        region="eu-central-1",
        role_arn=ROLE,
    )
    assert aws.forms == [
        {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": ROLE,
            "RoleSessionName": "alice-1234",
            "WebIdentityToken": TOKEN,
            "DurationSeconds": "900",
            "Policy": '{"Version":"2012-10-17","Statement":[]}',
        }
    ]
    assert "authorization" not in aws.headers[0]
    assert "credx/" in aws.headers[0]["user-agent"]


def test_nothing_of_the_environment_has_a_say(
    aws: Sts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    evil = "http://127.0.0.1:1"
    config = tmp_path / "config"
    config.write_text(
        f"[default]\nendpoint_url = {evil}\nregion = us-east-1\ndefaults_mode = auto\n[broken\n"
    )
    for name, value in {
        "AWS_PROFILE": "does-not-exist",
        "AWS_DEFAULT_PROFILE": "does-not-exist",
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(config),
        "AWS_ENDPOINT_URL": evil,
        "AWS_ENDPOINT_URL_STS": evil,
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
        "AWS_STS_REGIONAL_ENDPOINTS": "legacy",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "AKIAEVIL",
        "AWS_SECRET_ACCESS_KEY": "evil",
        "AWS_SESSION_TOKEN": "evil",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(config),
        "AWS_ROLE_ARN": "arn:aws:iam::999922223333:role/evil",
        "AWS_MAX_ATTEMPTS": "100",
        "AWS_RETRY_MODE": "legacy",
        "AWS_DEFAULTS_MODE": "auto",
        "AWS_DATA_PATH": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    assert call(aws.url).account_id == "111122223333"
    assert "authorization" not in aws.headers[0]
    assert (
        sts._client("eu-central-1", None, None).meta.endpoint_url == "https://sts.eu-central-1.amazonaws.com"
    )


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("us-east-1", "https://sts.us-east-1.amazonaws.com"),
        ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
        ("eusc-de-east-1", "https://sts.eusc-de-east-1.amazonaws.eu"),
    ],
)
def test_the_endpoint_is_the_regions_own(region: str, endpoint: str) -> None:
    assert sts._client(region, None, None).meta.endpoint_url == endpoint


@pytest.mark.parametrize("code", list(sts._HINTS))
def test_a_refusal_of_aws_has_its_code_and_a_hint(aws: Sts, code: str) -> None:
    aws.answers = [(400, failure(code, "Couldn't do that."))]
    error = refused(aws.url)
    assert isinstance(error, AwsRefusedError)
    assert error.code == code
    assert error.message == f"AWS refused: {code}: Couldn't do that"
    assert error.hint == sts._HINTS[code]


def test_a_role_that_may_come_true_is_tried_again_but_not_for_ever(aws: Sts) -> None:
    aws.answers = [(400, failure("IDPCommunicationError", "slow")), (200, success())]
    assert call(aws.url)
    aws.answers, aws.forms = [(400, failure("IDPCommunicationError", "slow"))], []
    error = refused(aws.url)
    assert isinstance(error, AwsRefusedError)
    assert len(aws.forms) == sts.ATTEMPTS


def test_a_refusal_is_not_tried_again(aws: Sts) -> None:
    aws.answers = [(403, failure("AccessDenied", "no"))]
    refused(aws.url)
    assert len(aws.forms) == 1


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, failure("InvalidIdentityToken", f"Invalid token {TOKEN} given")),
        (400, failure("InvalidIdentityToken", f"Invalid token {TOKEN[:-5]}")),
        (400, failure("ValidationError", f"1 validation error detected: Value &apos;{TOKEN}&apos; at x")),
        (400, failure(TOKEN, "x")),
        (500, failure("InternalFailure", TOKEN)),
        (200, TOKEN),
        (400, TOKEN),
        (302, ""),
        (200, "<a><b>"),
        (200, "<a/>"),
        (200, success(arn="nonsense")),
        (200, success(expiration="tomorrow")),
        (200, success().replace("<AccessKeyId>ASIAEXAMPLE</AccessKeyId>", "")),
        (200, success().replace("hidden", "")),
        (404, "<html></html>"),
    ],
)
def test_the_token_is_in_no_error(aws: Sts, status: int, text: str) -> None:
    aws.answers = [(status, text)]
    error = refused(aws.url)
    assert error.message.isprintable()
    assert error.hint


def test_the_token_is_in_no_error_of_botocores_own_validation(
    aws: Sts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sts, "_check", lambda *_: None)
    assert isinstance(refused(aws.url, role_arn="short"), UnavailableError)
    assert isinstance(refused(aws.url, duration="x"), UnavailableError)
    assert isinstance(refused(aws.url, region="no such region"), UnavailableError)
    assert not aws.forms


def test_nobody_listening(aws: Sts) -> None:
    with socket.socket() as taken:  # bound, so that nobody else listens there, and not listening
        taken.bind(("127.0.0.1", 0))
        error = refused(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert isinstance(error, UnavailableError)
    assert error.message == "AWS STS in eu-central-1 cannot be reached (EndpointConnectionError)"


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:sts::999922223333:assumed-role/prod-ops/alice-1234",
        "arn:aws:sts::111122223333:assumed-role/prod-ops2/alice-1234",
        "arn:aws:sts::111122223333:assumed-role/teams/prod-ops/alice-1234",
        "arn:aws-cn:sts::111122223333:assumed-role/prod-ops/alice-1234",
        "arn:aws:iam::111122223333:role/prod-ops/x",
    ],
)
def test_credentials_of_another_role_are_refused(aws: Sts, arn: str) -> None:
    aws.answers = [(200, success(arn=arn))]
    error = refused(aws.url)
    assert isinstance(error, AwsRefusedError)
    assert error.code == "UnexpectedRole"


@pytest.mark.parametrize(
    "wrong",
    [
        {"session_name": "a"},
        {"session_name": "a" * 65},
        {"session_name": "alice smith"},
        {"session_name": "alice\n"},
        {"session_name": "älice"},
        {"duration": 899},
        {"duration": 43201},
        {"policy": ""},
        {"policy": "x" * 2049},
        {"policy": "\u4e2d"},
        {"role_arn": "arn:aws:iam::111122223333:user/x"},
        {"role_arn": "arn:aws:iam::111122223333:role/x\n"},
        {"region": "eu-central-1.evil.example"},
        {"region": "EU"},
        {"token": Secret("abc")},
        {"token": Secret("x" * 20001)},
    ],
)
def test_what_aws_would_not_take_is_not_sent(aws: Sts, wrong: dict[str, Any]) -> None:
    error = refused(aws.url, **wrong)
    assert isinstance(error, AwsRefusedError)
    assert error.code == "ValidationError"
    assert not aws.forms


@pytest.mark.parametrize(
    "endpoint", ["http://sts.example.com", "ftp://127.0.0.1", "https://u@sts.example.com", ""]
)
def test_an_endpoint_in_the_clear_is_refused(endpoint: str) -> None:
    assert isinstance(refused(endpoint), ConfigError)


def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1 and a server that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, both = tmp_path / "ca.pem", tmp_path / "server.pem"
    pem = made.public_bytes(serialization.Encoding.PEM)
    public.write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both.write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return public, context


def test_a_companys_own_ca(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ca_file, context = certificate(tmp_path)
    for aws in serve(monkeypatch, context):
        error = refused(aws.url)
        assert isinstance(error, UnavailableError)
        assert "SSLError" in error.message
        assert call(aws.url, ca_file=str(ca_file)).account_id == "111122223333"
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ca_file))
        assert call(aws.url).account_id == "111122223333"
        if sys.platform == "linux":  # there the system's trust store can be moved
            monkeypatch.delenv("AWS_CA_BUNDLE")
            monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
            sts._client.cache_clear()
            assert call(aws.url).account_id == "111122223333"
        assert isinstance(refused(aws.url, ca_file=str(tmp_path / "none.pem")), UnavailableError)


def test_importing_the_room_costs_no_botocore() -> None:
    import subprocess

    code = "import sys, credx.sts; sys.exit(any(m in sys.modules for m in ('botocore', 'boto3', 'ssl')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_loopback_endpoint_is_never_asked_through_a_proxy(
    aws: Sts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert call(aws.url).account_id == "111122223333"


def test_small_requests_are_not_held_back() -> None:
    transport = sts._client("eu-central-1", None, None)._endpoint.http_session
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in transport._socket_options
