"""One question on a generated policy, asked of two IAM engines: one that nobody here wrote, and the sandbox's."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from credx.broker.person import Person
from credx.broker.policy import decide as grant_or_not
from credx.broker.policy.file import parse_policy
from credx.broker.policy.role_template import RoleTemplate, role_template
from credx.model import Grant
from credx.protocol import Ask
from credx.sandbox.aws.authorize import KNOWN, TAG_KEYS
from credx.sandbox.aws.context import Context
from credx.sandbox.aws.evaluate import decide, trusts
from credx.sandbox.aws.policy import parse_policy as parse_aws
from credx.sandbox.aws.trust import KNOWN as TRUST_KNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NODE = Path(__file__).parents[1] / "node"
ACCOUNT, OTHER = "111122223333", "444455556666"
HOST = "credx.example.com"
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/{HOST}"
ALICE = Person(
    user_key="0" * 64, user="alice-0123456789abcdef", issuer="https://idp.example.com", subject="1",
    groups=frozenset({"sre"}), workload=False, amr=(), auth_time=None,
)  # fmt: skip
NOW = 1_800_000_000

POLICY = parse_policy(
    """
version = 1
[broker]
issuer = "https://credx.example.com"
[[identity_providers]]
issuer = "https://idp.example.com"
client_id = "credx-cli"
readable_claim = "email"
[groups.sre]
claims = ["sre"]

[roles.logs]
arn = "arn:aws:iam::111122223333:role/logs"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
roles_claim = true
[roles.logs.scopes.read]
tags = { credx-scope-read = "logs" }
[[roles.logs.scopes.read.statements]]
effect = "Allow"
actions = ["s3:GetObject"]
resources = ["arn:aws:s3:::example-logs/app/*"]
[roles.logs.scopes.secret]
tags = { credx-scope-secret = "read" }
[[roles.logs.scopes.secret.statements]]
effect = "Allow"
actions = ["s3:GetObject"]
resources = ["arn:aws:s3:::example-logs/secret/*"]

[roles.shell]
arn = "arn:aws:iam::111122223333:role/shell"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
target = "required"
targets = ["arn:aws:ec2:eu-central-1:111122223333:instance/*"]
operations = ["shell", "forward:localhost:*"]

[roles.admin]
arn = "arn:aws:iam::111122223333:role/admin"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
sts = "broker"
duration = "15m"
max_duration = "15m"
[[roles.admin.statements]]
effect = "Allow"
actions = ["s3:*", "ec2:*"]
resources = ["*"]
[[roles.admin.statements]]
effect = "Deny"
actions = ["s3:DeleteBucket"]
resources = ["*"]

[roles.tasks]
arn = "arn:aws:iam::111122223333:role/tasks"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn", "totp"]
target = "optional"
targets = ["arn:aws:ecs:eu-central-1:111122223333:task/main/*"]
operations = ["creds", "shell"]
[[roles.tasks.statements]]
effect = "Allow"
actions = ["ecs:StopTask", "ssm:StartSession"]
resources = ["${target}"]
[[roles.tasks.statements]]
effect = "Allow"
actions = ["ecs:ListTasks"]
resources = ["*"]

[roles.databases]
arn = "arn:aws:iam::111122223333:role/databases"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
target = "required"
targets = ["arn:aws:rds:eu-central-1:111122223333:db:dev-*", "arn:aws:rds:eu-central-1:111122223333:cluster:*"]
[[roles.databases.statements]]
effect = "Allow"
actions = ["rds:DeleteDBInstance", "rds:DeleteDBCluster"]
resources = ["${target}"]

[roles.fleet]
arn = "arn:aws:iam::111122223333:role/fleet"
region = "eu-central-1"
groups = ["sre"]
factors = ["webauthn"]
sts = "broker"
target = "required"
targets = ["arn:aws:ec2:eu-central-1:111122223333:instance/*"]
[[roles.fleet.statements]]
effect = "Allow"
actions = ["ec2:StopInstances"]
resources = ["${target}"]
"""
)


@cache
def template(role: str) -> RoleTemplate:
    return role_template(POLICY, POLICY.roles[role])


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request of one session, or one action on a role's trust policy.

    Attributes:
        session: the session policy, or None where the client left it out.
        tags: the session's tags. keys: further condition keys of this request.
        mute: why the outside engine cannot be asked.
    """

    name: str
    role: str
    allowed: bool
    action: str
    resource: str
    tags: Mapping[str, str]
    keys: Mapping[str, Any] = field(default_factory=dict)
    session: str | None = None
    trust: bool = False
    mute: str = ""

    def question(self) -> dict[str, Any]:
        base = {"action": self.action, "resource": self.resource, "account": ACCOUNT}
        made = template(self.role)
        if self.trust:
            return base | {"principal": PROVIDER, "context": dict(self.keys), "trust": made.trust_policy}
        context = {f"aws:PrincipalTag/{key}": value for key, value in self.tags.items()} | dict(self.keys)
        return base | {
            "principal": f"arn:aws:sts::{ACCOUNT}:assumed-role/{self.role}/alice-0123456789abcdef-89abcdef",
            "context": context,
            "identity": [made.permission_policy],
            "session": json.loads(self.session) if self.session else None,
        }

    def strictly(self) -> bool:
        """What the sandbox's evaluator says of the same question."""
        asked = self.question()
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in asked["context"].items()}
        if self.trust:
            claims = frozenset({f"{HOST}:aud", f"{HOST}:sub", "sts:RoleAuthorizedByIdp"})
            policy = parse_aws(json.dumps(asked["trust"]), "trust")
            context = Context(values, TRUST_KNOWN | claims)
            return trusts(policy, self.action, PROVIDER, context).allowed
        identity = [parse_aws(json.dumps(asked["identity"][0]), "identity")]
        session = parse_aws(self.session, "session") if self.session else None
        context = Context(values, KNOWN | TAG_KEYS)
        return decide(self.action, self.resource, context, identity=identity, session=session).allowed


def granted(role: str, *targets: str, scopes: tuple[str, ...] = ()) -> Grant:
    operation = POLICY.roles[role].operations[0]
    ask = Ask(role=role, resources=targets, scopes=scopes, operation=operation)
    grant = grant_or_not(POLICY, ALICE, ask)
    assert isinstance(grant, Grant), grant
    return grant


def signed(grant: Grant) -> dict[str, str]:
    """The tags of a session, as the broker signs them."""
    target = {"credx-target": grant.target} if grant.target else {}
    own = {"credx-role": grant.role, "credx-factor": "webauthn", "credx-issuance": "0" * 32}
    return {**grant.tags, **own, **target}


def without(tags: Mapping[str, str], *names: str) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key not in names}


def outside(cases: Sequence[Case]) -> list[Any]:
    """The outside engine's answers, from one process; an object where it did not understand the question."""
    done = subprocess.run(
        ["node", "simulate.mjs"], cwd=NODE, input=json.dumps([case.question() for case in cases]),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    answers: list[Any] = json.loads(done.stdout)
    assert len(answers) == len(cases)
    return answers
