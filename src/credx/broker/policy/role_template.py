"""What AWS must be told of one role: provider, trust policy, permission policy, longest session. Pure.

The one home of trust policies: ``credx broker template`` prints them and the sandbox runs on them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from credx.broker.mint import audience
from credx.broker.policy.role_permissions import (
    CHECK_HINT,
    MAX_MANAGED_POLICY,
    held_by_tag,
    permission_notes,
    permission_policy,
)
from credx.broker.policy.rules import NOT_NEEDED, REQUIRED
from credx.broker.policy.session_policy import VERSION
from credx.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.broker.policy.rules import Policy, Role

TRUST_QUOTA: Final = 2048  # characters of a role trust policy, IAM quotas: what an account starts with
MAX_TRUST_POLICY: Final = 4096  # and the most that AWS raises it to
SHORTEST_MAX_SESSION: Final = 3600  # seconds, IAM MaxSessionDuration


@dataclass(frozen=True, kw_only=True)
class RoleTemplate:
    """JSON objects, except ``max_session_duration`` (seconds) and ``notes`` (what they cannot say)."""

    role: str
    max_session_duration: int
    trust_policy: Mapping[str, Any]
    permission_policy: Mapping[str, Any]
    provider: Mapping[str, Any]
    notes: tuple[str, ...]


def role_template(policy: Policy, role: Role) -> RoleTemplate:
    """Everything that AWS must be told of ``role``, a role of ``policy``.

    Raises:
        ConfigError: IAM would not take it.
    """
    issuer = policy.broker.issuer
    trust, permissions = trust_policy(role, issuer), permission_policy(role)
    notes = permission_notes(role)
    if (size := _size(trust)) > MAX_TRUST_POLICY:
        raise ConfigError(
            f"role {role.name}: the trust policy has {size} characters, IAM takes {MAX_TRUST_POLICY}: fewer tags",
            hint=CHECK_HINT,
        )
    if size > TRUST_QUOTA:
        notes.append(
            f"the trust policy has {size} characters: have the quota of {TRUST_QUOTA} raised to {MAX_TRUST_POLICY}"
        )
    if (size := _size(permissions)) > MAX_MANAGED_POLICY:
        raise ConfigError(
            f"role {role.name}: the permission policy has {size} characters, "
            f"IAM takes {MAX_MANAGED_POLICY}: split the role",
            hint=CHECK_HINT,
        )
    for other in policy.roles.values():
        if other.arn.lower() == role.arn.lower() and other is not role:
            notes.append(f"an IAM role takes one trust policy: give {other.name} another IAM role")
    return RoleTemplate(
        role=role.name,
        max_session_duration=max_session_duration(role),
        trust_policy=trust,
        permission_policy=permissions,
        provider={"url": issuer, "client_ids": [audience(role)]},
        notes=tuple(notes),
    )


def trust_policy(role: Role, issuer: str) -> dict[str, Any]:
    """A trust policy that lets in the broker's token for this role and nothing else.

    One statement for each action, so that every condition key exists where it is tested (IAM User Guide, keys for
    AWS OIDC federation). ``ForAllValues`` holds for no tags at all, hence the ``Null`` beside it.
    """
    url = issuer.partition("://")[2]  # as IAM stores the provider
    principal = {"Federated": f"arn:{role.partition}:iam::{role.account}:oidc-provider/{url}"}
    login: dict[str, Any] = {
        "StringEquals": {
            f"{url}:aud": audience(role),
            "aws:RequestTag/credx-role": role.name,
            "aws:RequestTag/credx-factor": list(role.factors),
        },
        "StringLike": {f"{url}:sub": f"role:{role.name}:user:*"},
        "Null": {"sts:SourceIdentity": "false"},
    }
    if role.target == REQUIRED and held_by_tag(role):
        login["Null"]["aws:RequestTag/credx-target"] = "false"
    if role.roles_claim:
        login["Bool"] = {"sts:RoleAuthorizedByIdp": "true"}
    tags = {"ForAllValues:StringEquals": {"aws:TagKeys": tag_keys(role)}, "Null": {"aws:TagKeys": "false"}}
    who = {"StringLike": {"sts:SourceIdentity": "?*"}}
    return {
        "Version": VERSION,
        "Statement": [
            _statement("Login", "sts:AssumeRoleWithWebIdentity", principal, login),
            _statement("Tags", "sts:TagSession", principal, tags),
            _statement("Who", "sts:SetSourceIdentity", principal, who),
        ],
    }


def tag_keys(role: Role) -> list[str]:
    """Every tag that the broker signs for some session of this role (design, step 6)."""
    target = [] if role.target == NOT_NEEDED else ["credx-target"]
    scopes = sorted({key for scope in role.scopes.values() for key in scope.tags})
    return ["credx-role", "credx-factor", "credx-issuance", *target, *scopes]


def max_session_duration(role: Role) -> int:
    """Seconds, as short as IAM lets it be: with ``sts = "client"`` it is the client that asks for the duration."""
    return max(SHORTEST_MAX_SESSION, role.max_duration)


def _statement(sid: str, action: str, principal: Mapping[str, str], condition: Any) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": action,
        "Principal": principal,
        "Condition": condition,
    }


def _size(document: Mapping[str, Any]) -> int:
    """Characters as IAM counts them: without white space."""
    return len(json.dumps(document, separators=(",", ":"), ensure_ascii=False))
