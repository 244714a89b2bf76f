"""HTTP with bounds: on where it goes, how long it takes and how much it reads. The only home of urllib3.

A read timeout starts anew with every byte, so a server that drips holds a client for as long as it likes
(measured on PyJWT's key client: ``timeout=3`` did not end a drip of 20 s). Here a watch shuts the socket
when the whole request has had its time: connecting, TLS, headers and body. Only a resolver that hangs is
left to the operating system's own limit.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final, Self

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from credx.errors import ConfigError, UnavailableError
from credx.urls import is_loopback, origin, permitted_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CAP: Final = 64 * 1024  # bytes of a body; the largest public key sets have about 10 KiB
DEADLINE: Final = 10.0  # seconds for one whole request
_CHUNK: Final = 16 * 1024

# After the setting in credx's own configuration: AWS's tools, OpenSSL, and what many Python tools read
_CA_VARIABLES: Final = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True, kw_only=True)
class Response:
    """``headers`` have lower-case names; ``body`` is complete."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def ahead(self, now: float) -> float:
        """How many seconds ``now`` is ahead of the server's clock (RFC 9110 6.6.1); 0 where it does not tell."""
        try:
            return now - parsedate_to_datetime(self.headers.get("date", "")).timestamp()
        except (ValueError, TypeError, OverflowError):
            return 0


