"""What credx generates for AWS, judged twice: by an IAM engine that nobody here wrote, and by the sandbox's.

Where the outside engine cannot be asked, a case says why in ``mute`` and the sandbox's strict evaluator speaks
alone. The claims of a provider of one's own are not among the context keys that the engine knows, so it judges
trust policies without that check of its own.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from support.judges import ACCOUNT, ALICE, HOST, NOW, OTHER, Case, granted, outside, signed, without

from credx.broker.policy.session_policy import with_expiry
from credx.strict import timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = [
    pytest.mark.component("node"),
    pytest.mark.component("npm:@cloud-copilot/iam-simulate"),
]


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
        dataclasses.replace(no, name="a name that ends alike", resource=ec2 + "x-i-0123456789abcdef0"),
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
            no, name="resume one's own in another region", action="ssm:ResumeSession",
            resource=mine.replace("eu-central-1", "eu-west-1"), **own,
        ),
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


def fleets() -> list[Case]:
    ec2 = f"arn:aws:ec2:eu-central-1:{ACCOUNT}:instance/i-"
    grant = granted("fleet", ec2 + "1", ec2 + "2")
    ask = Case(
        name="the first of two", role="fleet", allowed=True, action="ec2:StopInstances", resource=ec2 + "1",
        tags=signed(grant), session=with_expiry(grant.session_policy, NOW),
        keys={"aws:CurrentTime": timestamp(NOW - 1)},
    )  # fmt: skip
    no = dataclasses.replace(ask, allowed=False)
    return [
        ask,
        dataclasses.replace(ask, name="the second of two", resource=ec2 + "2"),
        dataclasses.replace(no, name="a third", resource=ec2 + "3"),
        dataclasses.replace(no, name="the first after its time", keys={"aws:CurrentTime": timestamp(NOW)}),
        dataclasses.replace(no, name="another account", resource=ask.resource.replace(ACCOUNT, OTHER)),
        dataclasses.replace(no, name="no credx-role", tags={}),
    ]


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
        case(
            "several targets where the broker's session policy holds them", LOGIN, asked("fleet"),
            role="fleet", allowed=True,
        ),
        case("an action that is not its own", "sts:AssumeRole", keys),
    ]  # fmt: skip


CASES = [*logs(), *shells(), *admins(), *tasks(), *databases(), *fleets(), *trusted()]


@pytest.fixture(scope="module")
def verdicts() -> list[Any]:
    return outside(CASES)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{c.role}: {c.name}" for c in CASES])
def test_both_engines_say_what_was_meant(number: int, verdicts: list[Any]) -> None:
    case = CASES[number]
    assert case.strictly() == case.allowed
    if case.mute:
        assert isinstance(verdicts[number], dict), "the engine has an answer by now: drop the remark"
    else:
        assert verdicts[number] in ("Allowed", "ImplicitlyDenied", "ExplicitlyDenied"), verdicts[number]
        assert (verdicts[number] == "Allowed") == case.allowed
