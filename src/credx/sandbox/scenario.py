"""What the sandbox's company looks like: its policy, its roles in AWS, its logs and its servers. Data only.

One account, two people. ``prod-logs`` shows scopes that signed tags enforce, ``prod-shell`` a session that is
good for one server, ``prod-admin`` credentials that the broker fetches itself, ``dev`` a proof that lasts a
working day.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.broker.rules import Role

ACCOUNT: Final = "111122223333"
REGION: Final = "eu-central-1"
LOGS: Final = "example-logs"
DEV: Final = "example-dev"
SHORTEST_MAX_SESSION: Final = 3600  # seconds, IAM MaxSessionDuration

OBJECTS: Final[Mapping[str, Mapping[str, str]]] = {
    LOGS: {
        "app/2026-11-23.log": "09:14:02 checkout  200  31 ms\n09:14:03 checkout  500  timeout at db-1\n",
        "app/2026-11-22.log": "17:45:11 checkout  200  28 ms\n",
        "secret/payroll.csv": "name,salary\nnobody,0\n",
    },
    DEV: {"notes.txt": "nothing here matters\n"},
}
INSTANCES: Final[tuple[Mapping[str, str], ...]] = (
    {"Name": "web-1", "env": "prod"},
    {"Name": "db-1", "env": "prod"},
    {"Name": "playground", "env": "dev"},
)

# {issuer}: of the identity provider, {broker}: of the broker, both http://localhost:PORT
POLICY: Final = """version = 1

[broker]
issuer = "{broker}"
rp_id = "localhost"
name = "Example Corp (sandbox)"

[[identity_providers]]
issuer = "{issuer}"
client_id = "{client_id}"
readable_claim = "preferred_username"
algorithms = ["RS256"]
scopes = ["openid", "profile", "email", "offline_access"]

[groups.sre]
claims = ["sre"]

[groups.dev]
claims = ["dev"]

[roles.prod-logs]
description = "Read the logs of production, and no more of it"
arn = "arn:aws:iam::111122223333:role/prod-logs"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
roles_claim = true
default_scopes = ["read-logs"]

[roles.prod-logs.scopes.read-logs]
description = "Read app/ in the bucket example-logs"
tags = {{ credx-scope-read = "logs" }}
[[roles.prod-logs.scopes.read-logs.statements]]
effect = "Allow"
actions = ["s3:GetObject"]
resources = ["arn:aws:s3:::example-logs/app/*"]
[[roles.prod-logs.scopes.read-logs.statements]]
effect = "Allow"
actions = ["s3:ListBucket"]
resources = ["arn:aws:s3:::example-logs"]

[roles.prod-logs.scopes.write-logs]
description = "Write app/ in the bucket example-logs"
tags = {{ credx-scope-write = "logs" }}
[[roles.prod-logs.scopes.write-logs.statements]]
effect = "Allow"
actions = ["s3:PutObject"]
resources = ["arn:aws:s3:::example-logs/app/*"]

[roles.prod-logs.scopes.read-secret]
description = "Read secret/ in the bucket example-logs"
tags = {{ credx-scope-secret = "read" }}
[[roles.prod-logs.scopes.read-secret.statements]]
effect = "Allow"
actions = ["s3:GetObject"]
resources = ["arn:aws:s3:::example-logs/secret/*"]

[roles.prod-shell]
description = "A session on one server of production"
arn = "arn:aws:iam::111122223333:role/prod-shell"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
roles_claim = true
target = "required"
targets = ["arn:aws:ec2:eu-central-1:111122223333:instance/*"]
operations = ["creds", "shell", "run", "forward"]

[roles.prod-admin]
description = "Everything but IAM, for a quarter of an hour"
arn = "arn:aws:iam::111122223333:role/prod-admin"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
roles_claim = true
sts = "broker"
duration = "15m"
max_duration = "15m"
[[roles.prod-admin.statements]]
effect = "Allow"
actions = ["s3:*", "ec2:*", "ssm:*"]
resources = ["*"]

[roles.dev]
description = "Development: the bucket example-dev, one proof a day"
arn = "arn:aws:iam::111122223333:role/dev"
region = "eu-central-1"
groups = ["dev"]
factors = ["webauthn", "totp"]
factor_max_age = "8h"
factor_group = "dev"

[roles.dev-totp]
description = "Development with a code from an authenticator app"
arn = "arn:aws:iam::111122223333:role/dev-totp"
region = "eu-central-1"
groups = ["dev"]
factors = ["totp"]

