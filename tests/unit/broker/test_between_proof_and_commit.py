"""What changes after a proof was verified and before it is committed still counts (CVE-2026-9798 class)."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from credx.broker.administration import set_disabled
from credx.broker.directory import Somebody
from credx.broker.stores import Key, Put
from credx.errors import Refusal
from credx.model import Secret
from credx.protocol import FactorSessionProof, Issued, StepUp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from credx.broker.stores import Write

HERE = "10.0.0.1"
TARGET = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0123456789abcdef0"


def just_before(world: Any, event: str, happens: Callable[[], Any]) -> None:
    """Something happens after everything was read and right before ``event`` is committed."""
    commit = world.audit.commit

    def first(writes: Sequence[Write], record: dict[str, Any], *, now: float) -> None:
        if record["event"] == event:
            world.audit.commit = commit
            happens()
        commit(writes, record, now=now)

    world.audit.commit = first


def refused(call: Callable[[], Any], code: str = "insufficient_authorization") -> None:
    with pytest.raises(Refusal) as caught:
        call()
    assert caught.value.code == code


def disable_factors(world: Any) -> None:
    for item in world.store.query(f"user#{world.user_key()}", "factor#", now=world.clock()):
        put = Put(key=item.key, value=dict(item.value) | {"disabled": True}, expected=item.version)
        world.store.apply([put], now=world.clock())


def shut_out(world: Any, user_key: str) -> Callable[[], None]:
    return lambda: set_disabled(
        world.store,
        world.audit,
        Somebody(user_key, "who"),
        disabled=True,
        administrator="root",
        now=world.clock(),
    )


def test_a_factor_is_disabled(world: Any) -> None:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    just_before(world, "granted", lambda: disable_factors(world))
    refused(lambda: world.ask(token, proof=proof))
    assert world.records("granted") == []
    refused(lambda: world.ask(token))  # nor does it open another session


def test_a_factor_of_an_earlier_proof_is_disabled(world: Any) -> None:
    key, token = world.add_key(), world.token()
    first = world.ask(token, "dev", world.touch(token, key, world.step_up(token, "dev")))
    earlier = FactorSessionProof(factor_session=first.factor_session)
    just_before(world, "granted", lambda: disable_factors(world))
    refused(lambda: world.ask(token, "dev", earlier))
    world.add_app()
    assert isinstance(world.ask(token, "dev", earlier), StepUp)
    assert len(world.records("granted")) == 1


def test_a_workload_is_shut_out(world: Any) -> None:
    just_before(world, "granted", shut_out(world, world.user_key("repo:42:main", "https://ci.example.com")))
    refused(lambda: world.ask(world.job(), "deploy"), "access_denied")
    assert world.records("granted") == []


def test_a_role_takes_codes_no_longer(world: Any) -> None:
    app, token = world.add_app(), world.token()
    proof = world.code(app, world.step_up(token, "other-group"))
    roles = dict(world.policy.roles)
    roles["other-group"] = replace(roles["other-group"], factors=("webauthn",))
    changed = replace(world.policy, roles=MappingProxyType(roles))
    verify = world.broker.second_factor.verify

    def then_it_changes(*args: Any) -> Any:
        proven = verify(*args)
        world.policy = changed
        return proven

    world.broker.second_factor.verify = then_it_changes
    refused(lambda: world.ask(token, "other-group", proof))
    assert world.records("granted") == []


def test_two_factors_prove_one_session_and_one_wins(world: Any) -> None:
    key, app, token = world.add_key(), world.add_app(), world.token()
    step_up = world.step_up(token, "dev")
    touch, code = world.touch(token, key, step_up), world.code(app, step_up)
    other: list[Any] = []
    just_before(world, "granted", lambda: other.append(world.ask(token, "dev", code)))
    refused(lambda: world.ask(token, "dev", touch))
    assert isinstance(other[0], Issued)
    assert len(world.records("granted")) == 1


def test_two_first_enrolments_with_idp_mfa_and_one_wins(world: Any, new_key: Any) -> None:
    token = world.token(amr=["mfa"], auth_time=int(world.clock()))
    enrolment = world.broker.enrolment
    begun = [enrolment.begin(token, HERE, kind="webauthn", name=name) for name in ("one", "two")]
    answers = [new_key().register(each["public_key"]) for each in begun]

    def complete(number: int) -> Any:
        handle = Secret(begun[number]["enrolment"])
        return enrolment.complete(token, HERE, handle, registration=answers[number])

    just_before(world, "enrolled", lambda: complete(1))
    refused(lambda: complete(0), "temporarily_unavailable")
    refused(lambda: complete(0), "access_denied")
    assert [f["name"] for f in world.broker.own_factors.listing(token, HERE)] == ["two"]


def test_one_invitation_completes_twice_and_one_wins(world: Any, new_key: Any) -> None:
    token, invitation = world.token(), world.invite()
    enrolment = world.broker.enrolment
    begun = [
        enrolment.begin(token, HERE, kind="webauthn", name=name, invited=invitation)
        for name in ("one", "two")
    ]
    answers = [new_key().register(each["public_key"]) for each in begun]

    def complete(number: int) -> Any:
        handle = Secret(begun[number]["enrolment"])
        return enrolment.complete(token, HERE, handle, registration=answers[number])

    just_before(world, "enrolled", lambda: complete(1))
    refused(lambda: complete(0), "temporarily_unavailable")
    refused(lambda: complete(0), "access_denied")
    assert world.store.get(Key(f"user#{world.user_key()}", "profile"), now=world.clock()) is not None


def test_the_factor_that_allowed_an_enrolment_is_disabled(world: Any, new_key: Any) -> None:
    key, token = world.add_key(), world.token()
    enrolment = world.broker.enrolment
    step_up = enrolment.begin(token, HERE, kind="webauthn", name="new")
    begun = enrolment.begin(token, HERE, kind="webauthn", name="new", proof=world.touch(token, key, step_up))
    disable_factors(world)
    answer = new_key().register(begun["public_key"])
    refused(
        lambda: enrolment.complete(token, HERE, Secret(begun["enrolment"]), registration=answer),
        "access_denied",
    )


def test_touching_without_a_pin_removes_nothing(world: Any) -> None:
    key, token = world.add_key(), world.token()
    own = world.broker.own_factors
    factor_id = own.listing(token, HERE)[0]["id"]
    proof = world.touch(token, key, own.remove(token, HERE, factor_id), flags=0x01)
    assert isinstance(own.remove(token, HERE, factor_id, proof=proof), StepUp)
    assert len(own.listing(token, HERE)) == 1


def test_no_policy_makes_an_earlier_proof_serve_for_a_target(world: Any) -> None:
    roles = dict(world.policy.roles)  # the policy file refuses this; the service does not rely on it
    roles["shell"] = replace(roles["shell"], factor_max_age=8 * 3600, factor_group="dev")
    world.policy = replace(world.policy, roles=MappingProxyType(roles))
    key, token = world.add_key(), world.token()
    first = world.ask(token, "dev", world.touch(token, key, world.step_up(token, "dev")))
    earlier = FactorSessionProof(factor_session=first.factor_session)
    asked: dict[str, Any] = {"resources": (TARGET,), "operation": "shell"}
    step_up = world.ask(token, "shell", earlier, **asked)
    assert isinstance(step_up, StepUp)
    issued = world.ask(token, "shell", world.touch(token, key, step_up), **asked)
    assert isinstance(issued, Issued)
    assert issued.factor_session is None
