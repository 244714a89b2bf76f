"""The sandbox's STS refuses what AWS refuses; each test is one claim, made through a real boto3 client."""

import base64
import copy
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import boto3
import pytest
import urllib3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey
from support.aws import put_role, register_provider

from credx.errors import UnavailableError
from credx.sandbox.aws.front import AwsFront

ACCOUNT = "333344445555"
ISSUER = "http://localhost:4999/broker"
URL = ISSUER.partition("://")[2]
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{URL}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/prod"
AWS = "https://aws.amazon.com/"
AUDIENCE = f"credx:aws:{ACCOUNT}"


class Issuer:
    def __init__(self) -> None:
        self.rsa = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
        self.other = RSAKey.generate_key(2048, {"kid": "one"})
        self.ec = ECKey.generate_key("P-256", {"kid": "two"})
        self.reset()

    def reset(self) -> None:
        self.jwks = [self.rsa.as_dict(private=False), self.ec.as_dict(private=False)]
        self.discovery = {"issuer": ISSUER, "jwks_uri": ISSUER + "/jwks"}
        self.down = False

    def fetch(self, url: str) -> bytes:
        if self.down:
            raise UnavailableError("no answer")
        documents = {
            ISSUER + "/.well-known/openid-configuration": self.discovery,
            ISSUER + "/jwks": {"keys": self.jwks},
        }
        return json.dumps(documents[url]).encode()

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "sub": "role:prod:user:alice-1234abcd",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 120,
            "amr": ["hwk", "mfa"],
            AWS + "roles": [ROLE],
            AWS + "source_identity": "alice-1234abcd",
            AWS + "tags": {"principal_tags": {"credx-role": ["prod"], "credx-target": ["i-1"]}},
        }
        for name, value in changes.items():
            if value is None:
                del claims[name]
            else:
                claims[name] = value
        return claims

    def sign(self, claims: dict[str, Any], *, key: Any = None, header: Any = None) -> str:
        payload = json.dumps(claims).encode()
        header = header or {"alg": "RS256", "kid": "one"}
        registry = jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
        return jws.serialize_compact(header, payload, key or self.rsa, registry=registry)

    def token(self, **changes: Any) -> str:
        return self.sign(self.claims(**changes))


def trust(*actions: str, condition: Any = None, principal: Any = None) -> dict[str, Any]:
    statement = {
        "Effect": "Allow",
        "Action": [f"sts:{a}" for a in actions],
        "Principal": principal or {"Federated": PROVIDER},
        "Condition": condition or {"StringEquals": {f"{URL}:aud": AUDIENCE}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


ALL = ("AssumeRoleWithWebIdentity", "TagSession", "SetSourceIdentity")


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def aws(issuer: Issuer) -> Iterator[AwsFront]:
    with AwsFront(account=ACCOUNT, fetch=issuer.fetch) as front:
        register_provider(front, ISSUER, [AUDIENCE])
        put_role(front, ROLE, trust=trust(*ALL), policies={}, max_session=7200)
        yield front


@pytest.fixture
def sts(aws: AwsFront, issuer: Issuer) -> Any:
    issuer.reset()
    config = Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}, parameter_validation=False)
    return boto3.client("sts", region_name="us-east-1", endpoint_url=aws.url, config=config)


@pytest.fixture
def role_with(aws: AwsFront) -> Iterator[Callable[..., None]]:
    iam = aws.admin_client("iam")

    def change(document: dict[str, Any] | str) -> None:
        text = document if isinstance(document, str) else json.dumps(document)
        iam.update_assume_role_policy(RoleName="prod", PolicyDocument=text)

    yield change
    change(trust(*ALL))


def assume(sts: Any, token: str, **changes: Any) -> Any:
    ask = {"RoleArn": ROLE, "RoleSessionName": "alice-0001", "WebIdentityToken": token, **changes}
    return sts.assume_role_with_web_identity(**ask)


