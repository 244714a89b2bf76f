"""The scenario against the broker's policy reader and the AWS front's own policy parser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from credx.broker.policy.file import parse_policy
from credx.broker.policy.role_template import role_template
from credx.sandbox import scenario
from credx.sandbox.aws.policy import parse_policy as parse_aws

if TYPE_CHECKING:
    from credx.broker.policy.rules import Policy

BROKER = "http://localhost:8080"


@pytest.fixture(scope="module")
def policy() -> Policy:
    return parse_policy(
        scenario.policy_text(broker=BROKER, issuer="http://localhost:9090", client_id="credx-cli")
    )


def test_every_role_may_do_something(policy: Policy) -> None:
    assert set(scenario.PERMISSIONS) <= set(policy.roles)
    for role in policy.roles.values():
        text = scenario.permissions(role.name, role_template(policy, role).permission_policy)
        assert any(statement.effect == "Allow" for statement in parse_aws(text, "identity").statements)
        assert (role.account, role.region) == (scenario.ACCOUNT, scenario.REGION)


def test_sessions_are_as_short_as_iam_lets_them_be(policy: Policy) -> None:
    assert {role_template(policy, role).max_session_duration for role in policy.roles.values()} == {3600}
