"""What must hold of every policy: nothing without a rule for it, and a rule more changes nothing for the others."""

from __future__ import annotations

import dataclasses
import json
import time
from types import MappingProxyType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from credx.broker.person import suppose
from credx.broker.policy import decide, roles_for
from credx.broker.policy.file import parse_policy
from credx.broker.policy.review import review
from credx.broker.policy.rules import Group, Policy, Role, Scope, Statement
from credx.model import Denial, Grant
from credx.protocol import Ask

IDP = "https://idp.example.com"
BASE = parse_policy(
    """version = 1
[broker]
issuer = "https://credx.example.com"
[[identity_providers]]
issuer = "https://idp.example.com"
client_id = "c"
[groups.g0]
claims = ["g0"]
[roles.r0]
arn = "arn:aws:iam::111122223333:role/r0"
region = "eu-central-1"
groups = ["g0"]
factors = ["webauthn"]
"""
)

INSTANCE = "arn:aws:ec2:eu-central-1:111122223333:instance/"
TARGETS = [INSTANCE + "*", INSTANCE + "i-0a*", INSTANCE + "i-0b1", "arn:aws:ec2:*:111122223333:instance/i-*"]
ARNS = [INSTANCE + "i-0a1", INSTANCE + "i-0b1", INSTANCE + "x", INSTANCE.replace("eu", "us") + "i-1", "*"]
OPERATIONS = ["creds", "shell", "forward:db:22", "forward:*:22", "forward:db:*"]


def some(values: list[str], least: int = 0) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), min_size=least, max_size=3, unique=True).map(tuple)


STATEMENTS = st.lists(
    st.builds(
        Statement,
        effect=st.sampled_from(["Allow", "Deny"]),
        actions=some(["s3:GetObject", "s3:*", "ssm:StartSession"], 1),
        resources=some(["*", "${target}", "arn:aws:s3:::b/*"], 1),
    ),
    max_size=2,
).map(tuple)
SCOPE = st.builds(
    Scope,
    name=st.just(""),
    description=st.just(""),
    statements=STATEMENTS,
    tags=st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"])),
)
SCOPES = st.dictionaries(st.sampled_from(["s0", "s1", "s2"]), SCOPE).map(
    lambda found: MappingProxyType(
        {name: dataclasses.replace(scope, name=name) for name, scope in found.items()}
    )
)
ROLE = st.builds(
    dataclasses.replace,
    st.just(BASE.roles["r0"]),
    groups=some(["g0", "g1", "g2"], 1).map(frozenset),
    factors=st.sampled_from([("webauthn",), ("webauthn", "totp"), ("workload",)]),
    max_duration=st.sampled_from([3600, 7200]),
    sts=st.sampled_from(["client", "broker"]),
    target=st.sampled_from(["none", "optional", "required"]),
    targets=some(TARGETS, 1),
    reason=st.sampled_from(["optional", "required"]),
    operations=some(OPERATIONS, 1).map(lambda found: (*found, "creds")),
    statements=STATEMENTS,
    scopes=SCOPES,
)
POLICIES = st.lists(ROLE, min_size=1, max_size=3).map(
    lambda roles: with_roles(BASE, {f"r{n}": role for n, role in enumerate(roles)})
)
ASKS = st.builds(
    Ask,
    role=st.sampled_from(["r0", "r0", "r0", "r1", "r9"]),
    resources=some(ARNS[:2]) | some(ARNS),
    scopes=some(["s0", "s1"]) | some(["s0", "s1", "s2", "s9"]),
    operation=st.sampled_from(["creds", "creds", "creds", "shell", "forward:db:22", "forward:x:22"]),
    duration=st.sampled_from([None, None, None, 900, 3600, 899, 7200, 43201]),
    reason=st.sampled_from(["because", "because", ""]),
)
GROUPS = st.just(["g0", "g1", "g2"]) | st.lists(st.sampled_from(["g0", "g1", "g2"]), unique=True)


def with_roles(policy: Policy, roles: dict[str, Role]) -> Policy:
    named = {name: dataclasses.replace(role, name=name) for name, role in roles.items()}
    one = policy.groups["g0"]
    groups = {f"g{n}": dataclasses.replace(one, claims=frozenset({f"g{n}"})) for n in range(3)}
    return dataclasses.replace(policy, roles=named, groups=groups)


def answered(policy: Policy, groups: list[str], ask: Ask) -> Grant | Denial:
    return decide(policy, suppose(policy, IDP, "s", {"groups": groups}), ask)


@settings(max_examples=150)
@given(POLICIES, ASKS)
def test_who_is_in_no_group_gets_nothing_of_any_policy(policy: Policy, ask: Ask) -> None:
    assert isinstance(answered(policy, ["x"], ask), Denial)
    assert roles_for(policy, suppose(policy, IDP, "s", {})) == []


@settings(max_examples=150)
@given(POLICIES, GROUPS, ASKS)
def test_a_grant_is_named_by_its_role_in_every_point(policy: Policy, groups: list[str], ask: Ask) -> None:
    answer = answered(policy, groups, ask)
    if isinstance(answer, Denial):
        return
    role = policy.roles[ask.role]
    assert role.groups & set(groups)
    assert set(answer.factors) <= set(role.factors)
    assert set(answer.scopes) == set(ask.scopes) <= set(role.scopes)
    assert answer.duration <= role.max_duration
    assert set(answer.resources) == set(ask.resources)
    assert bool(answer.resources) <= (role.target != "none")
    assert bool(answer.resources) >= (role.target == "required")
    assert (answer.session_policy is None) <= (not role.narrows)
    written = json.loads(answer.session_policy)["Statement"] if answer.session_policy else []
    known = [*role.statements, *(s for name in answer.scopes for s in role.scopes[name].statements)]
    assert len(written) <= len(known)
    for statement in written:
        assert statement["Action"] in [list(s.actions) for s in known]


