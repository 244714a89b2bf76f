from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from credx.errors import ConfigError, UnavailableError
from credx.http import Http, _proxy_for
from credx.urls import origin, permitted_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Script = "Callable[[socket.socket, bytes], None]"


class Server:
    """Answers each connection with a script that gets the socket and the request's head."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        self.answer: Callable[[socket.socket], None] = lambda sock: sock.sendall(ok(b"hello"))
        self.context = context
        self.stopping = threading.Event()
        self.open: list[socket.socket] = []
        self.run(self._accept)

    def run(self, target: Callable[..., None], *args: object) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if self.stopping.is_set():
                sock.close()
                return
            self.connections += 1
            self.open.append(sock)
            self.run(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(10)
            if self.context:
                sock = self.context.wrap_socket(sock, server_side=True)
            while head := self._head(sock):
                self.requests.append(head)
                self.answer(sock)
        except OSError:
            pass
        finally:
            sock.close()

    @staticmethod
    def _head(sock: socket.socket) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := sock.recv(65536)):
                return b""
            head += more
        return head

    def stop(self) -> None:
        self.stopping.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.listener.close()
        for sock in self.open:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def ok(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def http() -> Http:
    return Http(environ={"HTTPS_PROXY": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"})


def url(server: Server, path: str = "/") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def failure(http: Http, address: str, **kwargs: float) -> str:
    with pytest.raises(UnavailableError) as caught:
        http.request("GET", address, **kwargs)  # type: ignore[arg-type]
    return caught.value.message


def test_a_request_and_its_answer(server: Server, http: Http) -> None:
    server.answer = lambda sock: sock.sendall(ok(b"{}", "X-Thing: a", "X-Thing: b", status="401 No"))
    answer = http.request(
        "POST", url(server, "/token?x=1"), headers={"Authorization": "Bearer t"}, body=b"a=b"
    )
    assert (answer.status, answer.body, answer.headers["x-thing"]) == (401, b"{}", "a, b")
    head = server.requests[0].lower()
    assert head.startswith(b"post /token?x=1 http/1.1\r\n")
    assert b"\r\naccept-encoding: identity\r\n" in head
    assert b"\r\nauthorization: bearer t\r\n" in head
    assert b"urllib3" not in head


def test_a_connection_serves_again(server: Server, http: Http) -> None:
    for _ in range(3):
        assert http.request("GET", url(server)).body == b"hello"
    assert server.connections == 1


def test_fetch_takes_200_only(server: Server, http: Http) -> None:
    assert http.fetch(url(server)) == b"hello"
    server.answer = lambda sock: sock.sendall(ok(b"hello", status="203 X"))
    with pytest.raises(UnavailableError, match="status 203"):
        http.fetch(url(server))


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 T", "308 P", "304 N"])
def test_a_redirect_is_refused(server: Server, http: Http, status: str) -> None:
    server.answer = lambda sock: sock.sendall(ok(b"", f"Location: {url(server, '/next')}", status=status))
    assert "redirect" in failure(http, url(server))
    assert len(server.requests) == 1


def test_a_body_over_the_cap_is_refused(server: Server, http: Http) -> None:
    server.answer = lambda sock: sock.sendall(ok(b"x" * 1001))
    assert "more than 1000 bytes" in failure(http, url(server), cap=1000)
    assert len(http.request("GET", url(server), cap=1001).body) == 1001


def test_a_body_without_an_end_is_refused_at_the_cap(server: Server, http: Http) -> None:
    sent = 0

    def endless(sock: socket.socket) -> None:
        nonlocal sent
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            sock.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            sent += 4096

    server.answer = endless
    assert "more than" in failure(http, url(server))
    assert sent < 16 * 1024 * 1024  # what the two kernels buffer


DRIPS = {
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n",
    "body until close": b"HTTP/1.0 200 OK\r\n\r\n",
    "chunked body": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n",
    "chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "header": b"HTTP/1.1 200 OK\r\nX: ",
    "status": b"HTTP/1.1 200 ",
    "nothing": b"",
}


@pytest.mark.parametrize("where", DRIPS)
def test_a_drip_ends_at_the_deadline(server: Server, http: Http, where: str) -> None:
    def drip(sock: socket.socket) -> None:
        sock.sendall(DRIPS[where])
        while not server.stopping.wait(0.05):
            sock.sendall(b"0" if where != "nothing" else b"")

    server.answer = drip
    start = time.monotonic()
    assert "did not answer within 0.4 s" in failure(http, url(server), deadline=0.4)
    assert time.monotonic() - start < 1.5


def test_a_drip_on_a_kept_connection_ends_at_the_deadline(server: Server, http: Http) -> None:
    assert http.request("GET", url(server)).status == 200
    test_a_drip_ends_at_the_deadline(server, http, "header")
    assert server.connections == 1


def test_an_endless_row_of_interim_answers_ends_at_the_deadline(server: Server, http: Http) -> None:
    def interim(sock: socket.socket) -> None:
        while not server.stopping.wait(0.01):
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    server.answer = interim
    assert "did not answer within" in failure(http, url(server), deadline=0.3)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
    ids=["nothing", "garbage", "short", "short chunk", "bad chunk", "many headers", "long header"],
)
def test_an_answer_that_is_broken(server: Server, http: Http, answer: bytes) -> None:
    def broken(sock: socket.socket) -> None:
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)

    server.answer = broken
    assert "broke off" in failure(http, url(server))


def test_an_encoding_that_was_not_asked_for(server: Server, http: Http) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    server.answer = lambda sock: sock.sendall(ok(bomb, "Content-Encoding: gzip"))
    assert "encoding" in failure(http, url(server))


def test_nobody_listens(http: Http) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert "no connection" in failure(http, f"http://127.0.0.1:{taken.getsockname()[1]}/secret?token=x")


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/",
        "file:///etc/passwd",
        "ftp://localhost/",
        "https://u:p@example.com/",
        "https://a/#f",
        "x",
    ],
)
def test_an_address_that_is_not_permitted(http: Http, address: str) -> None:
    assert not permitted_url(address)
    assert failure(http, address) == "an address is neither https nor http on this machine"


def test_an_error_names_the_server_and_nothing_of_the_path(server: Server, http: Http) -> None:
    server.answer = lambda sock: sock.close()
    shown = failure(http, url(server, "/secret?token=hunter2"))
    assert origin(url(server)) in shown
    assert "secret" not in shown
    assert "hunter2" not in shown


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "credx test")])
    day = dt.timedelta(days=1)
    now = dt.datetime.now(dt.UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    pkcs8 = serialization.PrivateFormat.PKCS8
    pem = serialization.Encoding.PEM
    path.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()) + cert.public_bytes(pem))
    return path


@pytest.fixture
def tls(certificate: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    running = Server(context)
    yield running
    running.stop()


def test_a_companys_own_ca(tls: Server, certificate: Path) -> None:
    address = f"https://localhost:{tls.port}/"
    assert Http(ca_file=str(certificate), environ={}).request("GET", address).body == b"hello"
    assert Http(environ={"AWS_CA_BUNDLE": str(certificate)}).request("GET", address).body == b"hello"


def test_a_certificate_nobody_vouches_for(tls: Server) -> None:
    with pytest.raises(
        UnavailableError, match=r"certificate of https://localhost:[0-9]+ is not trusted"
    ) as caught:
        Http(environ={}).request("GET", f"https://localhost:{tls.port}/")
    assert "ca_file" in str(caught.value.hint)


def test_a_certificate_for_another_name(tls: Server, certificate: Path) -> None:
    http = Http(ca_file=str(certificate), environ={})
    assert "is not trusted" in failure(http, f"https://127.0.0.1:{tls.port}/")
    assert tls.requests == []


def test_a_drip_over_tls_ends_at_the_deadline(tls: Server, certificate: Path) -> None:
    def drip(sock: socket.socket) -> None:
        sock.sendall(DRIPS["header"])
        while not tls.stopping.wait(0.05):
            sock.sendall(b"0")

    tls.answer = drip
    http = Http(ca_file=str(certificate), environ={})
    assert "did not answer within" in failure(http, f"https://localhost:{tls.port}/", deadline=0.5)


def test_a_handshake_that_never_ends(server: Server) -> None:
    server.answer = lambda _: server.stopping.wait(5) and None
    assert "did not answer within" in failure(
        Http(environ={}), f"https://localhost:{server.port}/", deadline=0.4
    )


@pytest.mark.parametrize("content", [None, "nothing", ""])
def test_a_ca_file_that_cannot_be_used(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="in ca_file cannot be read"):
        Http(ca_file=str(path), environ={}).request("GET", "https://localhost:1/")
    with pytest.raises(ConfigError, match="in SSL_CERT_FILE cannot be read"):
        Http(environ={"SSL_CERT_FILE": str(path)}).request("GET", "https://localhost:1/")


# --- proxy


def test_https_goes_through_the_proxy(server: Server) -> None:
    server.answer = lambda sock: sock.sendall(ok(b"", status="403 No"))
    http = Http(environ={"HTTPS_PROXY": f"http://user:hunter2@127.0.0.1:{server.port}"})
    shown = failure(http, "https://idp.example.com/")
    assert server.requests[0].startswith(b"CONNECT idp.example.com:443 HTTP/1.")
    assert b"Proxy-Authorization: Basic dXNlcjpodW50ZXIy" in server.requests[0].title().replace(
        b"Dxnlcjpodw50Zxiy", b"dXNlcjpodW50ZXIy"
    )
    assert "proxy" in shown
    assert "hunter2" not in shown


def test_a_proxy_that_drips_ends_at_the_deadline(server: Server) -> None:
    def drip(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not server.stopping.wait(0.05):
            sock.sendall(b"0")

    server.answer = drip
    http = Http(environ={"HTTPS_PROXY": f"http://127.0.0.1:{server.port}"})
    assert "did not answer within" in failure(http, "https://idp.example.com/", deadline=0.4)


@pytest.mark.parametrize("proxy", ["http://user:hunter2@[bad", "socks5://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used(proxy: str) -> None:
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        Http(environ={"HTTPS_PROXY": proxy}).request("GET", "https://idp.example.com/")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("", "idp.example.com", False),
        ("*", "idp.example.com", True),
        ("example.com", "idp.example.com", True),
        (".example.com", "idp.example.com", True),
        ("*.example.com", "idp.example.com", True),
        ("EXAMPLE.com, other", "idp.example.com", True),
        ("idp.example.com:443", "idp.example.com", True),
        ("idp.example.com:444", "idp.example.com", False),
        ("example.com", "notexample.com", False),
        ("ple.com", "idp.example.com", False),
        (",,", "idp.example.com", False),
    ],
)
def test_no_proxy(no_proxy: str, host: str, direct: bool) -> None:
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": no_proxy}
    assert _proxy_for(host, 443, environ) == ("" if direct else "http://p:1")


def test_loopback_is_never_proxied(tls: Server, certificate: Path) -> None:
    http = Http(ca_file=str(certificate), environ={"HTTPS_PROXY": "http://127.0.0.1:1"})
    assert http.request("GET", f"https://localhost:{tls.port}/").status == 200


def test_threads_share_a_client(server: Server, http: Http) -> None:
    found: list[bytes] = []

    def run() -> None:
        found.extend(http.request("GET", url(server)).body for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"hello"] * 40
