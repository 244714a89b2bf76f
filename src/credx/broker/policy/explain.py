"""Why somebody would be given something, or not: the walk of ``policy.decide``, told rule by rule.

Nothing is decided here. What an identity provider would say is supposed by whoever asks; what the store knows
of the person is looked up where there is a store, and comes where ``service`` looks at it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credx.broker.person import suppose
from credx.broker.policy import RULES, role_enforcement, scope_enforcement, walk
from credx.broker.policy.rules import REQUIRED, WORKLOAD
from credx.errors import Refusal
from credx.model import Denial

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from credx.broker.person import Person
    from credx.broker.policy.rules import Policy
    from credx.model import Grant
    from credx.protocol import Ask

IDENTITY: Final = "identity"
ACCESS: Final = "access"
ENROLLED: Final = "enrolled"


class Step(NamedTuple):
    """One rule. ``passed``: None where an earlier no left it out. ``text``: what was found, or why not."""

    rule: str
    passed: bool | None
    text: str


class Standing(NamedTuple):
    """What the store knows of a person.

    Attributes:
        disabled: by an administrator.
        factors: (kind, name) of those that are enrolled and not disabled.
        codes_locked: after too many wrong ones.
    """

    disabled: bool
    factors: tuple[tuple[str, str], ...]
    codes_locked: bool


class Explanation(NamedTuple):
    """``session``: what the session would hold, as ``explain`` documents it; None with a no."""

    user: str | None
    groups: tuple[str, ...]
    steps: tuple[Step, ...]
    session: Mapping[str, Any] | None

    @property
    def granted(self) -> bool:
        return self.session is not None

    @property
    def why_not(self) -> str:
        return next((f"{step.rule}: {step.text}" for step in self.steps if step.passed is False), "")


def explain(
    policy: Policy,
    ask: Ask,
    *,
    issuer: str,
    subject: str,
    claims: Mapping[str, Any],
    standing: Standing | None = None,
) -> Explanation:
    """What the broker would answer to ``ask``, and why; ``claims``: what the ID token is supposed to hold.

    The session: ``role_arn``, ``region``, ``duration`` (seconds), ``tags`` (credx-factor and credx-issuance come
    with the proof), ``session_policy`` (a JSON object or None), ``factors``, ``proof_serves`` (seconds, 0 for
    once), ``enforcement`` of the role and of each of ``scopes``.
    """
    try:
        person = suppose(policy, issuer, subject, claims)
    except Refusal as refusal:
        return Explanation(None, (), _rest([Step(IDENTITY, False, refusal.public)], standing), None)
    steps = [Step(IDENTITY, True, _who(person))]
    if standing is not None:
        steps.append(Step(ACCESS, not standing.disabled, "disabled" if standing.disabled else "not disabled"))
    session = None
    if steps[-1].passed:
        answer, passed = walk(policy, person, ask)
        steps += [Step(rule, True, text) for rule, text in zip(RULES, passed, strict=False)]
        if isinstance(answer, Denial):
            rule = RULES[len(passed)]
            steps.append(Step(rule, False, _no(answer) + _instead(policy, ask, rule)))
        else:
            steps += _enrolled(person, answer, standing)
            if steps[-1].passed:
                session = _session(policy, answer)
    return Explanation(person.user, tuple(sorted(person.groups)), _rest(steps, standing), session)


def _rest(steps: Sequence[Step], standing: Standing | None) -> tuple[Step, ...]:
    """The steps, and after a no those that were never reached."""
    rules = (IDENTITY, *RULES) if standing is None else (IDENTITY, ACCESS, *RULES, ENROLLED)
    return (*steps, *(Step(rule, None, "") for rule in rules[len(steps) :]))


def _who(person: Person) -> str:
    kind = "a job" if person.workload else "a person"
    return f"{kind}, in {', '.join(sorted(person.groups)) or 'no group'}"


def _no(denial: Denial) -> str:
    """What the person would read, and what only the audit record says."""
    return denial.public if denial.reason == denial.public else f"{denial.public} ({denial.reason})"


def _instead(policy: Policy, ask: Ask, rule: str) -> str:
    """What the role would take: for administrators, who may know."""
    role = policy.roles.get(ask.role)
    if role is None:
        return ""
    taken: dict[str, Iterable[str]] = {
        "role": role.groups, "factor": role.factors, "operation": role.operations, "target": role.targets,
        "scope": role.scopes,
    }  # fmt: skip
    listed = ", ".join(sorted(taken.get(rule, ())))
    return f"; it takes {listed}" if listed else ""


def _enrolled(person: Person, grant: Grant, standing: Standing | None) -> list[Step]:
    if standing is None:
        return []
    if person.workload and WORKLOAD in grant.factors:
        return [Step(ENROLLED, True, "a job shows its token alone")]
    usable = [(kind, name) for kind, name in standing.factors if kind in grant.factors]
    if usable and standing.codes_locked and all(kind == "totp" for kind, _ in usable):
        return [Step(ENROLLED, False, "codes are locked after too many wrong ones")]
    if not usable:
        return [Step(ENROLLED, False, f"no {' or '.join(grant.factors)} is enrolled")]
    return [Step(ENROLLED, True, ", ".join(f"{name} ({kind})" for kind, name in usable))]


def _session(policy: Policy, grant: Grant) -> dict[str, Any]:
    role = policy.roles[grant.role]
    serves = 0 if role.target == REQUIRED else grant.factor_max_age
    own = {"credx-role": grant.role} | ({"credx-target": grant.target} if grant.target else {})
    return {
        "role_arn": grant.role_arn,
        "region": grant.region,
        "duration": grant.duration,
        "tags": {**grant.tags, **own},
        "session_policy": None if grant.session_policy is None else json.loads(grant.session_policy),
        "factors": list(grant.factors),
        "proof_serves": serves,
        "enforcement": role_enforcement(role),
        "scopes": [
            {"name": name, "enforcement": scope_enforcement(role, role.scopes[name])} for name in grant.scopes
        ],
    }