def refused(sts: Any, token: str, code: str, status: int = 400, **changes: Any) -> str:
    with pytest.raises(ClientError) as caught:
        assume(sts, token, **changes)
    error = caught.value.response
    assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    return str(error["Error"]["Message"])


def test_a_good_token_gives_credentials_of_the_role(aws: AwsFront, sts: Any, issuer: Issuer) -> None:
    answer = assume(sts, issuer.token(), DurationSeconds=900)
    assert answer["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/prod/alice-0001"
    assert answer["SubjectFromWebIdentityToken"] == "role:prod:user:alice-1234abcd"
    assert (answer["Audience"], answer["Provider"]) == (AUDIENCE, PROVIDER)
    assert answer["SourceIdentity"] == "alice-1234abcd"
    assert 0 < answer["PackedPolicySize"] < 100
    keys = answer["Credentials"]
    assert 895 < keys["Expiration"].timestamp() - time.time() <= 900
    who = client(aws, keys, "sts").get_caller_identity()
    assert who["Arn"] == answer["AssumedRoleUser"]["Arn"]
    assert who["UserId"] == answer["AssumedRoleUser"]["AssumedRoleId"]
    assert who["UserId"].startswith("AROA")


def client(aws: AwsFront, keys: dict[str, Any], service: Any) -> Any:
    return boto3.client(
        service,
        region_name="us-east-1",
        endpoint_url=aws.url,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_es256_works_too(sts: Any, issuer: Issuer) -> None:
    assert assume(sts, issuer.sign(issuer.claims(), key=issuer.ec, header={"alg": "ES256", "kid": "two"}))


@pytest.mark.parametrize("token", ["garbage", "a.b.c", "e30.e30.e30", "x" * 19999])
def test_garbage_is_no_token(sts: Any, token: str) -> None:
    refused(sts, token, "InvalidIdentityToken")


def test_another_key_with_the_same_kid(sts: Any, issuer: Issuer) -> None:
    assert refused(sts, issuer.sign(issuer.claims(), key=issuer.other), "InvalidIdentityToken") == (
        "Token signature invalid"
    )


def test_a_changed_payload(sts: Any, issuer: Issuer) -> None:
    head, _, signature = issuer.token().split(".")
    forged = json.dumps(issuer.claims(sub="role:prod:user:mallory")).encode()
    payload = base64.urlsafe_b64encode(forged).rstrip(b"=").decode()
    refused(sts, f"{head}.{payload}.{signature}", "InvalidIdentityToken")


def test_alg_none_and_hmac_with_the_public_key(sts: Any, issuer: Issuer) -> None:
    def part(value: bytes) -> bytes:
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    payload = part(json.dumps(issuer.claims()).encode())
    none = part(b'{"alg":"none","kid":"one"}') + b"." + payload
    refused(sts, none.decode() + ".", "InvalidIdentityToken")
    refused(sts, none.decode() + ".AAAA", "InvalidIdentityToken")
    signing_input = part(b'{"alg":"HS256","kid":"one"}') + b"." + payload
    mac = hmac.HMAC(issuer.rsa.as_pem(private=False), hashes.SHA256())
    mac.update(signing_input)
    refused(sts, (signing_input + b"." + part(mac.finalize())).decode(), "InvalidIdentityToken")


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "RS256"},
        {"alg": "RS256", "kid": "nobody"},
        {"alg": "PS256", "kid": "one"},
        {"alg": "RS512", "kid": "one"},
        {"alg": "RS256", "kid": "two"},
        {"alg": "RS256", "kid": "one", "crit": ["x"], "x": 1},
    ],
)
def test_headers_that_name_no_usable_key(sts: Any, issuer: Issuer, header: dict[str, Any]) -> None:
    claims, crit = issuer.claims(), "crit" in header
    token = issuer.sign(claims, header={k: v for k, v in header.items() if k not in ("crit", "x")})
    if crit:
        raw = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        token = ".".join([raw, *token.split(".")[1:]])
    refused(sts, token, "InvalidIdentityToken")