@settings(max_examples=150)
@given(POLICIES, GROUPS, ASKS)
def test_a_list_of_targets_is_granted_exactly_when_each_of_it_is(
    policy: Policy, groups: list[str], ask: Ask
) -> None:
    if len(ask.resources) < 2:
        return
    whole = answered(policy, groups, ask)
    each = [answered(policy, groups, dataclasses.replace(ask, resources=(one,))) for one in ask.resources]
    if isinstance(whole, Grant):
        assert all(isinstance(one, Grant) for one in each)
    elif all(isinstance(one, Grant) for one in each):
        assert "characters" in whole.reason  # each for itself, and too long together


@settings(max_examples=150)
@given(POLICIES, ROLE, GROUPS, ASKS)
def test_a_role_more_leaves_every_other_answer_as_it_was(
    policy: Policy, role: Role, groups: list[str], ask: Ask
) -> None:
    wider = with_roles(policy, {**policy.roles, "new": role})
    assert answered(wider, groups, ask) == answered(policy, groups, ask)


@settings(max_examples=150)
@given(POLICIES, GROUPS, ASKS)
def test_a_group_more_leaves_every_answer_as_it_was(policy: Policy, groups: list[str], ask: Ask) -> None:
    new = Group(issuer=IDP, claims=frozenset({"g0", "g1", "x"}), users=frozenset({(IDP, "s")}), workloads=())
    wider = dataclasses.replace(policy, groups={"new": new, **policy.groups})
    assert answered(wider, groups, ask) == answered(policy, groups, ask)


@settings(max_examples=200)
@given(POLICIES, SCOPE, GROUPS, ASKS)
def test_a_scope_more_widens_no_answer(policy: Policy, scope: Scope, groups: list[str], ask: Ask) -> None:
    """The same, byte for byte, or now a no: where there are scopes one has to be chosen."""
    roles = {
        name: dataclasses.replace(role, scopes={**role.scopes, "new": dataclasses.replace(scope, name="new")})
        for name, role in policy.roles.items()
    }
    before, after = answered(policy, groups, ask), answered(with_roles(policy, roles), groups, ask)
    if isinstance(before, Denial):
        assert isinstance(after, Denial)
    elif isinstance(after, Grant):
        assert after == before
    else:
        assert not ask.scopes or before.session_policy is None


@settings(max_examples=150)
@given(POLICIES, GROUPS, ASKS)
def test_a_deny_more_leaves_what_was_written_and_adds_itself(
    policy: Policy, groups: list[str], ask: Ask
) -> None:
    deny = Statement(effect="Deny", actions=("*",), resources=("arn:aws:s3:::secret/*",))
    roles = {
        name: dataclasses.replace(role, statements=(*role.statements, deny))
        for name, role in policy.roles.items()
    }
    before, after = answered(policy, groups, ask), answered(with_roles(policy, roles), groups, ask)
    if isinstance(after, Grant) and isinstance(before, Grant) and before.session_policy is not None:
        old, new = (json.loads(grant.session_policy or "")["Statement"] for grant in (before, after))
        added = [statement for statement in new if statement not in old]
        assert [statement["Effect"] for statement in added] in ([], ["Deny"])
        assert [statement for statement in new if statement in old] == [s for s in new if s not in added]
        assert all(statement in new for statement in old)


def text(count: int) -> str:
    head = 'version = 1\n[broker]\nissuer = "https://credx.example.com"\n[[identity_providers]]\n'
    roles = (
        f'[groups.g{n}]\nclaims = ["c{n}"]\n[roles.r{n}]\narn = "arn:aws:iam::111122223333:role/r{n}"\n'
        f'region = "eu-central-1"\ngroups = ["g{n}"]\nfactors = ["webauthn"]\n'
        for n in range(count)
    )
    return "".join([head, f'issuer = "{IDP}"\nclient_id = "c"\n', *roles])


def _best(act: Any) -> float:
    best = float("inf")
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(50):
            act()
        best = min(best, time.perf_counter() - started)
    return best


def test_a_decision_among_ten_thousand_roles_costs_what_one_among_ten_does() -> None:
    small = parse_policy(text(10))
    role, group = small.roles["r1"], small.groups["g1"]
    many = {
        f"r{n}": dataclasses.replace(role, name=f"r{n}", groups=frozenset({f"g{n}"})) for n in range(10_000)
    }
    groups = {f"g{n}": dataclasses.replace(group, claims=frozenset({f"c{n}"})) for n in range(10_000)}
    large = dataclasses.replace(small, roles=many, groups=groups)

    def ask(policy: Policy) -> None:
        person = suppose(policy, IDP, "s", {"groups": ["c1", "c2"]})
        assert isinstance(decide(policy, person, Ask(role="r1")), Grant)
        assert len(roles_for(policy, person)) == 2

    assert _best(lambda: ask(large)) < 4 * _best(lambda: ask(small))


def test_a_large_file_is_read_and_reviewed_in_time_that_grows_with_it() -> None:
    def cost(count: int) -> float:
        written = text(count)
        started = time.perf_counter()
        assert review(parse_policy(written)) == []
        return time.perf_counter() - started

    cost(10)
    small = min(cost(100) for _ in range(3))
    assert min(cost(1000) for _ in range(2)) < 40 * small  # ten times as long, and room for a busy machine
