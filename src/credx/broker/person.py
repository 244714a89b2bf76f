"""Who asks: a person or a workload, made out of verified claims and nothing else.

Looked up by (issuer, subject) only. Groups are resolved here once, to names of the policy, so that no claim
reaches a decision in any other way.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from credx.errors import Refusal
from credx.jose import CLOCK_LEEWAY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.broker.rules import Group, IssuerRule, Policy
    from credx.model import VerifiedClaims

MAX_USER: Final = 64  # characters of SourceIdentity and RoleSessionName (STS API)
USER_HASH: Final = 8  # hex digits that keep two people with one readable name apart
MAX_GROUPS: Final = 1000  # values of a groups claim; Entra stops at 200, a 16 KiB token holds no more
IDP_MFA_MAX_AGE: Final = 300  # seconds since auth_time (design, enrolment)

_NOT_IN_USER = re.compile(r"[^A-Za-z0-9_+=,.@-]+")  # what is left is STS's [\w+=,.@-]


@dataclass(frozen=True, kw_only=True)
class Person:
    """Attributes:
    user_key: hex SHA-256(issuer NUL subject), the key of everything that is stored.
    user: the readable name that AWS and audit records show; unique by its hash.
    groups: names of the policy's groups.
    workload: a job of an issuer that the policy calls one of workloads.
    """

    user_key: str
    user: str
    issuer: str
    subject: str
    groups: frozenset[str]
    workload: bool
    amr: tuple[str, ...]
    auth_time: int | None


def person_of(policy: Policy, claims: VerifiedClaims) -> Person:
    """The person that verified claims speak of.

    Raises:
        Refusal: the issuer is not in the policy, or who is in which group cannot be told for certain.
    """
    rule = policy.issuers.get(claims.issuer)
    if rule is None:
        raise Refusal("invalid_token", "the identity provider is not trusted here", "issuer not in policy")
    if not claims.subject or not claims.subject.isprintable():
        raise Refusal("invalid_token", "the subject of the ID token is not usable", "sub is not printable")
    values = _group_values(rule, claims.claims)
    user_key = hashlib.sha256(f"{claims.issuer}\0{claims.subject}".encode()).hexdigest()
    return Person(
        user_key=user_key,
        user=_readable(claims.claims.get(rule.readable_claim), user_key),
        issuer=claims.issuer,
        subject=claims.subject,
        groups=frozenset(n for n, group in policy.groups.items() if _member(group, claims, values)),
        workload=rule.workloads,
        amr=claims.amr,
        auth_time=claims.auth_time,
    )


def accepts_idp_mfa(policy: Policy, person: Person, now: float) -> bool:
    """Whether the provider's own MFA speaks for a first enrolment: allowed, attested and fresh."""
    rule = policy.issuers.get(person.issuer)
    if rule is None or person.workload or person.auth_time is None:
        return False
    fresh = -CLOCK_LEEWAY <= now - person.auth_time <= IDP_MFA_MAX_AGE
    return fresh and not rule.mfa_amr.isdisjoint(person.amr)


def _readable(claim: object, user_key: str) -> str:
    text = claim if isinstance(claim, str) else ""
    cleaned = _NOT_IN_USER.sub("-", text)[: MAX_USER - USER_HASH - 1].strip("-")
    return f"{cleaned or 'user'}-{user_key[:USER_HASH]}"


def _group_values(rule: IssuerRule, claims: Mapping[str, Any]) -> frozenset[str]:
    """The values of the groups claim. Absent means none; left out by the provider never does (Entra overage)."""
    if rule.groups_claim is None:
        return frozenset()
    elsewhere = claims.get("_claim_names", {})
    if claims.get("hasgroups") or not isinstance(elsewhere, dict) or rule.groups_claim in elsewhere:
        raise Refusal(
            "access_denied",
            "your identity provider left the list of groups out of the ID token because it is too long;"
            " an administrator must limit the claim to the groups assigned to this application",
            "group overage",
        )
    value = claims.get(rule.groups_claim, [])
    values = [value] if isinstance(value, str) else value
    if (
        not isinstance(values, list)
        or len(values) > MAX_GROUPS
        or not all(isinstance(v, str) for v in values)
    ):
        raise Refusal(
            "access_denied",
            "the groups in the ID token are not understood",
            f"claim {rule.groups_claim} is neither a string nor a list of strings",
        )
    return frozenset(values)


def _member(group: Group, claims: VerifiedClaims, values: frozenset[str]) -> bool:
    return (
        (claims.issuer == group.issuer and not group.claims.isdisjoint(values))
        or (claims.issuer, claims.subject) in group.users
        or any(
            claims.issuer == job.issuer and all(_is(claims.claims.get(n), v) for n, v in job.claims.items())
            for job in group.workloads
        )
    )


def _is(claim: object, value: str) -> bool:
    return isinstance(claim, str) and claim == value