@pytest.mark.parametrize("extra", [{"key_ops": ["verify"]}, {"use": "enc"}, {"kty": "oct", "k": "AAAA"}])
def test_a_published_key_that_aws_would_not_take(sts: Any, issuer: Issuer, extra: dict[str, Any]) -> None:
    issuer.jwks = [{**issuer.rsa.as_dict(private=False), **extra}]
    assert "verification key" in refused(sts, issuer.token(), "InvalidIdentityToken")


def test_a_private_or_short_key_in_the_jwks(sts: Any, issuer: Issuer) -> None:
    issuer.jwks = [issuer.rsa.as_dict(private=True)]
    refused(sts, issuer.token(), "InvalidIdentityToken")
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()  # noqa: S505
    modulus = base64.urlsafe_b64encode(numbers.n.to_bytes(128)).rstrip(b"=").decode()
    issuer.jwks = [{"kty": "RSA", "kid": "one", "n": modulus, "e": "AQAB"}]
    assert "verification key" in refused(sts, issuer.token(), "InvalidIdentityToken")


def test_an_issuer_that_does_not_answer_or_names_another(sts: Any, issuer: Issuer) -> None:
    issuer.discovery = {"issuer": ISSUER + "/", "jwks_uri": ISSUER + "/jwks"}
    refused(sts, issuer.token(), "InvalidIdentityToken")
    issuer.discovery = {"issuer": ISSUER, "jwks_uri": "http://keys.example.com/jwks"}
    refused(sts, issuer.token(), "InvalidIdentityToken")
    issuer.down = True
    refused(sts, issuer.token(), "IDPCommunicationError")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aud": "credx:aws:999999999999"}, "Incorrect token audience"),
        ({"aud": [AUDIENCE, "other"]}, "azp"),
        ({"azp": "somebody"}, "Incorrect token audience"),
        ({"aud": None}, "aud"),
        ({"iss": ISSUER + "/"}, "No OpenIDConnect provider"),
        ({"iss": ISSUER.upper()}, "No OpenIDConnect provider"),
        ({"iss": "ftp://" + URL}, "No OpenIDConnect provider"),
        ({"iss": 5}, "iss"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": "a\x00b"}, "sub"),
        ({"iss": "https://a\x01"}, "No OpenIDConnect provider"),
        ({"exp": None}, "exp"),
        ({"iat": None}, "iat"),
        ({"exp": time.time() + 100.5}, "integer"),
        ({"iat": True}, "integer"),
        ({"nbf": "soon"}, "integer"),
        ({"iat": int(time.time()) + 4000}, "not yet valid"),
        ({"nbf": int(time.time()) + 4000}, "not yet valid"),
        ({"amr": [1]}, "amr"),
    ],
)
def test_standard_claims(sts: Any, issuer: Issuer, changes: dict[str, Any], message: str) -> None:
    assert message in refused(sts, issuer.token(**changes), "InvalidIdentityToken")


def test_expiry_has_five_minutes_of_leeway_and_no_more(sts: Any, issuer: Issuer) -> None:
    now = int(time.time())
    assert assume(sts, issuer.token(iat=now - 400, exp=now - 280))
    refused(sts, issuer.token(iat=now - 500, exp=now - 320), "ExpiredTokenException")


@pytest.mark.parametrize(
    "roles", [[ROLE.replace("prod", "dev")], "prod", "", [], [ROLE + "*"], ROLE.upper(), ROLE[:-1]]
)
def test_a_token_for_another_role(sts: Any, issuer: Issuer, roles: object) -> None:
    message = refused(sts, issuer.token(**{AWS + "roles": roles}), "InvalidIdentityToken")
    assert message == "The target role ARN is not present in the roles claim of the identity token"


