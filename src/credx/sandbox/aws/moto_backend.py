"""moto behind the front: its IAM state to read, its services to call, its rubbish to take away.

moto keeps its state in the process, by account; every call goes through one lock because moto has none.
moto is imported when it is first needed: EC2 alone takes the better part of a second.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from werkzeug.test import EnvironBuilder, run_wsgi_app

from credx.sandbox.aws.tokens import Provider
from credx.sandbox.aws.wire import Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICES: Final = ("iam", "s3", "ec2", "ssm")
_FORWARDED = re.compile(
    r"authorization|accept|range|if-[a-z-]+|content-(?:type|md5|encoding|language|disposition)|cache-control"
    r"|expires|x-amz-[a-z0-9-]+",
    re.ASCII,
)
_NOT_FORWARDED: Final = {"x-amz-security-token", "x-amz-content-sha256"}


@dataclass(frozen=True, kw_only=True)
class Role:
    """What IAM holds of one role. ``policies`` and ``trust`` are documents as they were put."""

    arn: str
    name: str
    id: str
    trust: str
    policies: tuple[str, ...]
    max_session_duration: int
    tags: Mapping[str, str]


class Moto:
    """One account in moto."""

    def __init__(self, account: str) -> None:
        self.account = account
        self._apps: dict[str, Any] = {}
        self._lock = threading.RLock()

    def call(self, service: str, request: Request) -> Response:
        """Let moto answer a request that is signed and authorised already."""
        with self._lock:
            chunks, status, headers = run_wsgi_app(self._app(service), self._environ(request), buffered=True)
            body = b"".join(chunks)
        return Response(int(status.split(" ", 1)[0]), tuple(headers), body)

    def role(self, arn: str) -> Role | None:
        with self._lock:
            found = [role for role in self._iam().roles.values() if role.arn == arn]
            if len(found) != 1:
                return None
            role = found[0]
            attached = [policy.document for policy in role.managed_policies.values()]
            return Role(
                arn=role.arn,
                name=role.name,
                id=role.id,
                trust=_document(role.assume_role_policy_document),
                policies=tuple(map(_document, [*role.policies.values(), *attached])),
                max_session_duration=int(role.max_session_duration or 3600),
                tags=_tags(role.tags),
            )

    def role_arn(self, name: str) -> str | None:
        with self._lock:
            return next((str(r.arn) for r in self._iam().roles.values() if r.name == name), None)

    def providers(self) -> dict[str, Provider]:
        """The account's OIDC providers by URL without scheme."""
        with self._lock:
            return {
                p.url: Provider(arn=p.arn, url=p.url, client_ids=tuple(p.client_id_list))
                for p in self._iam().open_id_providers.values()
            }

    def instances(self, region: str) -> dict[str, tuple[str, dict[str, str]]]:
        """EC2 instances of a region: id -> (state, tags)."""
        with self._lock:
            backend = _moto("ec2.models").ec2_backends[self.account][region]
            return {
                i.id: (i.state, {t["key"]: t["value"] for t in i.get_tags()}) for i in backend.all_instances()
            }

    def clear(self) -> None:
        """Forget the account. S3's own reset would close every account's objects, so it is not used."""
        s3, core = _moto("s3.models"), _moto("core.base_backend")
        with self._lock:
            for tracked in list(s3.FakeKey.instances_tracked):
                if tracked.account_id == self.account:
                    tracked.dispose()
                    with contextlib.suppress(ValueError):
                        s3.FakeKey.instances_tracked.remove(tracked)
            for bucket, (_, account) in list(s3.s3_backends.bucket_accounts.items()):
                if account == self.account:
                    del s3.s3_backends.bucket_accounts[bucket]
            for backends in list(core.BackendDict._instances):  # noqa: SLF001 -- moto has no public way
                backends.pop(self.account, None)

    def _iam(self) -> Any:
        from moto.iam.models import iam_backends  # noqa: PLC0415 -- see the module's first lines

        return iam_backends[self.account]["aws"]

    def _app(self, service: str) -> Any:
        if service not in self._apps:
            self._apps[service] = _moto("moto_server.werkzeug_app").create_backend_app(service)
        return self._apps[service]

    def _environ(self, request: Request) -> dict[str, Any]:
        """Only listed headers pass: moto takes account, region and operation from others if they are there."""
        headers = [(n, v) for n, v in request.headers if _FORWARDED.fullmatch(n) and n not in _NOT_FORWARDED]
        headers.append(("x-moto-account-id", self.account))
        builder = EnvironBuilder(
            method=request.method,
            path=request.path,
            query_string=request.query,
            headers=headers,
            data=request.body,
            base_url="http://127.0.0.1",
        )
        environ = builder.get_environ()
        builder.close()
        environ["CONTENT_LENGTH"] = str(len(request.body))
        environ["RAW_URI"] = environ["REQUEST_URI"] = request.path + (
            "?" + request.query if request.query else ""
        )
        return environ


def _moto(module: str) -> Any:
    return importlib.import_module("moto." + module)


def _document(raw: Any) -> str:
    return raw if isinstance(raw, str) else json.dumps(raw)


def _tags(raw: Any) -> dict[str, str]:
    """Moto keeps role tags as a list of pairs or as a mapping of them."""
    pairs = raw.values() if isinstance(raw, dict) else (raw or [])
    return {pair["Key"]: pair["Value"] for pair in pairs}
