"""The whole world, from start to a file read out of a bucket, and to nothing left."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from fido2.client import DefaultClientDataCollector, Fido2Client
from fido2.webauthn import PublicKeyCredentialRequestOptions

from credx.protocol import Ask, Issued, StepUp, TokenRequest, TotpProof, WebAuthnProof
from credx.sandbox.world import World, _tell
from credx.sts import assume_role_with_web_identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from credx.model import AwsCredentials

STARTUP_SECONDS = 4.0  # of CPU: what a busy machine does besides is not the sandbox's doing


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("world")
    directory.chmod(0o700)
    started = time.process_time()
    with World(directory) as running:
        running.startup = time.process_time() - started  # type: ignore[attr-defined]
        yield running


def issue(world: World, user: str, ask: Ask, kind: str) -> Issued:
    client, id_token = world.client(), world.id_token(user)
    step_up = client.token(TokenRequest(subject_token=id_token, ask=ask))
    assert isinstance(step_up, StepUp)
    assert kind in {factor["kind"] for factor in step_up.factors}
    if kind == "webauthn":
        options = PublicKeyCredentialRequestOptions.from_dict(
            client.begin_proof(id_token, step_up.auth_session)
        )
        browser = Fido2Client(world.security_key(user), DefaultClientDataCollector(world.broker_url))
        assertion = dict(browser.get_assertion(options).get_response(0))
        proof: Any = WebAuthnProof(auth_session=step_up.auth_session, assertion=assertion)
    else:
        code = world.authenticator_app(user).code()
        assert code is not None
        proof = TotpProof(auth_session=step_up.auth_session, otp=code)
    issued = client.token(TokenRequest(subject_token=id_token, ask=ask, proof=proof))
    assert isinstance(issued, Issued)
    return issued


def exchange(world: World, issued: Issued, **changes: Any) -> AwsCredentials:
    arguments: dict[str, Any] = {
        "token": issued.token,
        "role_arn": issued.role_arn,
        "session_name": issued.session_name,
        "duration": issued.duration,
        "policy": issued.session_policy,
        "region": issued.region,
        "endpoint": world.aws.url,
        **changes,
    }
    return assume_role_with_web_identity(**arguments)


def aws(world: World, credentials: AwsCredentials, service: str) -> Any:
    return boto3.client(
        service,
        region_name=world.region,
        endpoint_url=world.aws.url,
        aws_access_key_id=credentials.access_key_id,
        aws_secret_access_key=credentials.secret_access_key.reveal(),
        aws_session_token=credentials.session_token.reveal(),
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


def refused(call: Any, **arguments: Any) -> bool:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"] in {
        "AccessDenied",
        "AccessDeniedException",
        "UnauthorizedOperation",
    }


def test_it_starts_quickly(world: World) -> None:
    assert world.startup < STARTUP_SECONDS  # type: ignore[attr-defined]


def test_everybody_has_the_factors_that_the_scenario_gives(world: World) -> None:
    def kinds(user: str) -> list[str]:
        return sorted(f["kind"] for f in world.client().factors(world.id_token(user)))

    assert kinds("alice") == ["totp", "webauthn"]
    assert kinds("bob") == ["totp"]


def test_everybody_sees_the_roles_of_the_groups(world: World) -> None:
    def roles(user: str) -> set[str]:
        return {role["name"] for role in world.client().roles(world.id_token(user))}

    assert roles("bob") == {"dev", "dev-totp", "discover"}
    assert roles("alice") == roles("bob") | {"prod-logs", "prod-shell", "prod-admin"}


def test_a_touch_reads_the_logs_and_nothing_else(world: World) -> None:
    issued = issue(world, "alice", Ask(role="prod-logs", scopes=("read-logs",)), "webauthn")
    s3 = aws(world, exchange(world, issued), "s3")
    body = s3.get_object(Bucket="example-logs", Key="app/2026-11-23.log")["Body"].read()
    assert b"timeout at db-1" in body
    assert refused(s3.get_object, Bucket="example-logs", Key="secret/payroll.csv")
    assert refused(s3.put_object, Bucket="example-logs", Key="app/x", Body=b"x")


def test_leaving_the_session_policy_out_does_not_widen_what_tags_enforce(world: World) -> None:
    issued = issue(world, "alice", Ask(role="prod-logs", scopes=("read-logs",)), "webauthn")
    s3 = aws(world, exchange(world, issued, policy=None), "s3")
    assert s3.get_object(Bucket="example-logs", Key="app/2026-11-22.log")
    assert refused(s3.put_object, Bucket="example-logs", Key="app/x", Body=b"x")
    assert refused(s3.get_object, Bucket="example-logs", Key="secret/payroll.csv")


def test_another_scope_opens_what_it_names(world: World) -> None:
    issued = issue(world, "alice", Ask(role="prod-logs", scopes=("read-secret",)), "webauthn")
    s3 = aws(world, exchange(world, issued), "s3")
    assert s3.get_object(Bucket="example-logs", Key="secret/payroll.csv")
    assert refused(s3.get_object, Bucket="example-logs", Key="app/2026-11-22.log")


def test_a_code_opens_the_development_role(world: World) -> None:
    issued = issue(world, "bob", Ask(role="dev-totp"), "totp")
    s3 = aws(world, exchange(world, issued), "s3")
    assert s3.list_objects_v2(Bucket="example-dev")["KeyCount"] == 1
    assert refused(s3.list_objects_v2, Bucket="example-logs")


def test_the_broker_itself_fetches_the_administrators_credentials(world: World) -> None:
    issued = issue(world, "alice", Ask(role="prod-admin"), "webauthn")
    document = json.loads(issued.token.reveal())
    assert document["AccessKeyId"].startswith("ASIA")
    iam = boto3.client(
        "iam",
        region_name=world.region,
        endpoint_url=world.aws.url,
        aws_access_key_id=document["AccessKeyId"],
        aws_secret_access_key=document["SecretAccessKey"],
        aws_session_token=document["SessionToken"],
    )
    assert refused(iam.list_roles)


def test_the_shell_role_is_good_for_one_server(world: World) -> None:
    web, db = (
        f"arn:aws:ec2:{world.region}:{world.account}:instance/{world.instances[n]}" for n in ("web-1", "db-1")
    )
    issued = issue(world, "alice", Ask(role="prod-shell", resources=(web,)), "webauthn")
    ssm = aws(world, exchange(world, issued), "ssm")
    assert refused(ssm.start_session, Target=db.rpartition("/")[2])
    with pytest.raises(ClientError, match="TargetNotConnected"):  # allowed; nobody is at home there
        ssm.start_session(Target=web.rpartition("/")[2])


def test_servers_have_names(world: World) -> None:
    issued = issue(world, "bob", Ask(role="discover"), "totp")
    ec2 = aws(world, exchange(world, issued), "ec2")
    found = {
        tag["Value"]
        for reservation in ec2.describe_instances()["Reservations"]
        for instance in reservation["Instances"]
        for tag in instance["Tags"]
        if tag["Key"] == "Name"
    }
    assert found == set(world.instances) == {"web-1", "db-1", "playground"}


def credx(world: World, user: str, *arguments: str) -> str:
    done = subprocess.run(
        ["credx", *arguments],
        env=world.environment(user),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_shim_runs_credx_as_that_person(world: World) -> None:
    assert "prod-logs" in {role["name"] for role in json.loads(credx(world, "alice", "roles", "--json"))}
    shown = json.loads(credx(world, "alice", "creds", "dev-totp", "--format", "json"))
    assert shown["AccessKeyId"].startswith("ASIA")


def test_an_sdk_gets_its_credentials_through_a_profile(world: World) -> None:
    script = "import boto3; s3 = boto3.Session(profile_name='prod-logs').client('s3'); "
    script += "print(s3.get_object(Bucket='example-logs', Key='app/2026-11-22.log')['Body'].read().decode())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=world.environment("alice"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "checkout" in done.stdout, done.stderr


def test_stopping_leaves_nothing_behind(tmp_path: Path, world: World) -> None:
    world.stop()  # moto's state is one for each process, so one world at a time
    tmp_path.chmod(0o700)
    before = {thread.ident for thread in threading.enumerate()}
    second = World(tmp_path)
    second.start()
    ports = [urlsplit(url).port for url in (second.idp.issuer, second.broker_url, second.aws.url)]
    second.stop()
    second.stop()
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port or 0)) != 0
    deadline = time.monotonic() + 3
    while (
        left := [t for t in threading.enumerate() if t.ident not in before]
    ) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []


def test_what_the_broker_refuses_is_told_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "credx.sandbox.broker"):
        _tell({"event": "granted", "user": "bob-1", "role": "dev"})
        _tell({"event": "refused", "user": "bob-1", "role": "dev", "detail": "in none\x1b[31m"})
    (record,) = caplog.records
    assert record.getMessage() == "broker refused bob-1, dev, in none\ufffd[31m"
