"""Does a role trust this token? The three questions STS asks of the trust policy, each on its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from credx.sandbox.aws.context import Context, Value
from credx.sandbox.aws.evaluate import trusts
from credx.sandbox.aws.faults import AwsFault
from credx.sandbox.aws.policy import PolicyError, parse_policy
from credx.strict import timestamp

if TYPE_CHECKING:
    from credx.sandbox.aws.moto_backend import Role
    from credx.sandbox.aws.tokens import WebIdentity

# STS documents these for AssumeRoleWithWebIdentity, or [OBS]: asked for although absent, they have a meaning
KNOWN: Final = frozenset(
    {
        "aws:RequestTag/", "aws:ResourceTag/", "iam:ResourceTag/", "aws:PrincipalTag/", "aws:TagKeys",
        "aws:PrincipalArn", "sts:SourceIdentity", "sts:TransitiveTagKeys",
    }
)  # fmt: skip


def trust_context(
    identity: WebIdentity, role: Role, *, account: str, session_name: str, now: float
) -> Context:
    """Condition keys of one AssumeRoleWithWebIdentity call (IAM User Guide, keys for AWS OIDC federation)."""
    provider, aws = identity.provider, identity.aws
    values: dict[str, Value] = {
        f"{provider.url}:aud": identity.audience,
        f"{provider.url}:sub": identity.subject,
        f"{provider.url}:amr": identity.amr,
        "aws:CurrentTime": timestamp(now),
        "aws:EpochTime": str(int(now)),
        "aws:PrincipalAccount": account,
        "aws:PrincipalType": "User",
        "aws:userid": provider.arn,
        "aws:FederatedProvider": provider.arn,
        "aws:SecureTransport": "true",  # loopback stands for AWS's TLS
        "aws:TagKeys": tuple(aws.tags),
        "sts:TransitiveTagKeys": aws.transitive,
        "sts:RoleSessionName": session_name,
        "sts:RoleAuthorizedByIdp": "true" if aws.roles is not None else "false",
    }
    if identity.azp is not None:
        values[f"{provider.url}:azp"] = identity.azp
    if aws.source_identity is not None:
        values["sts:SourceIdentity"] = aws.source_identity
    values |= {f"aws:RequestTag/{key}": value for key, value in aws.tags.items()}
    for key, value in role.tags.items():
        values |= {f"aws:ResourceTag/{key}": value, f"iam:ResourceTag/{key}": value}
    claims = {f"{provider.url}:{claim}" for claim in ("amr", "azp")}
    return Context(values, KNOWN | claims)


def check_trust(identity: WebIdentity, role: Role, context: Context) -> None:
    """Every action that the token implies must be allowed.

    Raises:
        AwsFault: AccessDenied. The caller learns no more than AWS would say; ``detail`` says why.
    """
    actions = ["sts:AssumeRoleWithWebIdentity"]
    if identity.aws.tags:
        actions.append("sts:TagSession")
    if identity.aws.source_identity is not None:
        actions.append("sts:SetSourceIdentity")
    try:
        policy = parse_policy(role.trust, "trust")
    except PolicyError as exc:
        raise denied(f"trust policy of {role.arn} cannot be read: {exc}") from exc
    for action in actions:
        decision = trusts(policy, action, identity.provider.arn, context)
        if not decision.allowed:
            unsure = "; a statement has a condition this sandbox cannot tell" if decision.unsure else ""
            raise denied(f"{role.arn}: {decision.reason}{unsure}")


def denied(detail: str) -> AwsFault:
    return AwsFault(
        "AccessDenied", 403, "Not authorized to perform sts:AssumeRoleWithWebIdentity", detail=detail
    )
