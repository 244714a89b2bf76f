"""What credx generates for AWS, judged twice: by an IAM engine that nobody here wrote, and by the sandbox's.

Where the outside engine cannot be asked, a case says why in ``mute`` and the sandbox's strict evaluator speaks
alone. The claims of a provider of one's own are not among the context keys that the engine knows, so it judges
trust policies without that check of its own.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from credx.broker.person import Person
from credx.broker.policy import decide as grant_or_not
from credx.broker.policy_file import parse_policy
from credx.broker.role_template import RoleTemplate, role_template
from credx.broker.session_policy import with_expiry
from credx.model import Grant
from credx.protocol import Ask
from credx.sandbox.aws.authorize import KNOWN, TAG_KEYS
from credx.sandbox.aws.context import Context
from credx.sandbox.aws.evaluate import decide, trusts
from credx.sandbox.aws.policy import parse_policy as parse_aws
from credx.sandbox.aws.trust import KNOWN as TRUST_KNOWN
from credx.strict import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = [
    pytest.mark.component("node"),
    pytest.mark.component("npm:@cloud-copilot/iam-simulate"),
]

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


def granted(role: str, target: str | None = None, scopes: tuple[str, ...] = ()) -> Grant:
    ask = Ask(
        role=role,
        resources=(target,) if target else (),
        scopes=scopes,
        operation=POLICY.roles[role].operations[0],
    )
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


def logs() -> list[Case]:
    grant = granted("logs", scopes=("read",))
    ask = Case(
        name="the scope's object", role="logs", allowed=True, action="s3:GetObject",
        resource="arn:aws:s3:::example-logs/app/today.log", tags=signed(grant), session=grant.session_policy,
    )  # fmt: skip
    no = dataclasses.replace(ask, allowed=False, session=None)  # a client that leaves the session policy out
    both = {**signed(grant), "credx-scope-secret": "read"}
    return [
        ask,
        dataclasses.replace(ask, name="the scope's object without a session policy", session=None),
        dataclasses.replace(no, name="another scope's object", resource="arn:aws:s3:::example-logs/secret/x"),
        dataclasses.replace(no, name="another action", action="s3:PutObject"),
        dataclasses.replace(no, name="another bucket", resource="arn:aws:s3:::example-other/app/today.log"),
        dataclasses.replace(no, name="no scope tag", tags=without(ask.tags, "credx-scope-read")),
        dataclasses.replace(no, name="another value", tags={**ask.tags, "credx-scope-read": "logs2"}),
        dataclasses.replace(no, name="another role's tag", tags={**ask.tags, "credx-role": "shell"}),
        dataclasses.replace(no, name="no credx-role", tags=without(ask.tags, "credx-role")),
        dataclasses.replace(no, name="no tag at all", tags={}),
        dataclasses.replace(
            no, name="a tag of more than was chosen, held by the session policy", tags=both,
            resource="arn:aws:s3:::example-logs/secret/x", session=grant.session_policy,
        ),
    ]  # fmt: skip


def shells() -> list[Case]:
    ec2 = f"arn:aws:ec2:eu-central-1:{ACCOUNT}:instance/"
    ssm = f"arn:aws:ssm:eu-central-1:{ACCOUNT}:"
    grant = granted("shell", ec2 + "i-0123456789abcdef0")
    checked = {"ssm:SessionDocumentAccessCheck": "true"}
    ask = Case(
        name="the target", role="shell", allowed=True, action="ssm:StartSession", keys=checked,
        resource=ec2 + "i-0123456789abcdef0", tags=signed(grant), session=grant.session_policy,
    )  # fmt: skip
    no = dataclasses.replace(ask, allowed=False)
    region = f"arn:aws:ec2:eu-west-1:{ACCOUNT}:instance/i-0123456789abcdef0"
    account = f"arn:aws:ec2:eu-central-1:{OTHER}:instance/i-0123456789abcdef0"
    aws = "arn:aws:ssm:eu-central-1::document/AWS-"
    mute = "the engine knows no document without an account, which is how AWS's own are called"
    own = {"keys": {"aws:SourceIdentity": ALICE.user}}
    mine = f"{ssm}session/{ALICE.user}-89abcdef-0a1b2c3d4e5f6a7b8"
    return [
        ask,
        dataclasses.replace(ask, name="the shell's document", resource=ssm + "document/SSM-SessionManagerRunShell"),
        dataclasses.replace(ask, name="the forward's document", resource=aws + "StartPortForwardingSession", mute=mute),
        dataclasses.replace(no, name="the neighbour", resource=ec2 + "i-0123456789abcdef1"),
        dataclasses.replace(no, name="a longer name", resource=ec2 + "i-0123456789abcdef00"),
        dataclasses.replace(no, name="another region", resource=region),
        dataclasses.replace(no, name="another account", resource=account),
        dataclasses.replace(no, name="no target tag", tags=without(ask.tags, "credx-target")),
        dataclasses.replace(no, name="a star for a tag", tags={**ask.tags, "credx-target": "*"}),
        dataclasses.replace(no, name="the neighbour's tag", tags={**ask.tags, "credx-target": "i-0123456789abcdef1"}),
        dataclasses.replace(no, name="no credx-role", tags=without(ask.tags, "credx-role")),
        dataclasses.replace(no, name="no document check", keys={"ssm:SessionDocumentAccessCheck": "false"}),
        dataclasses.replace(no, name="another document", resource=ssm + "document/SSM-Other"),
        dataclasses.replace(
            no, name="the document of remote hosts", mute=mute,
            resource=aws + "StartPortForwardingSessionToRemoteHost",
        ),
        dataclasses.replace(no, name="send-command", action="ssm:SendCommand", keys={}),
        dataclasses.replace(ask, name="resume one's own", action="ssm:ResumeSession", resource=mine, **own),
        dataclasses.replace(ask, name="end one's own", action="ssm:TerminateSession", resource=mine, **own),
        dataclasses.replace(no, name="resume another's", action="ssm:ResumeSession", resource=ssm + "session/bob-1", **own),
        dataclasses.replace(
            no, name="resume one's own in another account", action="ssm:ResumeSession",
            resource=mine.replace(ACCOUNT, OTHER), **own,
        ),
        dataclasses.replace(no, name="resume without a source identity", action="ssm:ResumeSession", resource=mine, keys={}),
        dataclasses.replace(ask, name="the data channel", action="ssmmessages:OpenDataChannel", resource="*", keys={}),
    ]  # fmt: skip


def admins() -> list[Case]:
    grant = granted("admin")
    bounded = with_expiry(grant.session_policy, NOW + 900)
    ask = Case(
        name="within its time", role="admin", allowed=True, action="s3:GetObject", session=bounded,
        resource="arn:aws:s3:::anything/x", tags=signed(grant), keys={"aws:CurrentTime": timestamp(NOW + 899)},
    )  # fmt: skip
    no = dataclasses.replace(ask, allowed=False)
    later = {"aws:CurrentTime": timestamp(NOW + 900)}
    return [
        ask,
        dataclasses.replace(no, name="at its end", keys=later),
        dataclasses.replace(no, name="after its end", keys={"aws:CurrentTime": timestamp(NOW + 90_000)}),
        dataclasses.replace(no, name="what nobody allows", action="iam:ListUsers", resource="*"),
        dataclasses.replace(no, name="what is denied", action="s3:DeleteBucket", resource="arn:aws:s3:::anything"),
        dataclasses.replace(no, name="no credx-role", tags={}),
    ]  # fmt: skip


def tasks() -> list[Case]:
    ecs = f"arn:aws:ecs:eu-central-1:{ACCOUNT}:task/"
    one, two = "0" * 31 + "1", "0" * 31 + "2"
    grant = granted("tasks", f"{ecs}main/{one}")
    ask = Case(
        name="the task", role="tasks", allowed=True, action="ecs:StopTask", resource=f"{ecs}main/{one}",
        tags=signed(grant), session=grant.session_policy,
    )  # fmt: skip
    no = dataclasses.replace(ask, allowed=False, session=None)
    checked = {"ssm:SessionDocumentAccessCheck": "true"}
    bare = granted("tasks")
    return [
        ask,
        dataclasses.replace(ask, name="a shell in it", action="ssm:StartSession", keys=checked),
        dataclasses.replace(no, name="its neighbour", resource=f"{ecs}main/{two}"),
        dataclasses.replace(no, name="another cluster", resource=f"{ecs}other/{one}"),
        dataclasses.replace(no, name="another region", resource=ask.resource.replace("eu-central-1", "eu-west-1")),
        dataclasses.replace(no, name="another account", resource=ask.resource.replace(ACCOUNT, OTHER)),
        dataclasses.replace(no, name="no target asked", tags=signed(bare)),
        dataclasses.replace(
            ask, name="no target asked, nor needed", tags=signed(bare), session=bare.session_policy,
            action="ecs:ListTasks", resource="*", mute="the engine wants a container instance for ecs:ListTasks",
        ),
    ]  # fmt: skip


def databases() -> list[Case]:
    rds = f"arn:aws:rds:eu-central-1:{ACCOUNT}:"
    grant = granted("databases", rds + "cluster:prod-1")
    ask = Case(
        name="the cluster", role="databases", allowed=True, action="rds:DeleteDBCluster",
        resource=rds + "cluster:prod-1", tags=signed(grant), session=grant.session_policy,
    )  # fmt: skip
    no = dataclasses.replace(ask, allowed=False, session=None)
    return [
        ask,
        dataclasses.replace(
            no, name="what the tag names, of a kind whose pattern forbids it", action="rds:DeleteDBInstance",
            resource=rds + "db:prod-1",
        ),
        dataclasses.replace(no, name="another", resource=rds + "cluster:prod-2"),
        dataclasses.replace(no, name="no target", tags=without(ask.tags, "credx-target")),
    ]  # fmt: skip


def asked(role: str, target: str = "") -> dict[str, Any]:
    """The condition keys of a call of STS with the broker's token for ``role``."""
    tags = {"credx-role": role, "credx-factor": "webauthn", "credx-issuance": "0" * 32}
    tags |= {"credx-target": target} if target else {}
    tags |= {"credx-scope-read": "logs"} if role == "logs" else {}
    return {
        f"{HOST}:aud": f"credx:aws:{ACCOUNT}",
        f"{HOST}:sub": f"role:{role}:user:{ALICE.user}",
        "sts:RoleAuthorizedByIdp": "true",
        "sts:SourceIdentity": ALICE.user,
        "aws:TagKeys": list(tags),
        **{f"aws:RequestTag/{key}": value for key, value in tags.items()},
    }


