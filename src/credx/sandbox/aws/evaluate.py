"""The decision: role policies and the session policy must both allow, and nothing may deny. Pure.

IAM user guide, policy evaluation logic; resource policies, boundaries and organisation policies are not
part of this sandbox.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from credx.sandbox.aws.context import UNKNOWN, Context, Truth, all_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credx.sandbox.aws.policy import Policy, Statement


class Verdict(enum.Enum):
    ALLOW = "allow"
    EXPLICIT_DENY = "explicit deny"
    NO_ALLOW = "no allow"


@dataclass(frozen=True)
class Decision:
    """``reason`` ends AWS's sentence "... because ..."; ``unsure`` marks a statement that could not be told."""

    allowed: bool
    reason: str = ""
    unsure: bool = False


def judge(truths: Sequence[tuple[Statement, Truth]]) -> tuple[Verdict, bool]:
    """Deny wins; a Deny that may apply applies; an Allow counts only when it surely applies."""
    unsure = any(truth is UNKNOWN for _, truth in truths)
    if any(s.effect == "Deny" and truth is not False for s, truth in truths):
        return Verdict.EXPLICIT_DENY, unsure
    if any(s.effect == "Allow" and truth is True for s, truth in truths):
        return Verdict.ALLOW, unsure
    return Verdict.NO_ALLOW, unsure


def decide(
    action: str, resource: str, context: Context, *, identity: Sequence[Policy], session: Policy | None
) -> Decision:
    """Decide one action on one resource.

    Args:
        action: ``service:Name``.
        resource: an ARN, or ``*`` for an action without resource types.
        context: the condition keys of the request.
        identity: the role's policies.
        session: the policy given when the session was made, or None.
    """
    layers = [("identity-based policy", list(identity))]
    if session is not None:
        layers.append(("session policy", [session]))
    verdicts = []
    for name, policies in layers:
        statements = [s for policy in policies for s in policy.statements]
        verdicts.append((name, *judge([(s, s.applies(action, resource, context)) for s in statements])))
    unsure = any(u for _, _, u in verdicts)
    for name, verdict, _ in verdicts:
        if verdict is Verdict.EXPLICIT_DENY:
            article = "an" if name.startswith("i") else "a"
            return Decision(allowed=False, reason=f"with an explicit deny in {article} {name}", unsure=unsure)
    for name, verdict, _ in verdicts:
        if verdict is Verdict.NO_ALLOW:
            return Decision(
                allowed=False, reason=f"because no {name} allows the {action} action", unsure=unsure
            )
    return Decision(allowed=True, unsure=unsure)


def trusts(policy: Policy, action: str, provider_arn: str, context: Context) -> Decision:
    """Whether a role's trust policy lets a federated principal do ``action``."""
    truths: list[tuple[Statement, Truth]] = [
        (s, all_of([s.about(provider_arn), s.applies(action, None, context)])) for s in policy.statements
    ]
    verdict, unsure = judge(truths)
    match verdict:
        case Verdict.ALLOW:
            return Decision(allowed=True, unsure=unsure)
        case Verdict.EXPLICIT_DENY:
            return Decision(allowed=False, reason=f"trust policy denies {action}", unsure=unsure)
        case Verdict.NO_ALLOW:
            return Decision(allowed=False, reason=f"trust policy does not allow {action}", unsure=unsure)
        case _:
            assert_never(verdict)
