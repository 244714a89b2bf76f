"""Roles and identity providers of a test in the sandbox's AWS."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from credx.sandbox.aws.front import AwsFront


def register_provider(aws: AwsFront, issuer: str, client_ids: Sequence[str]) -> None:
    """Trust an OIDC issuer in this account."""
    aws.admin_client("iam").create_open_id_connect_provider(
        Url=issuer, ClientIDList=list(client_ids), ThumbprintList=["0" * 40]
    )


def put_role(
    aws: AwsFront,
    arn: str,
    *,
    trust: Mapping[str, Any],
    policies: Mapping[str, Mapping[str, Any]],
    max_session: int = 3600,
) -> None:
    """Create a role with a trust policy and inline policies by name; ``max_session`` in seconds."""
    iam = aws.admin_client("iam")
    path, _, name = arn.partition(":role/")[2].rpartition("/")
    iam.create_role(
        RoleName=name,
        Path=f"/{path}/" if path else "/",
        AssumeRolePolicyDocument=json.dumps(trust),
        MaxSessionDuration=max_session,
    )
    for policy, document in policies.items():
        iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))
