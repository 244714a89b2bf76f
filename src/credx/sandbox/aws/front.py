"""The sandbox's AWS: one loopback endpoint for STS, IAM, S3, EC2 and SSM.

Every request is AssumeRoleWithWebIdentity with a token that holds, or carries a SigV4 signature by a key
that this world issued; a session then does what role policies and session policy both allow.

Where it differs from AWS:

- An OIDC provider may be http on loopback with a port (AWS: https, no port); its keys are fetched per call.
- Web-identity tokens need ``kid`` and RS256 or ES256; AssumeRoleWithWebIdentity takes a POST form alone.
- IAM changes count at once. Packed size is measured against a stand-in for AWS's undisclosed limit.
- No presigned URLs, no chunked uploads, no managed session policies, no role chaining, no IAM users.
- No resource policies (bucket policies), boundaries, organisation policies. One account, partition ``aws``.
- The administrator's key stands for the account's root user and is not subject to policies.
- A condition operator or key that the evaluator does not know refuses: see ``context``.

moto keeps state per process and account: two fronts of one account cannot run in one process.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import boto3
import botocore.session
from botocore.config import Config

from credx.http import Http
from credx.sandbox.aws.actions import Operation, operation
from credx.sandbox.aws.authorize import authorize
from credx.sandbox.aws.faults import AwsFault, Mishap, fault, render
from credx.sandbox.aws.moto_backend import SERVICES, Moto
from credx.sandbox.aws.sessions import Keys
from credx.sandbox.aws.signature import claimed_scope, verify
from credx.sandbox.aws.ssm import session_manager
from credx.sandbox.aws.sts import assume_role_with_web_identity, get_caller_identity
from credx.sandbox.aws.wire import Request, Response, Server
from credx.sandbox.scenario import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Callable

    from credx.sandbox.aws.sessions import Key
    from credx.sandbox.aws.signature import Scope

FETCH_SECONDS: Final = 5.0  # about how long STS is said to wait for an issuer; AWS does not tell

_log = logging.getLogger("credx.sandbox.aws")


class AwsFront:
    """One AWS account on 127.0.0.1.

    Args:
        now: seconds since 1970; tests move it to let sessions expire.
        account: twelve digits.
        fetch: GET for discovery and keys; raises ``UnavailableError`` or ``ValueError``.
    """

    _running: ClassVar[set[str]] = set()
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        *,
        account: str = ACCOUNT,
        fetch: Callable[[str], bytes] | None = None,
    ) -> None:
        self.account = account
        self.keys = Keys()
        self._now = now
        self._fetch = fetch or partial(fetch_document, Http(environ={}))  # no proxy
        self._moto = Moto(account)
        self._server: Server | None = None

    def start(self) -> None:
        """Serve from now on.

        Raises:
            RuntimeError: a front of this account runs in this process already.
        """
        with self._guard:
            if self.account in self._running:
                raise RuntimeError(f"a sandbox AWS with account {self.account} runs in this process already")
            self._running.add(self.account)
        self._server = Server(self.handle)
        self._server.start()

    def stop(self) -> None:
        """Stop serving and forget the account's state. Twice is harmless."""
        if self._server is None:
            return
        self._server.stop()
        self._server = None
        self._moto.clear()
        with self._guard:
            self._running.discard(self.account)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The endpoint for every service, for ``AWS_ENDPOINT_URL``."""
        if self._server is None:
            raise RuntimeError("the sandbox AWS is not started")
        return f"http://127.0.0.1:{self._server.port}"

    def admin_client(self, service: str, region: str = "us-east-1") -> Any:
        """A boto3 client with the administrator's key; reads no AWS file, no AWS variable, no proxy."""
        nowhere = {"config_file": os.devnull, "credentials_file": os.devnull, "profile": None}
        core = botocore.session.Session(
            session_vars={name: (None, None, value, None) for name, value in nowhere.items()}
        )
        admin = self.keys.admin
        session: Any = boto3.Session(botocore_session=core)
        return session.client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id=admin.access_key_id,
            aws_secret_access_key=admin.secret.reveal(),
            config=Config(proxies={}, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def handle(self, request: Request) -> Response:
        """Answer one request; nothing escapes as an exception."""
        service = _spoken(request)
        try:
            return self._answer(request)
        except AwsFault as found:
            _log.warning("%s %s: %s", service, found.code, _one_line(found.detail))
            return render(service, found)
        except Exception:  # noqa: BLE001 -- the edge: a fault of moto must not end the connection
            _log.exception("%s: the sandbox failed", service)
            return render(service, AwsFault("InternalFailure", 500, "the sandbox failed; its log says why"))

    def _answer(self, request: Request) -> Response:
        now = self._now()
        if (request.form() or {}).get("Action") == "AssumeRoleWithWebIdentity":
            return assume_role_with_web_identity(
                request, moto=self._moto, keys=self.keys, fetch=self._fetch, now=now
            )
        scope = claimed_scope(request, _spoken(request))
        key = verify(request, scope, self.keys, now=now)
        service = scope.service
        if any("_" in name for name, _ in request.headers):
            raise fault(
                service, Mishap.NOT_BUILT, "header names with underscores are not part of this sandbox"
            )
        asked = operation(service, scope.region, request, self._moto)
        self._authorize(key, asked, scope, client=request.client, now=now)
        if asked is not None and asked.action == "sts:GetCallerIdentity":
            return get_caller_identity(key, self.account)
        answer = session_manager(asked, moto=self._moto, region=scope.region) if asked else None
        if answer is not None:
            return answer
        if service not in SERVICES:
            raise fault(service, Mishap.NOT_BUILT, f"{service}: not part of this sandbox")
        return self._moto.call(service, request)

    def _authorize(self, key: Key, asked: Operation | None, scope: Scope, *, client: str, now: float) -> None:
        if key.session is None:
            return
        if asked is None:
            who = key.session.arn
            message = f"User: {who} is not authorized: the sandbox does not map this request to an action"
            raise fault(scope.service, Mishap.DENIED, message)
        if asked.action != "sts:GetCallerIdentity":
            authorize(key.session, asked, moto=self._moto, region=scope.region, client=client, now=now)


def fetch_document(http: Http, url: str) -> bytes:
    """GET one document of an issuer.

    Raises:
        UnavailableError: no answer in time, a redirect, or more than 64 KiB.
        ValueError: another status than 200.
    """
    answer = http.request("GET", url, deadline=FETCH_SECONDS)
    if answer.status != 200:
        raise ValueError(f"{url}: status {answer.status}")
    return answer.body


def _spoken(request: Request) -> str:
    """The service whose error format the caller will understand, from what the request claims."""
    if request.header("x-amz-target"):
        return "ssm"  # or another service with JSON answers
    credential = (request.header("authorization") or "").partition("Credential=")[2].split("/")
    if len(credential) > 3:
        return credential[3] if credential[3].isascii() and credential[3].isalnum() else "s3"
    return "sts" if request.form() else "s3"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:500]
