"""What a policy says, as values. ``file`` and ``roles`` alone build them; ``decide`` works with them.

Everything is frozen and already checked: a name that a rule mentions exists, an ARN is well formed, a
duration is in bounds. Durations are whole seconds.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from credx.broker.policy.membership import Membership

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.jose import TrustedIssuer

NOT_NEEDED: Final = "none"
OPTIONAL: Final = "optional"
REQUIRED: Final = "required"

CLIENT: Final = "client"  # who makes the STS call
BROKER: Final = "broker"

WORKLOAD: Final = "workload"  # the factor of a CI job: its own identity provider's word


@dataclass(frozen=True, kw_only=True)
class BrokerSettings:
    """``[broker]``.

    Attributes:
        issuer: ``iss`` of the tokens that are minted, exact. url: where clients reach the broker.
        rp_id, rp_name: the WebAuthn relying party.
        max_token_age: an ID token issued longer ago than this is refused.
    """

    issuer: str
    url: str
    rp_id: str
    rp_name: str
    max_token_age: int


@dataclass(frozen=True, kw_only=True)
class IssuerRule:
    """One entry of ``[[identity_providers]]``.

    Attributes:
        trusted: what ``credx.jose`` verifies against.
        readable_claim: claim that people are shown as; it identifies nobody.
        groups_claim: names that lead to the claim that ``Group.claims`` are compared with, one for a claim
            at the top; None where ``workloads``.
        mfa_amr: ``amr`` values that speak for the provider's own MFA at a first enrolment; empty: none does.
        scopes: what the CLI asks this provider for.
        workloads: the tokens are those of jobs, not of people.
    """

    trusted: TrustedIssuer
    readable_claim: str
    groups_claim: tuple[str, ...] | None
    mfa_amr: frozenset[str]
    scopes: tuple[str, ...]
    workloads: bool


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Tokens of ``issuer`` in which every one of ``claims`` has exactly this value."""

    issuer: str
    claims: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Group:
    """``[groups.X]``: who is in it. Any one rule suffices.

    Attributes:
        issuer: the provider whose ``groups_claim`` may hold one of ``claims``; None without ``claims``.
        users: (issuer, subject) of single people.
    """

    issuer: str | None
    claims: frozenset[str]
    users: frozenset[tuple[str, str]]
    workloads: tuple[Workload, ...]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """An IAM statement of a session policy. ``${target}`` in a resource stands for each asked resource."""

    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """``[roles.X.scopes.Y]``: session policy statements, principal tags in the signed token, or both."""

    name: str
    description: str
    statements: tuple[Statement, ...]
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Role:
    """``[roles.X]``.

    Attributes:
        groups: names of groups; a member of one may ask.
        factors: accepted kinds. user_verification: a WebAuthn proof must carry UV.
        duration: given when none is asked. max_duration: the most that may be asked.
        sts: ``client`` or ``broker``. roles_claim: the trust policy asks for ``sts:RoleAuthorizedByIdp``.
        factor_max_age: one proof serves that long within ``factor_group``; 0 is a proof per issuance.
        target: ``none``, ``optional`` or ``required``. targets: ARN patterns, one of which must match.
        reason: ``optional`` or ``required``.
        operations: ``creds``, ``shell``, ``run``, ``forward:HOST:PORT`` with ``*`` in host and port.
        statements: what the session policy says whatever the scopes.
        default_scopes: taken when none is asked.
    """

    name: str
    description: str
    arn: str
    partition: str
    account: str
    region: str
    groups: frozenset[str]
    factors: tuple[str, ...]
    user_verification: bool
    duration: int
    max_duration: int
    sts: str
    roles_claim: bool
    factor_max_age: int
    factor_group: str
    target: str
    targets: tuple[str, ...]
    reason: str
    operations: tuple[str, ...]
    statements: tuple[Statement, ...]
    scopes: Mapping[str, Scope]
    default_scopes: tuple[str, ...]

    @property
    def narrows(self) -> bool:
        """Some session of this role has a session policy; then none may go without."""
        return bool(self.statements) or any(scope.statements for scope in self.scopes.values())


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A whole policy file. ``version``: the first 16 hex digits of SHA-256 of its text."""

    version: str
    broker: BrokerSettings
    issuers: Mapping[str, IssuerRule]
    groups: Mapping[str, Group]
    roles: Mapping[str, Role]

    @functools.cached_property
    def membership(self) -> Membership:
        """Made at the first request and kept: the policy does not change."""
        return Membership(self.groups)

    @functools.cached_property
    def roles_of(self) -> Mapping[str, frozenset[str]]:
        """Name of a group: names of the roles that it opens."""
        found: dict[str, set[str]] = {name: set() for name in self.groups}
        for role in self.roles.values():
            for group in role.groups:
                found.setdefault(group, set()).add(role.name)
        return {name: frozenset(roles) for name, roles in found.items()}
