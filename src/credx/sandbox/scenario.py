"""What the sandbox's company looks like: its policy, its roles in AWS, its logs and its servers. Data only.

One account, two people. ``prod-logs`` shows scopes that signed tags enforce, ``prod-shell`` a session that is
good for one server, ``prod-admin`` credentials that the broker fetches itself, ``dev`` a proof that lasts a
working day.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCOUNT: Final = "111122223333"
REGION: Final = "eu-central-1"
LOGS: Final = "example-logs"
DEV: Final = "example-dev"

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
description = "Everything but IAM, for half an hour"
arn = "arn:aws:iam::111122223333:role/prod-admin"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
roles_claim = true
sts = "broker"
duration = "30m"
max_duration = "30m"
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


# What the roles may do in AWS beyond what the policy file says of them, and ``credx broker template`` prints.
PERMISSIONS: Final[Mapping[str, list[dict[str, Any]]]] = {
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


def permissions(role: str, generated: Mapping[str, Any]) -> str:
    """The one permission policy of a role, as JSON; ``generated``: what the policy file makes of it."""
    statements = [*generated["Statement"], *PERMISSIONS.get(role, ())]
    return json.dumps({**generated, "Statement": statements})