def test_a_semicolon_list_of_roles_and_no_claim_at_all(sts: Any, issuer: Issuer) -> None:
    assert assume(sts, issuer.token(**{AWS + "roles": f"{ROLE};{ROLE}2"}))
    assert assume(sts, issuer.token(**{AWS + "roles": None}))


@pytest.mark.parametrize(
    "claims",
    [
        {AWS + "roles": {"a": 1}},
        {AWS + "source_identity": "a"},
        {AWS + "source_identity": "aws:me"},
        {AWS + "source_identity": "two words"},
        {AWS + "source_identity": 5},
        {AWS + "surprise": "x"},
        {AWS + "tags": {"principal_tags": {"k": "plain string"}}},
        {AWS + "tags": {"principal_tags": {"k": ["a", "b"]}}},
        {AWS + "tags": {"principal_tags": {"k": ["star*"]}}},
        {AWS + "tags": {"principal_tags": {"k": ["a,b"]}}},
        {AWS + "tags": {"principal_tags": {"k": ["x" * 257]}}},
        {AWS + "tags": {"principal_tags": {"k" * 129: ["x"]}}},
        {AWS + "tags": {"principal_tags": {"aws:k": ["x"]}}},
        {AWS + "tags": {"principal_tags": {"Key": ["x"], "key": ["y"]}}},
        {AWS + "tags": {"principal_tags": {f"k{i}": ["x"] for i in range(51)}}},
        {AWS + "tags": {"principal_tags": {}, "transitive_tag_keys": ["k"]}},
        {AWS + "tags": {"unknown": {}}},
        {AWS + "tags": []},
    ],
)
def test_claims_in_the_aws_namespace_keep_the_rules(sts: Any, issuer: Issuer, claims: dict[str, Any]) -> None:
    refused(sts, issuer.token(**claims), "InvalidIdentityToken")


def test_flattened_tags_work(sts: Any, issuer: Issuer) -> None:
    flat = {AWS + "tags": None, AWS + "tags/principal_tags/Team": "payments"}
    assert assume(sts, issuer.token(**flat))


@pytest.mark.parametrize("missing", ALL)
def test_every_action_must_be_trusted(
    sts: Any, issuer: Issuer, role_with: Callable[..., None], missing: str
) -> None:
    role_with(trust(*(a for a in ALL if a != missing)))
    refused(sts, issuer.token(), "AccessDenied", 403)


def test_tag_and_source_actions_are_not_needed_without_the_claims(
    sts: Any, issuer: Issuer, role_with: Callable[..., None]
) -> None:
    role_with(trust("AssumeRoleWithWebIdentity"))
    assert assume(sts, issuer.token(**{AWS + "tags": None, AWS + "source_identity": None}))


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {f"{URL}:aud": "other"}},
        {"StringLike": {f"{URL}:sub": "role:dev:user:*"}},
        {"StringEquals": {"aws:RequestTag/credx-role": "dev"}},
        {"ForAllValues:StringEquals": {"aws:TagKeys": ["credx-role"]}},
        {"ForAnyValue:StringEquals": {f"{URL}:amr": "otp"}},
        {"StringEquals": {f"{URL}:amr": "hwk"}},
        {"StringEquals": {"sts:RoleSessionName": "bob"}},
        {"Null": {"sts:SourceIdentity": "true"}},
        {"StringEquals": {"aws:SourceVpc": "vpc-1"}},
        {"StringNotEquals": {"aws:SourceVpc": "vpc-1"}},
        {"StringEqualsIfExists": {"sts:NoSuchKey": "x"}},
        {"StringEquals": {"localhost:5000/broker:aud": AUDIENCE}},
    ],
)
def test_trust_conditions_that_do_not_hold_or_cannot_be_told(
    sts: Any, issuer: Issuer, role_with: Callable[..., None], condition: dict[str, Any]
) -> None:
    role_with(trust(*ALL, condition=condition))
    refused(sts, issuer.token(), "AccessDenied", 403)