class Http:
    """A client that may be shared between threads; connections are kept for the next request.

    Args:
        ca_file: PEM file of a company's own CA, trusted beside those of the operating system; without it
            ``AWS_CA_BUNDLE``, ``SSL_CERT_FILE`` or ``REQUESTS_CA_BUNDLE``.
        clock: monotonic seconds.
        environ: where those and ``HTTPS_PROXY`` and ``NO_PROXY`` are read; the process's by default.
    """

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._ca_file = ca_file
        self._clock = clock
        self._environ = os.environ if environ is None else environ
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._context: ssl.SSLContext | None = None
        self._building = threading.Lock()

    def fetch(self, url: str, *, deadline: float = DEADLINE) -> bytes:
        """The body of a plain GET.

        Raises:
            UnavailableError: as ``request``, or any status but 200.
        """
        response = self.request("GET", url, headers={"accept": "application/json"}, deadline=deadline)
        if response.status != 200:
            raise UnavailableError(f"{origin(url)} answered with status {response.status}")
        return response.body

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        cap: int = CAP,
        deadline: float = DEADLINE,
    ) -> Response:
        """One request and its whole answer: no redirect is followed, nothing is tried twice.

        Args:
            method: HTTP method.
            url: https, or http on a loopback host.
            headers: lower-case or not.
            body: as it goes on the wire.
            cap: bytes of the answer's body.
            deadline: seconds for everything.

        Raises:
            UnavailableError: no answer, no trust in the server, a redirect, or an answer beyond the bounds.
            ConfigError: a CA file or a proxy that cannot be used.
        """
        if not permitted_url(url):
            raise UnavailableError("an address is neither https nor http on this machine")
        server = origin(url)
        manager = self._manager(url)
        end = self._clock() + deadline
        # http.client adds "accept-encoding: identity": what is not packed cannot be a bomb
        sent = {"user-agent": "credx", **(headers or {})}
        with _Watch(deadline) as watch:
            try:
                raw = manager.request(
                    method,
                    url,
                    body=body,
                    headers=sent,
                    timeout=urllib3.Timeout(total=deadline),
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
            except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as exc:
                raise _explained(exc, server, late=watch.expired, deadline=deadline) from exc
            try:
                answer = self._read(raw, server, cap, end)
            except (urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as exc:
                raw.close()
                raise _explained(exc, server, late=watch.expired, deadline=deadline) from exc
            except BaseException:
                raw.close()
                raise
            if watch.expired:  # a body that ends with the connection looks complete when the watch cuts it
                raise _too_late(server, deadline)
        raw.release_conn()
        return answer

    def _read(self, raw: urllib3.BaseHTTPResponse, server: str, cap: int, end: float) -> Response:
        if 300 <= raw.status < 400:
            raise UnavailableError(
                f"{server} answered with a redirect, which is not followed",
                hint="configure the final address",
            )
        headers = {name.lower(): raw.headers[name] for name in raw.headers}
        if headers.get("content-encoding", "identity") != "identity":
            raise UnavailableError(f"{server} answered in an encoding that was not asked for")
        body = bytearray()
        while chunk := raw.read1(min(_CHUNK, cap + 1 - len(body)), decode_content=False):
            body += chunk
            if len(body) > cap:
                raise UnavailableError(f"{server} answered with more than {cap} bytes")
            if self._clock() > end:
                raise TimeoutError
        return Response(status=raw.status, headers=headers, body=bytes(body))

    def _manager(self, url: str) -> urllib3.PoolManager:
        parts = urllib3.util.parse_url(url)
        host = (parts.host or "").strip("[]")
        proxy = "" if is_loopback(host) else _proxy_for(host, parts.port or 443, self._environ)
        name = proxy if parts.scheme == "https" else "plain"
        with self._building:
            if name not in self._managers:
                self._managers[name] = self._new_manager(name)
            return self._managers[name]

    def _new_manager(self, name: str) -> urllib3.PoolManager:
        manager: urllib3.PoolManager
        if name == "plain":  # loopback: no proxy and no certificate store, which takes a while to load
            manager = urllib3.PoolManager(num_pools=8)
        else:
            self._context = self._context or _context(self._ca_file, self._environ)
            manager = _proxied(name, self._context) if name else _direct(self._context)
        manager.pool_classes_by_scheme = {"http": _WatchedPool, "https": _WatchedTlsPool}
        return manager


def _direct(context: ssl.SSLContext) -> urllib3.PoolManager:
    return urllib3.PoolManager(num_pools=8, ssl_context=context)


def _proxied(proxy: str, context: ssl.SSLContext) -> urllib3.ProxyManager:
    try:
        parts = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
        login = urllib3.util.make_headers(proxy_basic_auth=parts.auth) if parts.auth else None
        # TLS to an https proxy uses the same trust
        return urllib3.ProxyManager(
            parts._replace(auth=None).url, proxy_headers=login, ssl_context=context, proxy_ssl_context=context
        )
    except (urllib3.exceptions.HTTPError, ValueError, AttributeError):
        raise ConfigError(
            "the proxy in HTTPS_PROXY cannot be used", hint="set it to http://HOST:PORT"
        ) from None  # its text may hold a password


def _proxy_for(host: str, port: int, environ: Mapping[str, str]) -> str:
    exempt = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    for entry in exempt.replace(" ", ",").split(","):
        name = entry.lower().removeprefix("*").lstrip(".")
        if entry == "*" or (name and (name in (host, f"{host}:{port}") or host.endswith(f".{name}"))):
            return ""
    return environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""


def _context(ca_file: str | None, environ: Mapping[str, str]) -> ssl.SSLContext:
    import truststore  # noqa: PLC0415 -- not needed on loopback, where start-up time is felt most

    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    name = "ca_file" if ca_file else next((v for v in _CA_VARIABLES if environ.get(v)), None)
    path = ca_file or (environ[name] if name else None)
    if path:
        try:
            if os.path.isdir(path):  # noqa: PTH112 -- as OpenSSL takes it
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except (OSError, ValueError) as exc:
            raise ConfigError(
                f"the CA certificates in {name} cannot be read", hint=f"{name} must name a PEM file"
            ) from exc
    return context


class _Watch:
    """Ends a request at its deadline by shutting down the socket it uses, from another thread."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._lock = threading.Lock()
        self._socket: Any = None
        self._timer = threading.Timer(seconds, self._bark)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        _current.watch = self
        self._timer.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._timer.cancel()
        _current.watch = None
        with self._lock:
            self._socket = None  # it may serve the next request now

    def follow(self, sock: Any) -> None:
        with self._lock:
            self._socket = sock
            if self.expired:
                self._shut()

    def _bark(self) -> None:
        with self._lock:
            self.expired = True
            self._shut()

    def _shut(self) -> None:
        raw = getattr(self._socket, "socket", self._socket)  # TLS inside TLS wraps the socket of the proxy
        if isinstance(raw, socket.socket):
            with suppress(OSError):
                socket.socket.shutdown(raw, socket.SHUT_RDWR)  # not SSLSocket's, which the reader is using


_current = threading.local()  # urllib3 has no place to hand a connection something of one request


def _followed(sock: Any) -> None:
    watch: _Watch | None = getattr(_current, "watch", None)
    if watch is not None and sock is not None:
        watch.follow(sock)
        if watch.expired:
            raise TimeoutError


class _WatchedConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        _followed(sock)  # a proxy may drip its answer to CONNECT
        return sock

    def _tunnel(self) -> None:
        super()._tunnel()  # http.client's; it takes a cut in the headers for their end
        _followed(self.sock)

    def connect(self) -> None:
        super().connect()
        _followed(self.sock)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3 itself overrides it
        _followed(self.sock)  # a kept connection was not connected in this request
        return super().getresponse()


class _WatchedTlsConnection(_WatchedConnection, HTTPSConnection):
    pass


class _WatchedPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _WatchedConnection


class _WatchedTlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedTlsConnection


def _too_late(server: str, deadline: float) -> UnavailableError:
    return UnavailableError(f"{server} did not answer within {deadline:g} s")


def _explained(exc: Exception, server: str, *, late: bool, deadline: float) -> UnavailableError:
    refused = urllib3.exceptions.NewConnectionError  # which urllib3 derives from its timeouts
    timeouts = (urllib3.exceptions.TimeoutError, TimeoutError)
    if late or (isinstance(exc, timeouts) and not isinstance(exc, refused)):
        return _too_late(server, deadline)
    message, hint = f"{server} broke off or answered with something that is not HTTP", None
    if isinstance(exc, urllib3.exceptions.ProxyError):
        message, hint = f"the proxy on the way to {server} cannot be used", "check HTTPS_PROXY"
    elif isinstance(exc, urllib3.exceptions.NameResolutionError):
        message, hint = f"the name of {server} cannot be resolved", "check the network or VPN"
    elif isinstance(exc, refused):
        message, hint = f"no connection to {server}", "check the network, VPN or proxy"
    elif isinstance(exc, urllib3.exceptions.SSLError | ssl.SSLError):
        message = f"no TLS connection to {server}"
        if "certificate" in str(exc).lower():
            message = f"the certificate of {server} is not trusted"
            hint = "set ca_file in the configuration to your company's CA file"
    return UnavailableError(message, hint=hint)
