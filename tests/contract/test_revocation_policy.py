"""The policy that kills a person's sessions, judged by an IAM engine that nobody here wrote, and by the sandbox's."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from credx.broker.offboarding import deny_policy, ends_at, policy_name
from credx.broker.person import shown_name, user_key_of
from credx.sandbox.aws.authorize import KNOWN
from credx.sandbox.aws.context import Context
from credx.sandbox.aws.evaluate import decide
from credx.sandbox.aws.policy import parse_policy
from credx.strict import timestamp

pytestmark = [
    pytest.mark.component("node"),
    pytest.mark.component("npm:@cloud-copilot/iam-simulate"),
]

NODE = Path(__file__).parents[1] / "node"
ACCOUNT, ACTION, OBJECT = "111122223333", "s3:GetObject", "arn:aws:s3:::logs/app/x"
NOW = 1_800_000_000.0
ISSUER = "https://idp.example.com"
ALICE, BOB = (user_key_of(ISSUER, subject) for subject in ("alice", "bob"))
END = ends_at(NOW)
ALLOW = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ACTION, "Resource": "arn:aws:s3:::logs/*"}],
}
DENY = deny_policy(ALICE[:16], now=NOW)

# name: (who the session is of, when it began, whether it still works)
SESSIONS: dict[str, tuple[str, int, bool]] = {
    "of long ago": (shown_name("alice", ALICE), int(NOW) - 43200, False),
    "of now": (shown_name("alice", ALICE), int(NOW), False),
    "with a token minted just before": (shown_name("alice", ALICE), END - 1, False),
    "with another readable part": (shown_name("alice.smith@example.com", ALICE), int(NOW), False),
    "without a readable part": (shown_name(None, ALICE), int(NOW), False),
    "after a return": (shown_name("alice", ALICE), END, True),
    "of somebody else": (shown_name("bob", BOB), int(NOW), True),
    "of somebody whose readable part ends like hers": (
        shown_name(f"alice-{ALICE[:16]}", BOB), int(NOW), True,
    ),
}  # fmt: skip


def context(name: str) -> dict[str, Any]:
    who, began, _ = SESSIONS[name]
    return {"aws:SourceIdentity": who, "aws:TokenIssueTime": timestamp(began)}


@cache
def outside() -> dict[str, Any]:
    questions = [
        {
            "principal": f"arn:aws:sts::{ACCOUNT}:assumed-role/logs/{SESSIONS[name][0]}",
            "action": ACTION, "resource": OBJECT, "account": ACCOUNT,
            "context": context(name), "identity": [ALLOW, DENY], "session": None,
        }
        for name in SESSIONS
    ]  # fmt: skip
    done = subprocess.run(
        ["node", "simulate.mjs"], cwd=NODE, input=json.dumps(questions), capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    return dict(zip(SESSIONS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", SESSIONS)
def test_the_outside_engine(name: str) -> None:
    assert outside()[name] == ("Allowed" if SESSIONS[name][2] else "ExplicitlyDenied")


@pytest.mark.parametrize("name", SESSIONS)
def test_the_sandbox(name: str) -> None:
    policies = [parse_policy(json.dumps(policy), "identity") for policy in (ALLOW, DENY)]
    decision = decide(ACTION, OBJECT, Context(context(name), KNOWN), identity=policies, session=None)
    assert (decision.allowed, decision.unsure) == (SESSIONS[name][2], False)


def test_without_its_moment_it_ends_what_begins_later_too() -> None:
    """As docs/users.md tells of somebody who does not come back: a session that was chained meanwhile ends as well."""
    policy = json.loads(json.dumps(DENY))
    del policy["Statement"][0]["Condition"]["DateLessThan"]
    policies = [parse_policy(json.dumps(one), "identity") for one in (ALLOW, policy)]
    for name, (who, _, _) in SESSIONS.items():
        decision = decide(ACTION, OBJECT, Context(context(name), KNOWN), identity=policies, session=None)
        assert decision.allowed == who.endswith(BOB[:16])


def test_it_fits_where_it_goes() -> None:
    assert (
        len(json.dumps(DENY)) < 2048
    )  # a role's inline policies have 10 240, an SCP 5120 characters (IAM quotas)
    assert len(policy_name(ALICE[:16])) <= 128
    assert END - NOW == 120 + 300
