"""Who is in which groups of a policy, looked up: a request costs as much with ten groups as with ten thousand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.broker.policy.rules import Group, Workload


class Membership:
    """An index of ``[groups]``. Every comparison is one of whole strings."""

    def __init__(self, groups: Mapping[str, Group]) -> None:
        self._by_claim: dict[tuple[str, str], set[str]] = {}  # (issuer, value of the groups claim)
        self._by_user: dict[tuple[str, str], set[str]] = {}  # (issuer, subject)
        # (issuer, one claim of the job, its value): the others are compared when that one is there
        self._by_job: dict[tuple[str, str, str], list[tuple[str, Workload]]] = {}
        for name, group in groups.items():
            if group.issuer is not None:
                for value in group.claims:
                    self._by_claim.setdefault((group.issuer, value), set()).add(name)
            for user in group.users:
                self._by_user.setdefault(user, set()).add(name)
            for job in group.workloads:
                claim = next(iter(job.claims))  # there is one: the file's reader sees to it
                self._by_job.setdefault((job.issuer, claim, job.claims[claim]), []).append((name, job))

    def of(
        self, issuer: str, subject: str, values: frozenset[str], claims: Mapping[str, Any]
    ) -> frozenset[str]:
        """Names of the groups that somebody is in.

        ``values``: of the groups claim; ``claims``: of the whole token, which jobs are known by.
        """
        found = set(self._by_user.get((issuer, subject), ()))
        for value in values:
            found |= self._by_claim.get((issuer, value), set())
        for claim, value in claims.items():
            if isinstance(value, str):
                for name, job in self._by_job.get((issuer, claim, value), ()):
                    if all(_is(claims.get(other), wanted) for other, wanted in job.claims.items()):
                        found.add(name)
        return frozenset(found)


def _is(claim: object, value: str) -> bool:
    return isinstance(claim, str) and claim == value
