"""Who must not get a role, however good the proof is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import CI, ISSUER, TARGET

from credx.model import Secret
from credx.protocol import FactorSessionProof, StepUp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.front import Answer, Front

    from credx.broker.stores import Write
    from credx.jose.keys import Fetch

CLOSED = "in none of the role's groups"


def test_a_role_of_another_group_and_a_role_that_is_not_there_look_the_same(front: Front) -> None:
    world = front.world
    world.add_key()
    token = world.token()
    answers = [
        front.refused(lambda: front.ask(token, "foreign"), "access_denied", cause=CLOSED),
        front.refused(lambda: front.ask(token, "nothing-like-it"), "access_denied", cause="no such role"),
        front.refused(lambda: front.ask(token, "deploy"), "access_denied", cause=CLOSED),
    ]
    assert len({answer.raw for answer in answers}) == 1
    assert len({frozenset(answer.headers) for answer in answers}) == 1


@pytest.mark.parametrize(
    ("claims", "cause"),
    [
        ({"groups": []}, CLOSED),
        ({"groups": None}, CLOSED),
        ({"groups": ["SRE", "sre ", "/sre"]}, CLOSED),
        ({"groups": None, "roles": ["sre"]}, CLOSED),
        ({"groups": {"sre": True}}, "neither a string nor a list"),
        ({"groups": [["sre"]]}, "neither a string nor a list"),
        ({"_claim_names": {"groups": "src1"}}, "group overage"),
        ({"hasgroups": True}, "group overage"),
    ],
)
def test_a_role_by_groups_like(front: Front, claims: dict[str, Any], cause: str) -> None:
    front.world.add_key()
    front.refused(lambda: front.ask(front.world.token(**claims)), "access_denied", cause=cause)


def test_a_role_of_people_by_a_workload_and_of_workloads_by_a_person(front: Front) -> None:
    world = front.world
    world.keys._fetch = _both(world.keys._fetch)
    front.issued(lambda: front.ask(world.job(), "deploy"))
    for token, role in [
        (world.job(groups=["sre"]), "prod"),
        (world.job(repository_id="43"), "deploy"),
        (world.job(repository_id=42), "deploy"),
        (world.token(repository_id="42"), "deploy"),
    ]:
        front.refused(lambda token=token, role=role: front.ask(token, role), "access_denied", cause=CLOSED)
    front.refused(lambda: front.enrol(world.job()), "invalid_request", cause="cannot be enrolled")


def _both(fetch: Fetch) -> Fetch:
    def either(url: str, *, deadline: float) -> bytes:
        if CI not in url:
            return fetch(url, deadline=deadline)
        body = fetch(url.replace(CI, ISSUER), deadline=deadline)
        return body.replace(ISSUER.encode(), CI.encode())

    return either


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"role": "shell", "operation": "shell"}, "invalid_target"),
        ({"role": "shell", "operation": "creds", "resources": (TARGET,)}, "access_denied"),
        ({"role": "shell", "operation": "run", "resources": (TARGET,)}, "access_denied"),
        (
            {"role": "shell", "operation": "shell", "resources": (TARGET.replace("1111", "9999"),)},
            "invalid_target",
        ),
        (
            {"role": "shell", "operation": "shell", "resources": (TARGET.replace("eu-", "us-"),)},
            "invalid_target",
        ),
        ({"role": "shell", "operation": "shell", "resources": (TARGET, "*")}, "invalid_target"),
        ({"role": "prod", "resources": (TARGET,)}, "invalid_target"),
        ({"role": "prod", "scopes": ("everything",)}, "invalid_scope"),
        ({"role": "prod", "duration": 3601}, "invalid_request"),
        ({"role": "prod", "duration": 899}, "invalid_request"),
        ({"role": "prod", "operation": "shell"}, "access_denied"),
    ],
)
def test_more_than_the_role_gives(front: Front, more: dict[str, Any], error: str) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    front.refused(lambda: front.ask(token, **more), error)
    proof = world.touch(token, key, world.step_up(token))  # nor with a proof for something else
    front.refused(lambda: front.ask(token, proof=proof, **more), error)


def every_door(front: Front) -> dict[str, Callable[[], Answer]]:
    """Each way on for somebody who is half way: a pending proof, an earlier proof, a pending enrolment."""
    world = front.world
    key, app, token = world.add_key(), world.add_app(), world.token()
    first = front.issued(
        lambda: front.ask(token, "dev", world.touch(token, key, world.step_up(token, "dev")))
    )
    earlier = FactorSessionProof(factor_session=Secret(first.body["factor_session"]))
    touched = world.touch(token, key, world.step_up(token))
    typed = world.code(app, world.step_up(token, "dev"))
    adding = world.touch(token, key, StepUp.from_json(front.enrol(token).body))
    begun = front.enrol(token, "totp", invitation=world.invite()).body
    mine = front.factor_id()
    removing = world.touch(token, key, StepUp.from_json(front.remove(token, mine).body))
    invitation = world.invite()
    return {
        "asking": lambda: front.ask(token),
        "a touch": lambda: front.ask(token, proof=touched),
        "a code": lambda: front.ask(token, "dev", typed),
        "an earlier proof": lambda: front.ask(token, "dev", earlier),
        "a challenge": lambda: front.challenge(token, touched.auth_session.reveal()),
        "adding": lambda: front.enrol(token, proof=adding),
        "an invitation": lambda: front.enrol(token, invitation=invitation),
        "completing": lambda: front.complete(token, begun["enrolment"], otp="123456"),
        "removing": lambda: front.remove(token, mine, removing),
        "logging out": lambda: front.send("DELETE", "/factor-sessions", token=token),
        "roles": lambda: front.send("GET", "/roles", token=token),
        "factors": lambda: front.send("GET", "/factors", token=token),
    }


def test_a_disabled_person_at_every_door(front: Front) -> None:
    doors = every_door(front)
    front.disable()
    for call in doors.values():
        front.refused(call, "access_denied", cause="user disabled")
    front.disable(disabled=False)
    for name in ("a touch", "a code", "an earlier proof", "a challenge", "adding", "removing"):
        front.refused(doors[name], "insufficient_authorization")  # what was pending does not come back
    front.refused(doors["completing"], "invalid_grant")
    front.asked_again(doors["asking"])


@pytest.mark.parametrize("kind", ["a touch", "a code", "an earlier proof", "a job of CI"])
def test_somebody_disabled_between_proof_and_commit_with(front: Front, kind: str) -> None:  # CVE-2026-9798
    front.world.keys._fetch = _both(front.world.keys._fetch)
    doors = every_door(front) | {"a job of CI": lambda: front.ask(front.world.job(), "deploy")}
    call, commit = doors[kind], front.world.audit.commit
    who = ("repo:42:main", CI) if kind == "a job of CI" else ("alice", ISSUER)

    def disabled_first(writes: Sequence[Write], record: dict[str, Any], *, now: float) -> None:
        if record["event"] == "granted":
            front.world.audit.commit = commit  # type: ignore[method-assign]
            front.disable(*who)
        commit(writes, record, now=now)

    front.world.audit.commit = disabled_first  # type: ignore[method-assign,assignment]
    before = len(front.world.records("granted"))
    answer = call()
    assert (answer.status, answer.body["error"]) == (403, "access_denied")
    front.nothing_in(answer)
    assert len(front.world.records("granted")) == before
    assert [r["event"] for r in front.world.records()][-2:] == ["disabled", "refused"]


CHANGES = {
    "takes the group away": ('claims = ["sre"]', 'claims = ["nobody"]', "access_denied"),
    "takes the role away": ("[roles.prod]", "[roles.prod2]", "access_denied"),
    "stops to trust the provider": ("", "", "invalid_token"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("when", ["before the proof is presented", "before the commit"])
def test_a_policy_that(front: Front, change: str, when: str) -> None:
    world = front.world
    old, new, error = CHANGES[change]
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))

    def change_it() -> None:
        if error == "invalid_token":
            world.policy = replace(world.policy, issuers={})
        else:
            world.change_policy(old, new)

    if when == "before the commit":
        verify = world.broker.second_factor.verify

        def then(*args: Any) -> Any:
            proven = verify(*args)
            change_it()
            return proven

        world.broker.second_factor.verify = then  # type: ignore[method-assign]
        front.refused(lambda: front.ask(token, proof=proof), error)
        return
    change_it()
    unknown = error == "invalid_token"
    front.refused(lambda: front.ask(token, proof=proof), error, verified=not unknown, line="token_refused")


def test_a_code_for_a_role_that_stopped_to_take_codes(front: Front) -> None:
    world = front.world
    app, token = world.add_app(), world.token()
    proof = world.code(app, world.step_up(token, "dev"))
    dev = replace(world.policy.roles["dev"], factors=("webauthn",))
    stricter = replace(world.policy, roles={**world.policy.roles, "dev": dev})
    verify = world.broker.second_factor.verify

    def then(*args: Any) -> Any:
        proven = verify(*args)
        world.policy = stricter
        return proven

    world.broker.second_factor.verify = then  # type: ignore[method-assign]
    front.refused(lambda: front.ask(token, "dev", proof), cause="not accepted here")
    world.broker.second_factor.verify = verify  # type: ignore[method-assign]
    front.refused(lambda: front.ask(token, "dev", proof), cause="codes are not accepted")
