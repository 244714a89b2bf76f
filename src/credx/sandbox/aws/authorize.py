"""May this session do this operation? Reads the role as it is in IAM now; sessions see edits at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from credx.sandbox.aws.context import Context, Value
from credx.sandbox.aws.evaluate import Decision, decide
from credx.sandbox.aws.faults import Mishap, fault
from credx.sandbox.aws.policy import PolicyError, parse_policy
from credx.strict import timestamp

if TYPE_CHECKING:
    from credx.sandbox.aws.actions import Operation
    from credx.sandbox.aws.moto_backend import Moto, Role
    from credx.sandbox.aws.sessions import Session

# global condition keys that exist and are absent here; aws:MultiFactorAuthPresent stays unknown on purpose:
# what it says for web-identity sessions is not documented
KNOWN: Final = frozenset(
    {
        "aws:PrincipalTag/", "aws:SourceIdentity", "aws:username",
        "s3:prefix", "s3:delimiter", "s3:max-keys", "ssm:SessionDocumentAccessCheck", "ssm:AccessRequestId",
        "aws:TagKeys", "aws:RequestTag/",
    }
)  # fmt: skip

# tags are looked up for SSM targets only; an operation without resource types ("*") has none
TAG_KEYS: Final = frozenset({"aws:ResourceTag/", "ssm:resourceTag/"})


def session_context(
    session: Session, role: Role, *, account: str, region: str, client: str, now: float
) -> Context:
    """Global condition keys of a request by an assumed role (IAM reference, global condition keys)."""
    tags = {key.lower(): value for key, value in role.tags.items()}
    tags |= {key.lower(): value for key, value in session.tags.items()}  # a session tag wins
    values: dict[str, Value] = {
        "aws:PrincipalArn": session.role_arn,
        "aws:PrincipalAccount": account,
        "aws:ResourceAccount": account,
        "aws:PrincipalType": "AssumedRole",
        "aws:userid": session.user_id,
        "aws:FederatedProvider": session.provider_arn,
        "aws:TokenIssueTime": timestamp(session.issued_at),
        "aws:CurrentTime": timestamp(now),
        "aws:EpochTime": str(int(now)),
        "aws:RequestedRegion": region,
        "aws:SourceIp": client,
        "aws:SecureTransport": "true",  # loopback stands for AWS's TLS
        "aws:ViaAWSService": "false",
        "aws:PrincipalIsAWSService": "false",
        **{f"aws:PrincipalTag/{key}": value for key, value in tags.items()},
    }
    if session.source_identity is not None:
        values["aws:SourceIdentity"] = session.source_identity
    return Context(values, KNOWN)


def authorize(
    session: Session, asked: Operation, *, moto: Moto, region: str, client: str, now: float
) -> None:
    """Every resource of the operation must be allowed.

    Raises:
        AwsFault: AccessDenied in the words of the service, with AWS's sentence.
    """
    service = asked.action.partition(":")[0]
    role = moto.role(session.role_arn)
    if role is None or role.id != session.role_id:
        raise fault(service, Mishap.UNKNOWN_KEY, detail=f"the role {session.role_arn} is gone")
    context = session_context(session, role, account=moto.account, region=region, client=client, now=now)
    for resource in asked.resources:
        tagged = TAG_KEYS if service == "ssm" or resource.arn == "*" else frozenset[str]()
        own = context.plus({**asked.keys, **resource.keys}, tagged)
        decision = _decide(asked.action, resource.arn, own, role, session)
        if not decision.allowed:
            where = f" on resource: {resource.arn}" if resource.arn != "*" else ""
            unsure = "; a statement has a condition this sandbox cannot tell" if decision.unsure else ""
            message = (
                f"User: {session.arn} is not authorized to perform: {asked.action}{where} {decision.reason}"
            )
            raise fault(service, Mishap.DENIED, message, detail=message + unsure)


def _decide(action: str, resource: str, context: Context, role: Role, session: Session) -> Decision:
    try:
        identity = [parse_policy(text, "identity") for text in role.policies]
    except PolicyError as exc:  # it may have held a Deny
        return Decision(allowed=False, reason=f"because a policy of the role cannot be read: {exc}")
    return decide(action, resource, context, identity=identity, session=session.policy)
