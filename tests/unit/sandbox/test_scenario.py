"""The scenario against the broker's policy reader and the AWS front's own policy parser."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from credx.broker.policy_file import parse_policy
from credx.sandbox import scenario
from credx.sandbox.aws.policy import parse_policy as parse_aws

if TYPE_CHECKING:
    from credx.broker.rules import Policy

BROKER = "http://localhost:8080"
HOST = "localhost:8080"


@pytest.fixture(scope="module")
def policy() -> Policy:
    return parse_policy(
        scenario.policy_text(broker=BROKER, issuer="http://localhost:9090", client_id="credx-cli")
    )


def test_every_role_has_permissions_and_the_other_way_round(policy: Policy) -> None:
    assert set(policy.roles) == set(scenario.PERMISSIONS)
    for role in policy.roles.values():
        assert parse_aws(scenario.permissions(role.name), "identity").statements
        assert (role.account, role.region) == (scenario.ACCOUNT, scenario.REGION)


def test_every_trust_policy_pins_audience_role_factor_and_source_identity(policy: Policy) -> None:
    for role in policy.roles.values():
        text = scenario.trust(role, broker=BROKER)
        assert parse_aws(text, "trust").statements
        login, tags, who = json.loads(text)["Statement"]
        equals = login["Condition"]["StringEquals"]
        assert equals[f"{HOST}:aud"] == "credx:aws:111122223333"
        assert equals["aws:RequestTag/credx-role"] == role.name
        assert equals["aws:RequestTag/credx-factor"] == list(role.factors)
        assert login["Condition"]["StringLike"] == {f"{HOST}:sub": f"role:{role.name}:user:*"}
        assert ("Bool" in login["Condition"]) == role.roles_claim
        assert (tags["Action"], who["Action"]) == ("sts:TagSession", "sts:SetSourceIdentity")


def test_tags_are_allowed_for_the_roles_that_send_them_only(policy: Policy) -> None:
    def keys(name: str) -> set[str]:
        statement = json.loads(scenario.trust(policy.roles[name], broker=BROKER))["Statement"][1]
        return set(statement["Condition"]["ForAllValues:StringEquals"]["aws:TagKeys"])

    common = {"credx-role", "credx-factor", "credx-issuance"}
    assert keys("dev") == common
    assert keys("prod-shell") == {*common, "credx-target"}
    assert keys("prod-logs") == {*common, "credx-scope-read", "credx-scope-write", "credx-scope-secret"}


def test_sessions_are_as_short_as_iam_lets_them_be(policy: Policy) -> None:
    assert {scenario.max_session(role) for role in policy.roles.values()} == {3600}
