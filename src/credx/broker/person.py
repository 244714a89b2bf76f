"""Who asks: a person or a workload, made out of verified claims and nothing else.

Looked up by (issuer, subject) only. Groups are resolved here once, to names of the policy, so that no claim
reaches a decision in any other way.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from credx.errors import Refusal
from credx.jose import CLOCK_LEEWAY

if TYPE_CHECKING:
    from credx.broker.policy.rules import IssuerRule, Policy
    from credx.model import VerifiedClaims

MAX_USER: Final = 55  # characters: with ``-`` and 8 digits of an issuance a RoleSessionName has 64 (STS API)
USER_HASH: Final = 16  # hex digits that keep two people with one readable name apart (ADR 9)
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
    return _person(
        policy, claims.issuer, claims.subject, claims.claims, amr=claims.amr, auth_time=claims.auth_time
    )


def suppose(policy: Policy, issuer: str, subject: str, claims: Mapping[str, Any]) -> Person:
    """Who somebody would be whose ID token said this. Nobody has signed it: for explaining alone.

    Raises:
        Refusal: as ``person_of``.
    """
    return _person(policy, issuer, subject, claims, amr=(), auth_time=None)


def _person(
    policy: Policy,
    issuer: str,
    subject: str,
    claims: Mapping[str, Any],
    *,
    amr: tuple[str, ...],
    auth_time: int | None,
) -> Person:
    rule = policy.issuers.get(issuer)
    if rule is None:
        raise Refusal("invalid_token", "the identity provider is not trusted here", "issuer not in policy")
    try:
        user_key = user_key_of(issuer, subject)
    except ValueError as exc:
        raise Refusal("invalid_token", "the subject of the ID token is not usable", str(exc)) from exc
    values = _group_values(rule, claims)
    return Person(
        user_key=user_key,
        user=shown_name(claims.get(rule.readable_claim), user_key),
        issuer=issuer,
        subject=subject,
        groups=policy.membership.of(issuer, subject, values, claims),
        workload=rule.workloads,
        amr=amr,
        auth_time=auth_time,
    )


def user_key_of(issuer: str, subject: str) -> str:
    """Hex SHA-256(issuer NUL subject): nothing is folded, trimmed or left out, so no two pairs are one person.

    Raises:
        ValueError: one of them is empty or has characters that nobody can see.
    """
    for name, text in (("issuer", issuer), ("subject", subject)):
        if not text.isprintable() or not text:
            raise ValueError(f"the {name} is empty or not printable throughout")
    return hash_of(issuer, subject)


def hash_of(issuer: str, subject: str) -> str:
    """``user_key_of`` of what is no person's name perhaps, as a record of a refusal may hold it."""
    return hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()


def shown_name(readable: object, user_key: str) -> str:
    """What AWS and the audit show: a claim, cleaned and cut, which identifies nobody, and the hash, which does."""
    text = readable if isinstance(readable, str) else ""
    cleaned = _NOT_IN_USER.sub("-", text)[: MAX_USER - USER_HASH - 1].strip("-")
    return f"{cleaned or 'user'}-{user_key[:USER_HASH]}"


def accepts_idp_mfa(policy: Policy, person: Person, now: float) -> bool:
    """Whether the provider's own MFA speaks for a first enrolment: allowed, attested and fresh."""
    rule = policy.issuers.get(person.issuer)
    if rule is None or person.workload or person.auth_time is None:
        return False
    fresh = -CLOCK_LEEWAY <= now - person.auth_time <= IDP_MFA_MAX_AGE
    return fresh and not rule.mfa_amr.isdisjoint(person.amr)


def _group_values(rule: IssuerRule, claims: Mapping[str, Any]) -> frozenset[str]:
    """The values of the groups claim. Absent means none; left out by the provider never does (Entra overage)."""
    path = rule.groups_claim
    if path is None:
        return frozenset()
    elsewhere = claims.get("_claim_names", {})  # claims that are somewhere else (OpenID Connect Core 5.6.2)
    too_long = path == ("groups",) and claims.get("hasgroups")  # Entra, for a token that came in a URL
    if too_long or not isinstance(elsewhere, dict) or path[0] in elsewhere:
        raise Refusal(
            "access_denied",
            "your identity provider left the list of groups out of the ID token because it is too long;"
            " an administrator must limit the claim to the groups assigned to this application",
            "group overage",
        )
    value: object = claims
    for name in path[:-1]:
        value = value.get(name, {}) if isinstance(value, Mapping) else None
    value = value.get(path[-1], []) if isinstance(value, Mapping) else None
    values = [value] if isinstance(value, str) else value
    if (
        not isinstance(values, list)
        or len(values) > MAX_GROUPS
        or not all(isinstance(v, str) for v in values)
    ):
        raise Refusal(
            "access_denied",
            "the groups in the ID token are not understood",
            f"claim {' > '.join(path)} is neither a string nor a list of strings",
        )
    return frozenset(values)
