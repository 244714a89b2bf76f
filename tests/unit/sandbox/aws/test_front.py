"""The whole front through real boto3 clients: who may do what, and how a refusal reads in each protocol."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError
from support.aws import put_role

from credx.errors import UnavailableError
from credx.http import Http
from credx.sandbox.aws.front import AwsFront, fetch_document
from credx.sandbox.aws.policy import parse_policy
from credx.sandbox.aws.sessions import Key, Session
from credx.sandbox.aws.wire import Request, Response, Server

ACCOUNT = "222233334444"
REGION = "eu-central-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/eng/prod"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["s3:ListAllMyBuckets", "ec2:Describe*", "iam:Get*"], "Resource": "*"},
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::logs", "arn:aws:s3:::logs/*"]},
        {"Effect": "Deny", "Action": "s3:DeleteObject", "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": "ssm:StartSession",
            "Resource": "arn:aws:ec2:*:*:instance/${aws:PrincipalTag/credx-target}",
            "Condition": {"StringEquals": {"ssm:resourceTag/env": "prod"}},
        },
        {"Effect": "Allow", "Action": "ssm:StartSession", "Resource": "arn:aws:ssm:*:*:document/SSM-*"},
        {
            "Effect": "Allow",
            "Action": ["ssm:DescribeInstanceInformation", "ssm:DescribeSessions"],
            "Resource": "*",
        },
    ],
}


class Clock:
    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def aws(clock: Clock) -> Iterator[AwsFront]:
    with AwsFront(clock, account=ACCOUNT) as front:
        s3 = front.admin_client("s3")
        for bucket in ("logs", "data"):
            s3.create_bucket(Bucket=bucket)
            s3.put_object(Bucket=bucket, Key="a b+c/é.txt", Body=b"hello")
        put_role(front, ROLE, trust={"Version": "2012-10-17", "Statement": []}, policies={"main": POLICY})
        yield front


@pytest.fixture(scope="module")
def instances(aws: AwsFront) -> list[str]:
    ec2 = aws.admin_client("ec2", REGION)

    def launch(env: str) -> str:
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "env", "Value": env}]}]
        answer = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, TagSpecifications=tags)
        return str(answer["Instances"][0]["InstanceId"])

    return [launch("prod"), launch("prod"), launch("dev")]


@pytest.fixture
def issue(aws: AwsFront, clock: Clock) -> Callable[..., Key]:
    def make(
        policy: dict[str, Any] | None = None, tags: dict[str, str] | None = None, life: int = 3600
    ) -> Key:
        role = aws._moto.role(ROLE)
        assert role is not None
        session = Session(
            role_arn=ROLE,
            role_id=role.id,
            name="alice-0001",
            arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/prod/alice-0001",
            provider_arn=f"arn:aws:iam::{ACCOUNT}:oidc-provider/broker",
            source_identity="alice",
            tags=tags or {},
            policy=parse_policy(json.dumps(policy), "session") if policy else None,
            issued_at=int(clock()),
            expires_at=int(clock()) + life,
        )
        return aws.keys.issue(session)

    return make


def client(aws: AwsFront, service: Any, key: Key, *, secret: str | None = None) -> Any:
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=aws.url,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=secret or key.secret.reveal(),
        aws_session_token=key.token.reveal() if key.token else None,
        config=Config(retries={"total_max_attempts": 1}),
    )


def refusal(call: Callable[..., Any], **parameters: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def allow(action: str, resource: str = "*") -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}],
    }


def test_what_the_role_allows_works(aws: AwsFront, issue: Callable[..., Key]) -> None:
    key = issue()
    s3 = client(aws, "s3", key)
    assert s3.get_object(Bucket="logs", Key="a b+c/é.txt")["Body"].read() == b"hello"
    assert s3.head_object(Bucket="logs", Key="a b+c/é.txt")["ContentLength"] == 5
    s3.put_object(Bucket="logs", Key="new", Body=b"x" * 100_000)
    assert [o["Key"] for o in s3.list_objects_v2(Bucket="logs", Prefix="n")["Contents"]] == ["new"]
    assert {b["Name"] for b in s3.list_buckets()["Buckets"]} == {"logs", "data"}
    assert client(aws, "iam", key).get_role(RoleName="prod")["Role"]["Arn"] == ROLE
    who = client(aws, "sts", key).get_caller_identity()
    assert (who["Account"], who["Arn"]) == (ACCOUNT, key.session and key.session.arn)


def test_what_the_role_does_not_allow_or_denies(aws: AwsFront, issue: Callable[..., Key]) -> None:
    s3 = client(aws, "s3", issue())
    code, message = refusal(s3.get_object, Bucket="data", Key="a")
    assert code == "AccessDenied"
    assert message == (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/prod/alice-0001 is not authorized to perform: s3:GetObject"
        " on resource: arn:aws:s3:::data/a because no identity-based policy allows the s3:GetObject action"
    )
    code, message = refusal(s3.delete_object, Bucket="logs", Key="new")
    assert (code, message.partition(" with ")[2]) == (
        "AccessDenied",
        "an explicit deny in an identity-based policy",
    )


def test_a_session_policy_narrows_and_never_adds(aws: AwsFront, issue: Callable[..., Key]) -> None:
    narrow = client(aws, "s3", issue(allow("s3:GetObject", "arn:aws:s3:::logs/a*")))
    assert narrow.get_object(Bucket="logs", Key="a b+c/é.txt")
    code, message = refusal(narrow.get_object, Bucket="logs", Key="new")
    assert (code, message.partition(" because ")[2]) == (
        "AccessDenied",
        "no session policy allows the s3:GetObject action",
    )
    wide = client(aws, "s3", issue(allow("*")))
    assert refusal(wide.get_object, Bucket="data", Key="a")[0] == "AccessDenied"


def test_how_each_protocol_says_no(aws: AwsFront, issue: Callable[..., Key]) -> None:
    key = issue(allow("s3:*"))
    code, message = refusal(client(aws, "ec2", key).describe_instances)
    assert code == "UnauthorizedOperation"
    assert "ec2:DescribeInstances because no session policy" in message
    assert refusal(client(aws, "ssm", key).describe_sessions, State="Active")[0] == "AccessDeniedException"
    assert refusal(client(aws, "iam", key).get_role, RoleName="prod")[0] == "AccessDenied"


def test_only_the_tagged_target(aws: AwsFront, issue: Callable[..., Key], instances: list[str]) -> None:
    mine, other, dev = instances
    ssm = client(aws, "ssm", issue(tags={"credx-target": mine}))
    assert refusal(ssm.start_session, Target=mine)[0] == "TargetNotConnected"
    assert refusal(ssm.start_session, Target=other)[0] == "AccessDeniedException"
    code, message = refusal(ssm.start_session, Target=mine, DocumentName="AWS-StartSSHSession")
    assert code == "AccessDeniedException"
    assert "document/AWS-StartSSHSession" in message
    tagged_dev = client(aws, "ssm", issue(tags={"credx-target": dev}))
    assert refusal(tagged_dev.start_session, Target=dev)[0] == "AccessDeniedException"
    assert refusal(client(aws, "ssm", issue()).start_session, Target=mine)[0] == "AccessDeniedException"
    star = client(aws, "ssm", issue(tags={"credx-target": "*"}))
    assert refusal(star.start_session, Target=mine)[0] == "AccessDeniedException"


def test_session_manager_without_an_agent(aws: AwsFront, instances: list[str]) -> None:
    ssm = aws.admin_client("ssm", REGION)
    listed = ssm.describe_instance_information()["InstanceInformationList"]
    assert {i["InstanceId"] for i in listed} == set(instances)
    assert ssm.get_connection_status(Target=instances[0])["Status"] == "notconnected"
    assert ssm.describe_sessions(State="Active")["Sessions"] == []
    assert refusal(ssm.terminate_session, SessionId="alice-1")[0] == "DoesNotExistException"
    assert (
        refusal(ssm.describe_instance_information, Filters=[{"Key": "x", "Values": ["y"]}])[0]
        == "NotImplemented"
    )


@pytest.mark.parametrize(
    ("service", "call", "codes"),
    [
        ("sts", "get_caller_identity", ("ExpiredToken", "InvalidClientTokenId", "SignatureDoesNotMatch")),
        ("s3", "list_buckets", ("ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch")),
        ("ec2", "describe_instances", ("RequestExpired", "AuthFailure", "AuthFailure")),
        (
            "ssm",
            "describe_instance_information",
            ("ExpiredTokenException", "UnrecognizedClientException", "InvalidSignatureException"),
        ),
    ],
)
def test_expired_unknown_and_tampered(
    aws: AwsFront,
    clock: Clock,
    issue: Callable[..., Key],
    *,
    service: str,
    call: str,
    codes: tuple[str, str, str],
) -> None:
    expired, unknown, tampered = codes
    key = issue(life=600)
    try:
        clock.ahead = 590
        getattr(client(aws, service, key), call)()
        clock.ahead = 601
        assert refusal(getattr(client(aws, service, key), call))[0] == expired
    finally:
        clock.ahead = 0
    stranger = Key(access_key_id="ASIA" + "A" * 16, secret=key.secret, token=key.token, session=None)
    assert refusal(getattr(client(aws, service, stranger), call))[0] == unknown
    assert refusal(getattr(client(aws, service, key, secret="x" * 40), call))[0] == tampered


def test_sessions_cannot_reach_what_is_not_mapped(aws: AwsFront, issue: Callable[..., Key]) -> None:
    key = issue()
    assert refusal(client(aws, "s3", key).get_bucket_policy, Bucket="logs")[0] == "AccessDenied"
    sts = client(aws, "sts", key)
    assert refusal(sts.get_session_token)[0] == "AccessDenied"
    assert refusal(sts.assume_role, RoleArn=ROLE, RoleSessionName="chain")[0] == "AccessDenied"
    assert refusal(client(aws, "iam", key).delete_role, RoleName="prod")[0] == "AccessDenied"
    assert refusal(client(aws, "dynamodb", key).list_tables)[0] == "AccessDenied"


def test_nobody_reaches_motos_own_interfaces(aws: AwsFront) -> None:
    for path in ("/moto-api/reset", "/moto-api/data.json", "/latest/meta-data/iam", "/logs/a"):
        for method in ("GET", "POST"):
            answer = urllib3.request(
                method, aws.url + path, headers={"x-moto-account-id": ACCOUNT}, retries=False
            )
            assert answer.status == 403
    assert aws.admin_client("s3").list_buckets()["Buckets"]


def test_headers_that_moto_obeys_do_not_reach_it(aws: AwsFront) -> None:
    iam = aws.admin_client("iam")

    def elsewhere(request: Any, **_: Any) -> None:
        request.headers["x-moto-account-id"] = "999900001111"

    iam.meta.events.register("before-sign.iam.*", elsewhere)
    assert iam.get_role(RoleName="prod")["Role"]["Arn"] == ROLE


def test_a_session_ends_with_its_role(aws: AwsFront, issue: Callable[..., Key]) -> None:
    old = issue()
    iam = aws.admin_client("iam")
    iam.delete_role_policy(RoleName="prod", PolicyName="main")
    iam.delete_role(RoleName="prod")
    assert refusal(client(aws, "s3", old).list_buckets)[0] == "InvalidAccessKeyId"
    put_role(aws, ROLE, trust={"Version": "2012-10-17", "Statement": []}, policies={"main": POLICY})
    assert refusal(client(aws, "s3", old).list_buckets)[0] == "InvalidAccessKeyId"
    assert client(aws, "s3", issue()).list_buckets()


def test_a_role_is_read_as_it_is_now(aws: AwsFront, issue: Callable[..., Key]) -> None:
    iam = aws.admin_client("iam")
    s3 = client(aws, "s3", issue())
    revoke = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Action": "*",
                "Resource": "*",
                "Condition": {"DateLessThan": {"aws:TokenIssueTime": "2099-01-01T00:00:00Z"}},
            }
        ],
    }
    iam.put_role_policy(
        RoleName="prod", PolicyName="AWSRevokeOlderSessions", PolicyDocument=json.dumps(revoke)
    )
    try:
        assert refusal(s3.list_buckets)[0] == "AccessDenied"
    finally:
        iam.delete_role_policy(RoleName="prod", PolicyName="AWSRevokeOlderSessions")
    assert s3.list_buckets()


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"aws:SourceIdentity": "alice"}},
        {"StringLike": {"aws:userid": "AROA*:alice-0001"}},
        {"ArnEquals": {"aws:PrincipalArn": ROLE}},
        {"StringEquals": {"aws:RequestedRegion": REGION, "aws:PrincipalAccount": ACCOUNT}},
        {"Bool": {"aws:SecureTransport": "true"}},
        {"StringEquals": {"aws:PrincipalTag/Team": "pay"}},
    ],
)
def test_global_condition_keys(aws: AwsFront, issue: Callable[..., Key], condition: dict[str, Any]) -> None:
    policy = allow("s3:ListAllMyBuckets")
    policy["Statement"][0]["Condition"] = condition
    assert client(aws, "s3", issue(policy, tags={"team": "pay"})).list_buckets()
    policy["Statement"][0]["Condition"] = {"Bool": {"aws:MultiFactorAuthPresent": "true"}}
    assert refusal(client(aws, "s3", issue(policy)).list_buckets)[0] == "AccessDenied"


def test_a_fault_inside_becomes_an_answer(aws: AwsFront, caplog: pytest.LogCaptureFixture) -> None:
    broken = AwsFront(lambda: 1 // 0, account="999900001111")
    with caplog.at_level(logging.CRITICAL, logger="credx.sandbox.aws"):
        answer = broken.handle(Request("GET", "/", "", (), b""))
    assert answer.status == 500
    assert b"InternalFailure" in answer.body


def test_one_front_per_account_and_a_clean_slate_after_it(aws: AwsFront) -> None:
    with pytest.raises(RuntimeError, match="already"):
        AwsFront(account=ACCOUNT).start()
    for _ in range(2):
        with AwsFront(account="444455556666") as front:
            assert front.admin_client("s3").list_buckets()["Buckets"] == []
            front.admin_client("s3").create_bucket(Bucket="mine")
            front.admin_client("s3").put_object(Bucket="mine", Key="k", Body=b"x")
    front.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = front.url


def test_fetching_an_issuers_documents() -> None:
    def answer(request: Request) -> Response:
        match request.path:
            case "/good":
                return Response(200, (), b"{}")
            case "/moved":
                return Response(302, (("Location", "/good"),), b"")
            case "/long":
                return Response(200, (), b"x" * 70_000)
        return Response(404, (), b"")

    server = Server(answer)
    server.start()
    base = f"http://127.0.0.1:{server.port}"
    http = Http(environ={})
    assert fetch_document(http, base + "/good") == b"{}"
    with pytest.raises(ValueError):
        fetch_document(http, base + "/none")
    for path in ("/moved", "/long"):
        with pytest.raises(UnavailableError):
            fetch_document(http, base + path)
    server.stop()
    with pytest.raises(UnavailableError):
        fetch_document(Http(environ={}), base + "/good")


def test_bodies_without_a_length_or_too_long_are_not_read(aws: AwsFront) -> None:
    chunked = urllib3.request("POST", aws.url, body=iter([b"a", b"b"]), retries=False)
    assert chunked.status in (411, 413)
    long = {"content-length": str(17 * 1024 * 1024)}
    assert urllib3.request("POST", aws.url, headers=long, retries=False).status == 413
