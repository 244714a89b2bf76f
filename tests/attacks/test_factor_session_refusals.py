"""An earlier proof that serves for a while: for whom, where and when it does not."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import TARGET, UP, SecurityKey

from credx.model import Secret
from credx.protocol import FactorSessionProof, StepUp

if TYPE_CHECKING:
    from support.front import Front

HOURS = 3600


def proved(
    front: Front, token: Secret, key: SecurityKey, role: str = "dev", **bend: Any
) -> FactorSessionProof:
    world = front.world
    proof = world.touch(token, key, world.step_up(token, role), **bend)
    answer = front.issued(lambda: front.ask(token, role, proof))
    return FactorSessionProof(factor_session=Secret(answer.body["factor_session"]))


def test_one_proof_serves_within_its_group(front: Front) -> None:
    key, token = front.world.add_key(), front.world.token()
    earlier = proved(front, token, key)
    front.world.clock.pass_(599)
    again = front.issued(lambda: front.ask(token, "dev-short", earlier))
    assert "factor_session" not in again.body  # its age counts from the proof: nothing is renewed


@pytest.mark.parametrize(
    ("role", "more"),
    [
        ("other-group", {}),
        ("prod", {}),
        ("shell", {"resources": (TARGET,), "operation": "shell"}),
    ],
)
def test_a_session_for_a_role_of_another_group_with_no_memory_or_with_a_target(
    front: Front, role: str, more: dict[str, Any]
) -> None:
    key, token = front.world.add_key(), front.world.token()
    earlier = proved(front, token, key)
    front.refused(lambda: front.ask(token, role, earlier, **more), cause="does not serve here")


def test_a_session_for_a_role_of_the_group_that_requires_a_target(front: Front) -> None:
    world = front.world
    shell = dataclasses.replace(world.policy.roles["shell"], factor_max_age=8 * HOURS, factor_group="dev")
    roles = {**world.policy.roles, "shell": shell}  # no policy file can say so
    world.policy = dataclasses.replace(world.policy, roles=roles)
    key, token = world.add_key(), world.token()
    earlier = proved(front, token, key)
    ask = {"resources": (TARGET,), "operation": "shell"}
    front.refused(lambda: front.ask(token, "shell", earlier, **ask), cause="does not serve here")
    proof = world.touch(token, key, world.step_up(token, "shell", **ask))
    assert "factor_session" not in front.issued(lambda: front.ask(token, "shell", proof, **ask)).body


def test_a_session_used_by_another_person(front: Front) -> None:
    world = front.world
    earlier = proved(front, world.token(), world.add_key())
    world.add_key("mallory")
    front.refused(lambda: front.ask(world.token("mallory"), "dev", earlier), cause="not known")


def test_a_session_after_the_roles_time(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    earlier = proved(front, token, key)
    world.clock.pass_(601)
    front.refused(lambda: front.ask(token, "dev-short", earlier), cause="too old")
    world.clock.pass_(8 * HOURS - 601)
    front.refused(lambda: front.ask(world.token(), "dev", earlier), cause="not known, or ended")


def test_a_session_whose_factor_was_removed(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    spare = world.add_key(name="spare")
    earlier, of_spare = proved(front, token, key), proved(front, token, spare)
    gone = front.factor_id(name="key")
    proof = world.touch(token, key, StepUp.from_json(front.remove(token, gone).body))
    assert front.remove(token, gone, proof).status == 204
    front.refused(lambda: front.ask(token, "dev", earlier), cause="not known, or ended")
    front.issued(lambda: front.ask(token, "dev", of_spare))


def test_a_session_after_logging_out(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    earlier = proved(front, token, key)
    assert front.send("DELETE", "/factor-sessions", token=token).body == {"ended": 1}
    front.refused(lambda: front.ask(token, "dev", earlier), cause="not known, or ended")


def test_a_session_after_its_person_was_disabled(front: Front) -> None:
    key, token = front.world.add_key(), front.world.token()
    earlier = proved(front, token, key)
    front.disable()
    front.refused(lambda: front.ask(token, "dev", earlier), "access_denied", cause="user disabled")
    front.disable(disabled=False)  # coming back does not bring it back
    front.refused(lambda: front.ask(token, "dev", earlier), cause="not known, or ended")


def test_a_session_for_adding_and_removing_a_factor(front: Front) -> None:
    key, token = front.world.add_key(), front.world.token()
    earlier = proved(front, token, key)
    for kind in ("webauthn", "totp"):
        front.refused(lambda kind=kind: front.enrol(token, kind, proof=earlier), cause="does not serve here")
    front.refused(lambda: front.remove(token, front.factor_id(), earlier), cause="does not serve here")


def test_a_session_of_a_weaker_proof(front: Front) -> None:
    world = front.world
    app, key, token = world.add_app(), world.add_key(), world.token()
    typed = front.issued(lambda: front.ask(token, "dev", world.code(app, world.step_up(token, "dev"))))
    by_code = FactorSessionProof(factor_session=Secret(typed.body["factor_session"]))
    front.refused(lambda: front.ask(token, "dev-key", by_code), cause="of a kind that does not serve")
    touched = proved(front, token, key, "touch", flags=UP)
    front.refused(lambda: front.ask(token, "dev", touched), cause="without user verification")
    front.issued(lambda: front.ask(token, "touch", touched))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            '["webauthn", "totp"]\nduration = "1h"\nroles_claim = true\nfactor_max_age = "8h"\nfactor_group = "dev"',
            '["webauthn", "totp"]\nduration = "1h"\nroles_claim = true\nfactor_max_age = "0"\nfactor_group = "dev"',
        ),
        ('factor_max_age = "8h"\nfactor_group = "dev"\n', 'factor_max_age = "8h"\nfactor_group = "dev2"\n'),
        ('factor_max_age = "8h"\nfactor_group = "dev"\n', 'factor_max_age = "1m"\nfactor_group = "dev"\n'),
    ],
    ids=["takes no earlier proof", "is of another group", "wants a younger proof"],
)
def test_a_session_verified_before_the_policy_changed_so_that_the_role(
    front: Front, old: str, new: str
) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    earlier = proved(front, token, key)
    world.clock.pass_(90)
    verify = world.broker.second_factor.verify

    def then_the_policy_changes(*args: Any) -> Any:
        proven = verify(*args)
        world.change_policy(old, new)
        return proven

    world.broker.second_factor.verify = then_the_policy_changes  # type: ignore[method-assign]
    front.refused(lambda: front.ask(token, "dev", earlier))


def test_two_kinds_of_proof_at_once(front: Front) -> None:
    key, token = front.world.add_key(), front.world.token()
    earlier = proved(front, token, key)
    session = front.world.step_up(token, "dev").auth_session.reveal()
    from credx.protocol import Ask, TokenRequest

    form = TokenRequest(subject_token=token, ask=Ask(role="dev"), proof=earlier).to_form()
    front.refused(
        lambda: front.form(form + f"&auth_session={session}&otp=123456".encode()),
        "invalid_request",
        verified=False,
    )
