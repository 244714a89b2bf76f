"""Which IAM action on which resources a request is (Service Authorization Reference), for what is built here.

None means: not mapped. A session is then refused, because a request that nobody understood is not allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from credx.strict import json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.sandbox.aws.context import Value
    from credx.sandbox.aws.moto_backend import Moto
    from credx.sandbox.aws.wire import Request

LIST_PARAMETERS: Final = {
    "list-type", "prefix", "delimiter", "max-keys", "continuation-token", "start-after", "encoding-type",
    "fetch-owner", "marker",
}  # fmt: skip
READ_PARAMETERS: Final = {"partNumber", "response-content-type", "response-content-disposition"}
IAM_ROLE_READS: Final = {
    "GetRole",
    "GetRolePolicy",
    "ListRolePolicies",
    "ListAttachedRolePolicies",
    "ListRoleTags",
}
IAM_READS: Final = {"ListRoles", "ListOpenIDConnectProviders", "ListPolicies", "GetAccountSummary"}
SSM_UNSCOPED: Final = {"DescribeInstanceInformation", "DescribeSessions", "DescribeParameters"}
SSM_SESSION: Final = {"ResumeSession", "TerminateSession"}
DEFAULT_DOCUMENT: Final = "SSM-SessionManagerRunShell"
_EC2_DESCRIBE = re.compile(r"Describe[A-Za-z]{1,60}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_./:-]{1,400}", re.ASCII)
_TARGETS: Final = (
    (re.compile(r"i-[0-9a-f]{8,17}", re.ASCII), "arn:aws:ec2:{region}:{account}:instance/{target}"),
    (re.compile(r"mi-[0-9a-f]{17}", re.ASCII), "arn:aws:ssm:{region}:{account}:managed-instance/{target}"),
)


@dataclass(frozen=True)
class Resource:
    """``keys``: condition keys that exist for this resource only, such as its tags."""

    arn: str
    keys: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """Every resource has to be allowed. ``keys``: condition keys of the request."""

    action: str
    resources: tuple[Resource, ...]
    keys: Mapping[str, Value] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


def operation(service: str, region: str, request: Request, moto: Moto) -> Operation | None:
    """What a request asks for, or None."""
    match service:
        case "s3":
            return _s3(request)
        case "ssm":
            return _ssm(request, region, moto)
        case "sts" | "iam" | "ec2":
            form = request.form()
            name = (form or {}).get("Action", "")
            return _query(service, name, form or {}, moto) if request.path == "/" else None
    return None


def _query(service: str, name: str, form: Mapping[str, str], moto: Moto) -> Operation | None:
    everything = (Resource("*"),)
    match service:
        case "sts" if name == "GetCallerIdentity":
            return Operation("sts:GetCallerIdentity", everything)
        case "ec2" if _EC2_DESCRIBE.fullmatch(name):
            return Operation("ec2:" + name, everything)
        case "iam" if name in IAM_READS:
            return Operation("iam:" + name, everything)
        case "iam" if name in IAM_ROLE_READS:
            role = form.get("RoleName", "")
            arn = moto.role_arn(role) or f"arn:aws:iam::{moto.account}:role/{role}"
            return Operation("iam:" + name, (Resource(arn),))
    return None


def s3_place(request: Request) -> tuple[str, str] | None:
    """Bucket and key of a path-style request; None for spellings that two parsers could read differently."""
    try:
        path = unquote(request.path, errors="strict")
    except ValueError:
        return None
    bucket, _, key = path.removeprefix("/").partition("/")
    steps = key.split("/")
    doubtful = "//" in path or "." in steps or ".." in steps or any(not c.isprintable() for c in path)
    if (
        doubtful
        or (key and not bucket)
        or "%2f" in request.path.lower()
        or not re.fullmatch(r"[a-z0-9.-]*", bucket)
    ):
        return None
    return bucket, key


def _s3(request: Request) -> Operation | None:
    place = s3_place(request)
    try:
        pairs = [(n, v) for n, v in request.query_pairs() if n != "x-id"]  # x-id: the SDK's own remark
    except ValueError:
        return None
    query = dict(pairs)
    if place is None or len(query) != len(pairs):
        return None
    bucket, key = place
    if key:
        found = _object_action(request, query)
        return Operation(found, (Resource(f"arn:aws:s3:::{bucket}/{key}"),)) if found else None
    if bucket:
        return _bucket_operation(request.method, Resource(f"arn:aws:s3:::{bucket}"), query)
    plain_list = request.method == "GET" and not query
    return Operation("s3:ListAllMyBuckets", (Resource("*"),)) if plain_list else None


def _bucket_operation(method: str, bucket: Resource, query: Mapping[str, str]) -> Operation | None:
    if method == "GET" and set(query) == {"location"}:
        return Operation("s3:GetBucketLocation", (bucket,))
    if method in ("GET", "HEAD") and set(query) <= LIST_PARAMETERS:
        keys = {f"s3:{name}": query[name] for name in ("prefix", "delimiter", "max-keys") if name in query}
        return Operation("s3:ListBucket", (bucket,), keys)
    return None


def _object_action(request: Request, query: Mapping[str, str]) -> str | None:
    match request.method:
        case "GET" | "HEAD" if set(query) <= READ_PARAMETERS:
            return "s3:GetObject"
        case "PUT" if not query and not _more_than_put(request):
            return "s3:PutObject"
        case "DELETE" if not query:
            return "s3:DeleteObject"
    return None


def _more_than_put(request: Request) -> bool:
    """Copies, ACLs, tags, locks and retention need further permissions that are not mapped."""
    extra = ("x-amz-copy-", "x-amz-acl", "x-amz-grant", "x-amz-tagging", "x-amz-object-lock", "x-amz-website")
    return any(name.startswith(extra) for name, _ in request.headers)


def _ssm(request: Request, region: str, moto: Moto) -> Operation | None:
    prefix, _, name = (request.header("x-amz-target") or "").partition(".")
    parameters = _json(request.body)
    if prefix != "AmazonSSM" or request.path != "/" or request.query or parameters is None:
        return None
    base = f"arn:aws:ssm:{region}:{moto.account}"
    resources: list[Resource] | None = None
    keys: dict[str, Value] = {}
    if name in SSM_UNSCOPED:
        resources = [Resource("*")]
    elif name == "StartSession":
        target = _target(parameters.get("Target"), region, moto)
        document = parameters.get("DocumentName", DEFAULT_DOCUMENT)
        if target is not None and isinstance(document, str) and _NAME.fullmatch(document):
            owner = "" if document.startswith("AWS-") else moto.account  # AWS's own documents: no account
            resources = [target, Resource(f"arn:aws:ssm:{region}:{owner}:document/{document}")]
            keys = {"ssm:SessionDocumentAccessCheck": "true"}
    elif name == "GetConnectionStatus":
        target = _target(parameters.get("Target"), region, moto)
        resources = None if target is None else [target]
    elif name in SSM_SESSION:
        session = parameters.get("SessionId")
        resources = [Resource(f"{base}:session/{session}")] if _plain(session) else None
    elif name in ("GetParameter", "GetParameters", "GetParametersByPath"):
        asked = parameters.get("Names", [parameters.get("Name", parameters.get("Path"))])
        if isinstance(asked, list) and asked and all(_plain(a) and not a.startswith("arn:") for a in asked):
            resources = [Resource(f"{base}:parameter/{a.partition(':')[0].removeprefix('/')}") for a in asked]
    return None if resources is None else Operation("ssm:" + name, tuple(resources), keys, parameters)


def _plain(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _target(target: Any, region: str, moto: Moto) -> Resource | None:
    if not isinstance(target, str):
        return None
    for pattern, arn in _TARGETS:
        if pattern.fullmatch(target):
            _, tags = moto.instances(region).get(target, ("", {}))
            keys = {
                f"{key}:resourceTag/{name}": value for name, value in tags.items() for key in ("ssm", "aws")
            }
            return Resource(arn.format(region=region, account=moto.account, target=target), keys)
    return None


def _json(body: bytes) -> dict[str, Any] | None:
    """A JSON object without twins: moto parses the same bytes again and must see the same."""
    try:
        return json_object(body or b"{}")
    except ValueError:
        return None