[roles.discover]
description = "Find servers by name"
arn = "arn:aws:iam::111122223333:role/discover"
region = "eu-central-1"
groups = ["sre", "dev"]
factors = ["webauthn", "totp"]
factor_max_age = "8h"
factor_group = "dev"
"""

_DEV_BUCKET: Final = [
    {"Effect": "Allow", "Action": "s3:*", "Resource": [f"arn:aws:s3:::{DEV}", f"arn:aws:s3:::{DEV}/*"]},
]


def _with_tag(tag: str, value: str, action: str | list[str], resource: str) -> dict[str, Any]:
    condition = {"StringEquals": {f"aws:PrincipalTag/{tag}": value}}
    return {"Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition}


# What each role may do in AWS. Wide where a scope or a target narrows it by a tag of the signed token.
PERMISSIONS: Final[Mapping[str, list[dict[str, Any]]]] = {
    "prod-logs": [
        _with_tag("credx-scope-read", "logs", "s3:ListBucket", f"arn:aws:s3:::{LOGS}"),
        _with_tag("credx-scope-read", "logs", "s3:GetObject", f"arn:aws:s3:::{LOGS}/app/*"),
        _with_tag("credx-scope-write", "logs", "s3:PutObject", f"arn:aws:s3:::{LOGS}/app/*"),
        _with_tag("credx-scope-secret", "read", "s3:GetObject", f"arn:aws:s3:::{LOGS}/secret/*"),
    ],
    "prod-shell": [
        {
            "Effect": "Allow",
            "Action": "ssm:StartSession",
            "Resource": [
                f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/${{aws:PrincipalTag/credx-target}}",
                f"arn:aws:ssm:{REGION}:*:document/*",
            ],
        },
        {
            "Effect": "Allow",
            "Action": ["ssm:TerminateSession", "ssm:ResumeSession"],
            "Resource": f"arn:aws:ssm:{REGION}:{ACCOUNT}:session/*",
        },
    ],
    "prod-admin": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    "dev": _DEV_BUCKET,
    "dev-totp": _DEV_BUCKET,
    "discover": [
        {
            "Effect": "Allow",
            "Action": ["ec2:DescribeInstances", "ssm:DescribeInstanceInformation"],
            "Resource": "*",
        },
    ],
}


def policy_text(*, broker: str, issuer: str, client_id: str) -> str:
    """The broker's policy file."""
    return POLICY.format(broker=broker, issuer=issuer, client_id=client_id)


def permissions(role: str) -> str:
    """The one permission policy of a role, as JSON."""
    return document(PERMISSIONS[role])


def trust(role: Role, *, broker: str) -> str:
    """A trust policy that lets in nothing but the broker's token for this role, as docs/broker.md explains it.

    One statement for each action, so that a condition key exists where it is tested.
    """
    host = urlsplit(broker).netloc
    principal = {"Federated": f"arn:aws:iam::{role.account}:oidc-provider/{host}"}
    scope_tags = sorted({tag for scope in role.scopes.values() for tag in scope.tags})
    target_tag = [] if role.target == "none" else ["credx-target"]
    login: dict[str, Any] = {
        "StringEquals": {
            f"{host}:aud": audience(role),
            "aws:RequestTag/credx-role": role.name,
            "aws:RequestTag/credx-factor": list(role.factors),
        },
        "StringLike": {f"{host}:sub": f"role:{role.name}:user:*"},
        "Null": {"sts:SourceIdentity": "false"},
    }
    if role.target == "required":
        login["Null"]["aws:RequestTag/credx-target"] = "false"
    if role.roles_claim:
        login["Bool"] = {"sts:RoleAuthorizedByIdp": "true"}
    tag_keys = ["credx-role", "credx-factor", "credx-issuance", *target_tag, *scope_tags]
    tags = {"ForAllValues:StringEquals": {"aws:TagKeys": tag_keys}, "Null": {"aws:TagKeys": "false"}}
    who = {"StringLike": {"sts:SourceIdentity": "?*"}}
    return document(
        [
            _statement("Login", "sts:AssumeRoleWithWebIdentity", principal, login),
            _statement("Tags", "sts:TagSession", principal, tags),
            _statement("Who", "sts:SetSourceIdentity", principal, who),
        ]
    )


def _statement(sid: str, action: str, principal: Mapping[str, str], condition: Any) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": action,
        "Principal": principal,
        "Condition": condition,
    }


def max_session(role: Role) -> int:
    """MaxSessionDuration in seconds: as short as IAM lets it be, because the client asks STS for the duration."""
    return max(SHORTEST_MAX_SESSION, role.max_duration)


def audience(role: Role) -> str:
    return f"credx:{role.partition}:{role.account}"


def document(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
