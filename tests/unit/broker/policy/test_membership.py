from __future__ import annotations

import dataclasses
import time
from types import MappingProxyType
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from credx.broker.policy.membership import Membership
from credx.broker.policy.rules import Group, Workload

ISSUER = st.sampled_from(["https://a.example.com", "https://b.example.com"])
WORD = st.sampled_from(["x", "X"])
CLAIMS = st.dictionaries(st.sampled_from(["repo", "env"]), WORD | WORD | st.sampled_from([1, None, ["x"]]))
JOBS = st.builds(
    Workload,
    issuer=ISSUER,
    claims=st.dictionaries(st.sampled_from(["repo", "env"]), WORD, min_size=1).map(MappingProxyType),
)
GROUPS = st.dictionaries(
    st.sampled_from(["g1", "g2", "g3", "g4"]),
    st.builds(
        Group,
        issuer=st.none() | ISSUER,
        claims=st.frozensets(WORD, max_size=3),
        users=st.frozensets(st.tuples(ISSUER, WORD), max_size=3),
        workloads=st.lists(JOBS, max_size=3).map(tuple),
    ),
    min_size=1,
)


def member(group: Group, issuer: str, subject: str, values: frozenset[str], claims: dict[str, Any]) -> bool:
    """What a group says, one after another."""
    return (
        (group.issuer == issuer and not group.claims.isdisjoint(values))
        or (issuer, subject) in group.users
        or any(job.issuer == issuer and job.claims.items() <= claims.items() for job in group.workloads)
    )


@given(GROUPS, ISSUER, WORD, st.frozensets(WORD), CLAIMS)
def test_the_index_says_what_the_groups_say(
    groups: dict[str, Group], issuer: str, subject: str, values: frozenset[str], claims: dict[str, Any]
) -> None:
    expected = {name for name, group in groups.items() if member(group, issuer, subject, values, claims)}
    assert Membership(groups).of(issuer, subject, values, claims) == expected


@given(GROUPS, GROUPS, st.tuples(ISSUER, WORD, st.frozensets(WORD), CLAIMS))
def test_a_group_more_changes_nothing_about_the_others(
    groups: dict[str, Group], more: dict[str, Group], who: tuple[Any, ...]
) -> None:
    before = Membership(groups).of(*who)
    after = Membership({**more, **groups}).of(*who)
    assert after & set(groups) == before


def test_ten_thousand_groups_cost_a_request_what_ten_do() -> None:
    def groups(count: int) -> dict[str, Group]:
        one = Group(issuer="i", claims=frozenset({"c"}), users=frozenset(), workloads=())
        return {f"g{n}": dataclasses.replace(one, claims=frozenset({f"c{n}"})) for n in range(count)}

    def cost(found: Membership) -> float:
        best = float("inf")
        for _ in range(20):
            started = time.perf_counter()
            for _ in range(100):
                assert found.of("i", "s", frozenset({"c1", "c2"}), {"iss": "i"}) == {"g1", "g2"}
            best = min(best, time.perf_counter() - started)
        return best

    assert cost(Membership(groups(10_000))) < 5 * cost(Membership(groups(10)))