def test_the_trust_policy_that_credx_ships(sts: Any, issuer: Issuer, role_with: Callable[..., None]) -> None:
    federated = {"Federated": PROVIDER}
    login = {
        "StringEquals": {f"{URL}:aud": AUDIENCE, "aws:RequestTag/credx-role": ["prod", "dev"]},
        "StringLike": {f"{URL}:sub": "role:prod:user:*"},
        "Bool": {"sts:RoleAuthorizedByIdp": "true"},
        "Null": {"sts:SourceIdentity": "false"},
        "ForAnyValue:StringEquals": {f"{URL}:amr": ["hwk", "otp"]},
    }
    tags = {
        "ForAllValues:StringEquals": {"aws:TagKeys": ["credx-role", "credx-target"]},
        "Null": {"aws:TagKeys": "false"},
    }
    statements = [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Principal": federated,
            "Condition": login,
        },
        {"Effect": "Allow", "Action": "sts:TagSession", "Principal": federated, "Condition": tags},
        {
            "Effect": "Allow",
            "Action": "sts:SetSourceIdentity",
            "Principal": federated,
            "Condition": {"StringLike": {"sts:SourceIdentity": "?*"}},
        },
    ]
    role_with({"Version": "2012-10-17", "Statement": statements})
    assert assume(sts, issuer.token())
    refused(sts, issuer.token(**{AWS + "roles": None}), "AccessDenied", 403)
    refused(sts, issuer.token(**{AWS + "source_identity": None}), "AccessDenied", 403)
    extra = {"principal_tags": {"credx-role": ["prod"], "admin": ["yes"]}}
    refused(sts, issuer.token(**{AWS + "tags": extra}), "AccessDenied", 403)
    refused(sts, issuer.token(sub="role:dev:user:prod"), "AccessDenied", 403)
    refused(sts, issuer.token(amr=["pwd"]), "AccessDenied", 403)


@pytest.mark.parametrize(
    "principal",
    [
        {"AWS": "*"},
        {"Federated": PROVIDER + "2"},
        {"Federated": "localhost"},
        {"Service": "ec2.amazonaws.com"},
    ],
)
def test_only_the_provider_itself_is_the_principal(
    sts: Any, issuer: Issuer, role_with: Callable[..., None], principal: dict[str, str]
) -> None:
    role_with(trust(*ALL, principal=principal))
    refused(sts, issuer.token(), "AccessDenied", 403)


def test_a_deny_wins_even_if_its_condition_cannot_be_told(
    sts: Any, issuer: Issuer, role_with: Callable[..., None]
) -> None:
    document = trust(*ALL)
    deny = copy.deepcopy(document["Statement"][0])
    deny |= {"Effect": "Deny", "Condition": {"StringEquals": {"aws:SourceVpc": "vpc-1"}}}
    role_with({**document, "Statement": [*document["Statement"], deny]})
    refused(sts, issuer.token(), "AccessDenied", 403)


def test_a_trust_policy_that_cannot_be_read(sts: Any, issuer: Issuer, role_with: Callable[..., None]) -> None:
    role_with(json.dumps(trust(*ALL)).replace('"Effect"', '"Effect": "Allow", "Effect"'))
    refused(sts, issuer.token(), "AccessDenied", 403)


@pytest.mark.parametrize(
    "arn", [ROLE + "-none", ROLE.replace(ACCOUNT, "999999999999"), ROLE.replace("prod", "x/prod")]
)
def test_a_role_that_does_not_exist_looks_like_one_that_does_not_trust(
    sts: Any, issuer: Issuer, arn: str
) -> None:
    refused(sts, issuer.token(**{AWS + "roles": None}), "AccessDenied", 403, RoleArn=arn)


