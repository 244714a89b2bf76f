"""Puts the scenario into a running AWS front, and the first factors into a running broker."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from fido2.client import DefaultClientDataCollector, Fido2Client
from fido2.webauthn import PublicKeyCredentialCreationOptions

from credx.broker.policy.role_template import role_template
from credx.broker_client import Enrolment
from credx.sandbox import scenario

if TYPE_CHECKING:
    from credx.broker.policy.rules import Policy
    from credx.broker_client import BrokerClient
    from credx.model import Secret
    from credx.protocol import StepUp
    from credx.sandbox.aws.front import AwsFront
    from credx.sandbox.plug import AuthenticatorApp
    from credx.sandbox.security_key import SoftwareKey

IMAGE: Final = "ami-12c6146b"  # one that moto knows
THUMBPRINT: Final = "0" * 40  # IAM wants one and does not use it


def seed_aws(aws: AwsFront, policy: Policy) -> dict[str, str]:
    """Everything of ``scenario`` in AWS. Returns the instances: Name tag -> id."""
    with ThreadPoolExecutor(2) as pool:
        iam = pool.submit(_seed_iam, aws, policy)
        s3 = pool.submit(_seed_s3, aws)
        instances = _seed_ec2(aws)
        iam.result()
        s3.result()
    return instances


def _seed_iam(aws: AwsFront, policy: Policy) -> None:
    iam = aws.admin_client("iam")
    made = {role.name: role_template(policy, role) for role in policy.roles.values()}
    audiences = sorted({client for one in made.values() for client in one.provider["client_ids"]})
    iam.create_open_id_connect_provider(
        Url=policy.broker.issuer, ClientIDList=audiences, ThumbprintList=[THUMBPRINT]
    )
    for role in policy.roles.values():
        iam.create_role(
            RoleName=role.name,
            AssumeRolePolicyDocument=json.dumps(made[role.name].trust_policy),
            MaxSessionDuration=made[role.name].max_session_duration,
            Description=role.description,
        )
        iam.put_role_policy(
            RoleName=role.name,
            PolicyName="permissions",
            PolicyDocument=scenario.permissions(role.name, made[role.name].permission_policy),
        )


def _seed_s3(aws: AwsFront) -> None:
    s3 = aws.admin_client("s3", scenario.REGION)
    for bucket, objects in scenario.OBJECTS.items():
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": scenario.REGION})
        for key, text in objects.items():
            s3.put_object(Bucket=bucket, Key=key, Body=text.encode())


def _seed_ec2(aws: AwsFront) -> dict[str, str]:
    ec2 = aws.admin_client("ec2", scenario.REGION)
    instances: dict[str, str] = {}
    for tags in scenario.INSTANCES:
        made = ec2.run_instances(
            ImageId=IMAGE,
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [{"Key": name, "Value": value} for name, value in tags.items()],
                }
            ],
        )
        instances[tags["Name"]] = made["Instances"][0]["InstanceId"]
    return instances


def enrol_security_key(
    client: BrokerClient, id_token: Secret, invitation: Secret, *, key: SoftwareKey, name: str, origin: str
) -> None:
    """Register ``key`` through the broker's API, as ``credx factor add`` does."""
    begun = _begun(client.begin_enrolment(id_token, kind="webauthn", name=name, invitation=invitation))
    options = PublicKeyCredentialCreationOptions.from_dict(begun.public_key or {})
    made = Fido2Client(key, DefaultClientDataCollector(origin)).make_credential(options)
    client.complete_enrolment(id_token, begun.enrolment, webauthn=dict(made))


def enrol_authenticator_app(
    client: BrokerClient, id_token: Secret, invitation: Secret, *, app: AuthenticatorApp, name: str
) -> None:
    """The same with an authenticator app, whose first code the broker wants to see."""
    begun = _begun(client.begin_enrolment(id_token, kind="totp", name=name, invitation=invitation))
    if begun.secret is None:
        raise RuntimeError("the broker gave no seed for an authenticator app")
    app.enrol(begun.secret)
    client.complete_enrolment(id_token, begun.enrolment, otp=app.code())


def _begun(answer: Enrolment | StepUp) -> Enrolment:
    """An invitation needs no further proof; a step-up here is a fault of the scenario."""
    if not isinstance(answer, Enrolment):
        raise TypeError("the broker asks for a proof although there is an invitation")
    return answer