LOGIN, TAG, SOURCE = "sts:AssumeRoleWithWebIdentity", "sts:TagSession", "sts:SetSourceIdentity"


def trusted() -> list[Case]:
    keys, shell = asked("logs"), asked("shell", "i-1")

    def case(
        name: str, action: str, given: Mapping[str, Any], *, role: str = "logs", allowed: bool = False
    ) -> Case:
        arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
        return Case(
            name=name,
            role=role,
            allowed=allowed,
            action=action,
            resource=arn,
            tags={},
            keys=given,
            trust=True,
        )

    factor = "aws:RequestTag/credx-factor"
    more = {**keys, "aws:TagKeys": [*keys["aws:TagKeys"], "admin"], "aws:RequestTag/admin": "yes"}
    return [
        *(case(f"its own token, {action}", action, keys, allowed=True) for action in (LOGIN, TAG, SOURCE)),
        *(case(f"a target's token, {a}", a, shell, role="shell", allowed=True) for a in (LOGIN, TAG, SOURCE)),
        case("the factor app of tasks", LOGIN, {**asked("tasks"), factor: "totp"}, role="tasks", allowed=True),
        case("another aud", LOGIN, {**keys, f"{HOST}:aud": f"credx:aws:{OTHER}"}),
        case("no aud", LOGIN, without(keys, f"{HOST}:aud")),
        case("another role's sub", LOGIN, {**keys, f"{HOST}:sub": "role:shell:user:alice"}),
        case("a sub that begins alike", LOGIN, {**keys, f"{HOST}:sub": "role:logs2:user:alice"}),
        case("a sub that has it inside", LOGIN, {**keys, f"{HOST}:sub": "x:role:logs:user:alice"}),
        case("the tag of another role", LOGIN, {**keys, "aws:RequestTag/credx-role": "shell"}),
        case("no factor tag", LOGIN, without(keys, factor)),
        case("a factor that the role does not take", LOGIN, {**keys, factor: "totp"}),
        case("no source identity", LOGIN, without(keys, "sts:SourceIdentity")),
        case("no source identity to set", SOURCE, without(keys, "sts:SourceIdentity")),
        case("a role that nobody authorised", LOGIN, {**keys, "sts:RoleAuthorizedByIdp": "false"}),
        case("no word on the role", LOGIN, without(keys, "sts:RoleAuthorizedByIdp")),
        case("no roles_claim in the policy", LOGIN, without(shell, "sts:RoleAuthorizedByIdp"), role="shell", allowed=True),
        case("one tag more", TAG, more),
        case("a target's tag where there are none", TAG, {**keys, "aws:TagKeys": [*keys["aws:TagKeys"], "credx-target"]}),
        case("no tags", TAG, without(keys, "aws:TagKeys")),
        case("no target where one is required", LOGIN, asked("shell"), role="shell"),
        case("an action that is not its own", "sts:AssumeRole", keys),
    ]  # fmt: skip


CASES = [*logs(), *shells(), *admins(), *tasks(), *databases(), *trusted()]


@pytest.fixture(scope="module")
def verdicts() -> list[Any]:
    """The outside engine's answers to all cases, from one process."""
    done = subprocess.run(
        ["node", "simulate.mjs"], cwd=NODE, input=json.dumps([case.question() for case in CASES]),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    answers: list[Any] = json.loads(done.stdout)
    assert len(answers) == len(CASES)
    return answers


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{c.role}: {c.name}" for c in CASES])
def test_both_engines_say_what_was_meant(number: int, verdicts: list[Any]) -> None:
    case = CASES[number]
    assert case.strictly() == case.allowed
    if case.mute:
        assert isinstance(verdicts[number], dict), "the engine has an answer by now: drop the remark"
    else:
        assert verdicts[number] in ("Allowed", "ImplicitlyDenied", "ExplicitlyDenied"), verdicts[number]
        assert (verdicts[number] == "Allowed") == case.allowed