@pytest.mark.parametrize(
    "changes",
    [
        {"DurationSeconds": 899},
        {"DurationSeconds": 43201},
        {"DurationSeconds": 7201},
        {"RoleSessionName": "x"},
        {"RoleSessionName": "two words"},
        {"RoleSessionName": "x" * 65},
        {"RoleSessionName": "naïve"},
        {"RoleArn": "prod"},
        {"RoleArn": ROLE + "\n"},
        {"PolicyArns": [{"arn": "arn:aws:iam::aws:policy/ReadOnlyAccess"}]},
        {"Policy": json.dumps({"Version": "2012-10-17", "Statement": []}).ljust(2049)},
        {"WebIdentityToken": "x" * 20001},
    ],
)
def test_parameters_out_of_bounds(sts: Any, issuer: Issuer, changes: dict[str, Any]) -> None:
    refused(sts, issuer.token(), "ValidationError", **changes)


def test_provider_id_is_never_for_oidc(sts: Any, issuer: Issuer) -> None:
    refused(sts, issuer.token(), "AccessDenied", 403, ProviderId="www.amazon.com")


@pytest.mark.parametrize(
    "policy",
    [
        "not json",
        "[]",
        "{}",
        '{"Version":"2012-10-17","Statement":[]}',
        '{"Version":"2013-01-01","Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}',
        '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"s3:*"}}',
        '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"everything","Resource":"*"}}',
        '{"Version":"2012-10-17","Statement":{"Effect":"allow","Action":"*","Resource":"*"}}',
        '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"bucket"}}',
        '{"Version":"2012-10-17","Statement":{"Effect":"Deny","Effect":"Allow","Action":"*","Resource":"*"}}',
        (
            '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*",'
            '"Condition":{"StringIsh":{"aws:userid":"x"}}}}'
        ),
        '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}}',
        '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*","Sid":"€"}}',
    ],
)
def test_a_session_policy_that_is_none(sts: Any, issuer: Issuer, policy: str) -> None:
    refused(sts, issuer.token(), "MalformedPolicyDocument", Policy=policy)


def test_a_packed_size_over_the_limit(sts: Any, issuer: Issuer) -> None:
    tags = {secrets.token_hex(60): [secrets.token_hex(120)] for _ in range(25)}
    refused(sts, issuer.token(**{AWS + "tags": {"principal_tags": tags}}), "PackedPolicyTooLarge")


def test_nothing_secret_reaches_the_log(sts: Any, issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    token = issuer.token(aud="other")
    with caplog.at_level(logging.DEBUG, logger="credx.sandbox.aws"):
        refused(sts, token, "InvalidIdentityToken")
        assume(sts, issuer.token())
    assert "other" in caplog.text
    assert token not in caplog.text
    assert token.split(".")[2] not in caplog.text


def test_a_twin_parameter_is_refused(aws: AwsFront, issuer: Issuer) -> None:
    pairs = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("Version", "2011-06-15"),
        ("RoleArn", ROLE),
        ("RoleArn", ROLE),
        ("RoleSessionName", "alice"),
        ("WebIdentityToken", issuer.token()),
    ]
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = urllib3.request("POST", aws.url, body=urlencode(pairs), headers=kind, retries=False)
    assert answer.status == 403
    in_url = urllib3.request(
        "POST", f"{aws.url}/?{urlencode(pairs[:2] + pairs[3:])}", headers=kind, retries=False
    )
    assert in_url.status == 403
    beside = urllib3.request(
        "POST",
        f"{aws.url}/?RoleArn={ROLE}",
        body=urlencode(pairs[:2] + pairs[3:]),
        headers=kind,
        retries=False,
    )
    assert beside.status == 403


def test_hmac_keys_in_the_jwks_verify_nothing(sts: Any, issuer: Issuer) -> None:
    shared = OctKey.generate_key(256, {"kid": "three"})
    issuer.jwks.append(shared.as_dict())
    token = issuer.sign(issuer.claims(), key=shared, header={"alg": "HS256", "kid": "three"})
    refused(sts, token, "InvalidIdentityToken")
