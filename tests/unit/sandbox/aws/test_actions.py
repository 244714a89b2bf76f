"""Requests to actions and resources. What is not understood is None, and None is refused."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from credx.sandbox.aws.actions import Operation, operation
from credx.sandbox.aws.moto_backend import Moto
from credx.sandbox.aws.wire import Request

ACCOUNT = "111122223333"
FORM = (("content-type", "application/x-www-form-urlencoded"),)


class NoMoto(Moto):
    def instances(self, region: str) -> dict[str, tuple[str, dict[str, str]]]:
        return {"i-0123456789abcdef0": ("running", {"env": "prod"})} if region == "eu-central-1" else {}

    def role_arn(self, name: str) -> str | None:
        return f"arn:aws:iam::{ACCOUNT}:role/eng/{name}" if name == "prod" else None


def s3(method: str, path: str, query: str = "", *headers: tuple[str, str]) -> Operation | None:
    return operation("s3", "us-east-1", Request(method, path, query, headers, b""), NoMoto(ACCOUNT))


def ssm(name: str, body: Any, prefix: str = "AmazonSSM") -> Operation | None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request("POST", "/", "", (("x-amz-target", f"{prefix}.{name}"),), data)
    return operation("ssm", "eu-central-1", request, NoMoto(ACCOUNT))


def form(
    service: str, body: str, headers: tuple[tuple[str, str], ...] = FORM, path: str = "/"
) -> Operation | None:
    return operation(service, "us-east-1", Request("POST", path, "", headers, body.encode()), NoMoto(ACCOUNT))


@pytest.mark.parametrize(
    ("method", "path", "query", "action", "arn"),
    [
        ("GET", "/", "", "ListAllMyBuckets", "*"),
        ("GET", "/logs", "list-type=2&prefix=a%2F", "ListBucket", "arn:aws:s3:::logs"),
        ("GET", "/logs/", "", "ListBucket", "arn:aws:s3:::logs"),
        ("HEAD", "/logs", "", "ListBucket", "arn:aws:s3:::logs"),
        ("GET", "/logs", "location", "GetBucketLocation", "arn:aws:s3:::logs"),
        ("GET", "/logs/a/b%20c", "", "GetObject", "arn:aws:s3:::logs/a/b c"),
        ("HEAD", "/logs/a", "", "GetObject", "arn:aws:s3:::logs/a"),
        ("GET", "/logs/a", "x-id=GetObject", "GetObject", "arn:aws:s3:::logs/a"),
        ("PUT", "/logs/a", "", "PutObject", "arn:aws:s3:::logs/a"),
        ("DELETE", "/logs/a", "", "DeleteObject", "arn:aws:s3:::logs/a"),
    ],
)
def test_s3(method: str, path: str, query: str, action: str, arn: str) -> None:
    found = s3(method, path, query)
    assert found is not None
    assert (found.action, [r.arn for r in found.resources]) == (f"s3:{action}", [arn])


def test_s3_listing_says_what_it_lists() -> None:
    found = s3("GET", "/logs", "list-type=2&prefix=a%2Fb&delimiter=%2F")
    assert found is not None
    assert found.keys == {"s3:prefix": "a/b", "s3:delimiter": "/"}


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/logs/a", "acl"),
        ("GET", "/logs/a", "versionId=1"),
        ("GET", "/logs", "policy"),
        ("GET", "/logs", "prefix=a&prefix=b"),
        ("GET", "/logs", "prefix=%ff"),
        ("PUT", "/logs", ""),
        ("DELETE", "/logs", ""),
        ("POST", "/logs", "delete"),
        ("POST", "/logs/a", "uploads"),
        ("PUT", "/logs/a", "partNumber=1&uploadId=x"),
        ("PUT", "/logs/a", "tagging"),
        ("GET", "//logs/a", ""),
        ("GET", "/logs//a", ""),
        ("GET", "/logs/../data/a", ""),
        ("GET", "/logs/%2e%2e/data", ""),
        ("GET", "/logs%2Fa", ""),
        ("GET", "/logs/a%00", ""),
        ("GET", "/lo*/a", ""),
        ("GET", "/logs/%ff", ""),
        ("OPTIONS", "/logs/a", ""),
        ("GET", "/moto-api/reset", "x"),
    ],
)
def test_s3_requests_that_are_not_understood(method: str, path: str, query: str) -> None:
    assert s3(method, path, query) is None


@pytest.mark.parametrize("name", ["x-amz-copy-source", "x-amz-acl", "x-amz-grant-read", "x-amz-tagging"])
def test_a_put_that_is_more_than_a_put(name: str) -> None:
    assert s3("PUT", "/logs/a", "", (name, "x")) is None


def test_start_session_is_about_target_and_document() -> None:
    found = ssm("StartSession", {"Target": "i-0123456789abcdef0"})
    assert found is not None
    target, document = found.resources
    assert target.arn == f"arn:aws:ec2:eu-central-1:{ACCOUNT}:instance/i-0123456789abcdef0"
    assert target.keys == {"ssm:resourceTag/env": "prod", "aws:resourceTag/env": "prod"}
    assert document.arn == f"arn:aws:ssm:eu-central-1:{ACCOUNT}:document/SSM-SessionManagerRunShell"
    assert document.keys == {}
    found = ssm("StartSession", {"Target": "mi-0123456789abcdef0", "DocumentName": "AWS-StartSSHSession"})
    assert found is not None
    assert [r.arn for r in found.resources] == [
        f"arn:aws:ssm:eu-central-1:{ACCOUNT}:managed-instance/mi-0123456789abcdef0",
        "arn:aws:ssm:eu-central-1::document/AWS-StartSSHSession",
    ]


@pytest.mark.parametrize(
    ("name", "body", "arns"),
    [
        ("TerminateSession", {"SessionId": "alice-1"}, ["session/alice-1"]),
        ("ResumeSession", {"SessionId": "alice-1"}, ["session/alice-1"]),
        ("GetParameter", {"Name": "/a/b"}, ["parameter/a/b"]),
        ("GetParameter", {"Name": "a:3"}, ["parameter/a"]),
        ("GetParameters", {"Names": ["a", "/b"]}, ["parameter/a", "parameter/b"]),
        ("GetParametersByPath", {"Path": "/a"}, ["parameter/a"]),
    ],
)
def test_ssm_resources(name: str, body: Any, arns: list[str]) -> None:
    found = ssm(name, body)
    assert found is not None
    assert [r.arn for r in found.resources] == [f"arn:aws:ssm:eu-central-1:{ACCOUNT}:{a}" for a in arns]


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("StartSession", {}),
        ("StartSession", {"Target": "i-1*"}),
        ("StartSession", {"Target": ["i-0123456789abcdef0"]}),
        ("StartSession", {"Target": "i-0123456789abcdef0\n"}),
        ("StartSession", {"Target": "i-0123456789abcdef0", "DocumentName": "a b"}),
        ("StartSession", b'{"Target":"i-0123456789abcdef0","Target":"i-0123456789abcdef1"}'),
        ("StartSession", b"[]"),
        ("StartSession", b"\xff"),
        ("SendCommand", {"InstanceIds": ["i-0123456789abcdef0"]}),
        ("GetParameter", {"Name": "arn:aws:ssm:eu-central-1:1:parameter/x"}),
        ("GetParameters", {"Names": []}),
        ("TerminateSession", {"SessionId": "a*"}),
    ],
)
def test_ssm_requests_that_are_not_understood(name: str, body: Any) -> None:
    assert ssm(name, body) is None


@pytest.mark.parametrize(
    ("service", "body", "action", "arn"),
    [
        ("sts", "Action=GetCallerIdentity", "sts:GetCallerIdentity", "*"),
        ("ec2", "Action=DescribeInstances&InstanceId.1=i-1", "ec2:DescribeInstances", "*"),
        ("iam", "Action=ListRoles", "iam:ListRoles", "*"),
        ("iam", "Action=GetRole&RoleName=prod", "iam:GetRole", f"arn:aws:iam::{ACCOUNT}:role/eng/prod"),
        ("iam", "Action=GetRole&RoleName=none", "iam:GetRole", f"arn:aws:iam::{ACCOUNT}:role/none"),
    ],
)
def test_query_services(service: str, body: str, action: str, arn: str) -> None:
    found = form(service, body)
    assert found is not None
    assert (found.action, [r.arn for r in found.resources]) == (action, [arn])


@pytest.mark.parametrize(
    ("service", "body"),
    [
        ("sts", "Action=AssumeRole"),
        ("sts", "Action=GetSessionToken"),
        ("ec2", "Action=RunInstances"),
        ("ec2", "Action=DescribeInstances&Action=RunInstances"),
        ("ec2", "Action=describeInstances"),
        ("iam", "Action=PutRolePolicy&RoleName=prod"),
        ("dynamodb", "Action=ListTables"),
        ("iam", quote("Action=ListRoles")),
    ],
)
def test_query_requests_that_are_not_understood(service: str, body: str) -> None:
    assert form(service, body) is None


def test_a_form_must_say_so_and_go_to_the_root() -> None:
    assert form("ec2", "Action=DescribeInstances", ()) is None
    assert form("ec2", "Action=DescribeInstances", FORM, "/other") is None
