"""What an outside review got through with, each named after what is refused since."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import NOW, POLICY, ROLES, SecurityKey, World, parse_policy, role

from credx.broker.pace import BURST, PERSON_BURST, RATE, Pace
from credx.broker.policy.arn import matches
from credx.errors import ConfigError, Refusal
from credx.model import Secret
from credx.protocol import FactorSessionProof, Issued, StepUp

if TYPE_CHECKING:
    from support.front import Front

HERE = "10.0.0.1"
AT = "eu-central-1:111122223333"
NAMED = (
    'target = "required"\ntargets = ['
    f'"arn:aws:rds:{AT}:db:dev-*", "arn:aws:ec2:{AT}:instance/i-0de*", "arn:aws:ecs:{AT}:task/dev-*/*"]'
)


@pytest.fixture
def world() -> World:
    return World()


def target_tag(issued: Any) -> list[str]:
    assert isinstance(issued, Issued)
    payload = issued.token.reveal().split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    tag: list[str] = claims["https://aws.amazon.com/tags"]["principal_tags"]["credx-target"]
    return tag


# -- the tag credx-target is what the role's policy in AWS compares: no pattern may let another name into it


@pytest.mark.parametrize(
    "resource",
    [
        f"arn:aws:rds:{AT}:db:dev-x:prod",
        f"arn:aws:rds:{AT}:db:dev-x/prod",
        f"arn:aws:ec2:{AT}:instance/i-0de/i-0prod00000000000",
        f"arn:aws:ec2:{AT}:instance/i-0de:i-0prod00000000000",
    ],
)
def test_a_target_that_starts_as_allowed_and_ends_as_another(world: World, resource: str) -> None:
    world.policy = parse_policy(POLICY + ROLES + role("named", more=NAMED))
    world.add_key()
    with pytest.raises(Refusal) as refused:
        world.ask(world.token(), "named", resources=(resource,))
    assert refused.value.code == "invalid_target"


@pytest.mark.parametrize(
    ("resource", "tag"),
    [
        (f"arn:aws:rds:{AT}:db:dev-x", "dev-x"),
        (f"arn:aws:ec2:{AT}:instance/i-0de5", "i-0de5"),
        (f"arn:aws:ecs:{AT}:task/dev-a/0123", "0123"),
    ],
)
def test_the_control_a_target_as_allowed_is_the_tag(world: World, resource: str, tag: str) -> None:
    world.policy = parse_policy(POLICY + ROLES + role("named", more=NAMED))
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token, "named", resources=(resource,)))
    assert target_tag(world.ask(token, "named", proof, resources=(resource,))) == [tag]


def test_a_star_at_the_end_covers_what_is_below(world: World) -> None:
    assert matches(f"arn:aws:ssm:{AT}:parameter/app/*", f"arn:aws:ssm:{AT}:parameter/app/a/b")
    assert matches(f"arn:aws:ssm:{AT}:*", f"arn:aws:ssm:{AT}:parameter/app/a/b")


# -- a code must not become a security key by way of the identity provider's MFA


def test_idp_mfa_after_a_code_removed_the_app(world: World) -> None:
    app = world.add_app()
    token = world.token(amr=["mfa"], auth_time=int(world.clock()))
    (factor,) = world.broker.own_factors.listing(token, HERE)
    step_up = world.broker.own_factors.remove(token, HERE, factor["id"])
    assert step_up is not None
    assert world.broker.own_factors.remove(token, HERE, factor["id"], proof=world.code(app, step_up)) is None
    for kind in ("webauthn", "totp"):
        with pytest.raises(Refusal) as refused:
            world.broker.enrolment.begin(token, HERE, kind=kind, name="thief's")
        assert refused.value.code == "insufficient_authorization"
    begun = world.broker.enrolment.begin(
        token, HERE, kind="webauthn", name="own", invited=world.invite()
    )  # the way back is an administrator
    assert isinstance(begun, dict)
    answer = SecurityKey().register(begun["public_key"])
    assert world.broker.enrolment.complete(token, HERE, Secret(begun["enrolment"]), registration=answer)


def test_idp_mfa_begun_before_a_factor_came_and_went(world: World) -> None:
    token = world.token(amr=["mfa"], auth_time=int(world.clock()))
    begun = world.broker.enrolment.begin(token, HERE, kind="webauthn", name="thief's")
    assert isinstance(begun, dict)
    app = world.add_app()
    (factor,) = world.broker.own_factors.listing(token, HERE)
    step_up = world.broker.own_factors.remove(token, HERE, factor["id"])
    assert step_up is not None
    world.broker.own_factors.remove(token, HERE, factor["id"], proof=world.code(app, step_up))
    answer = SecurityKey().register(begun["public_key"])
    with pytest.raises(Refusal) as refused:
        world.broker.enrolment.complete(token, HERE, Secret(begun["enrolment"]), registration=answer)
    assert refused.value.code == "access_denied"


# -- one ARN, one mode, whatever its case


def test_the_other_mode_under_another_case() -> None:
    other = role("brokered-too").replace("role/brokered-too", "role/Brokered")
    with pytest.raises(ConfigError, match="under the other mode"):
        parse_policy(POLICY + ROLES + other)


# -- what was put into a query by mistake is in no log


def test_a_short_secret_in_the_query(front: Front) -> None:
    front.refused(
        lambda: front.send("GET", "/roles?otp=123456&auth_session=abcdefghijklmnop"),
        "not_found",
        verified=False,
        line="no_route",
    )
    assert "/roles" in json.dumps(front.lines)
    assert "otp" not in json.dumps(front.lines)
    assert "123456" not in json.dumps(front.lines)


# -- an ID token alone must not fill the store: a refusal is a record for ever


def test_refusals_without_end(front: Front) -> None:
    token = front.world.token("mallory", groups=[])
    for _ in range(BURST):
        assert front.ask(token).status == 403
    answer = front.refused(lambda: front.ask(token), "slow_down", verified=False, line="slowed_down")
    assert answer.status == 429
    again = front.world.token(
        "mallory", groups=[], jti="another"
    )  # whose token was stolen is not slowed down
    front.refused(lambda: front.ask(again), "access_denied")
    front.refused(lambda: front.ask(front.world.token("bob", groups=[])), "access_denied")
    front.world.clock.pass_(1 / RATE)
    front.refused(lambda: front.ask(token), "access_denied", cause="in none of the role's groups")
    front.refused(lambda: front.ask(token), "slow_down", verified=False, line="slowed_down")


def test_refusals_without_end_with_ever_new_tokens(front: Front) -> None:
    for n in range(PERSON_BURST):
        assert front.ask(front.world.token("mallory", groups=[], jti=str(n // BURST))).status == 403
    fresh = front.world.token("mallory", groups=[], jti="fresh")
    front.refused(lambda: front.ask(fresh), "slow_down", verified=False, cause="mallory", line="slowed_down")
    front.refused(lambda: front.ask(front.world.token("bob", groups=[])), "access_denied")


def test_step_ups_and_challenges_without_end(world: World) -> None:
    """Each is a write without a record, and needs no factor but an ID token."""
    world.broker.admission._asks = Pace(3, 0.001)
    world.add_key()
    stolen = world.token(jti="stolen")
    session = world.step_up(stolen).auth_session
    for _ in range(2):
        world.broker.begin_proof(stolen, session, "10.0.0.9")
    for ask in (lambda: world.ask(stolen), lambda: world.broker.begin_proof(stolen, session, "10.0.0.9")):
        with pytest.raises(Refusal) as refused:
            ask()
        assert refused.value.code == "slow_down"
    assert [record["error"] for record in world.records("refused")] == ["slow_down"] * 2
    assert isinstance(world.ask(world.token()), StepUp)  # with a token of his own the owner goes on


def test_what_is_granted_counts_for_nothing(world: World) -> None:
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token, "dev")
    issued = world.ask(token, "dev", world.touch(token, key, step_up))
    assert isinstance(issued, Issued)
    assert issued.factor_session is not None
    proof = FactorSessionProof(factor_session=issued.factor_session)
    for _ in range(BURST + 1):
        assert isinstance(world.ask(token, "dev", proof), Issued)


def test_targets_that_nobody_has_looked_at(world: World) -> None:
    resources = tuple(f"arn:x:{number:02d}:" + "\N{PILE OF POO}" * 150 for number in range(50))
    with pytest.raises(Refusal):
        world.ask(world.token("mallory", groups=[]), resources=resources)
    (record,) = world.records("refused")
    assert record["resources"] == [resources[0], "and 49 more"]
    assert len(json.dumps(record)) < 4096


def test_ending_what_was_never_proved(world: World) -> None:
    token = world.token("mallory", groups=[])
    for _ in range(BURST):
        assert world.broker.own_factors.end_factor_sessions(token, HERE) == 0
    with pytest.raises(Refusal) as refused:
        world.broker.own_factors.end_factor_sessions(token, HERE)
    assert refused.value.code == "slow_down"
    assert len(world.records()) == BURST


def test_the_people_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("credx.broker.pace.MAX_PEOPLE", 3)
    pace = Pace()
    for subject in "abcde":
        for _ in range(BURST):
            pace.count(("i", subject), now=0)
    assert [pace.allows(("i", subject), now=0) for subject in "abcde"] == [True, True, False, False, False]
    assert not pace.allows(
        ("i", "e"), now=-1
    )  # a clock that was set back gives no more than time that passed
    assert pace.allows(("i", "e"), now=1 / RATE)


# -- an earlier proof


def earlier(world: World) -> FactorSessionProof:
    key, token = world.add_key(), world.token()
    issued = world.ask(token, "dev", world.touch(token, key, world.step_up(token, "dev")))
    assert isinstance(issued, Issued)
    assert issued.factor_session is not None
    return FactorSessionProof(factor_session=issued.factor_session)


def test_an_earlier_proof_after_the_clock_was_set_back(world: World) -> None:
    proof = earlier(world)
    world.clock.pass_(-61)
    assert isinstance(world.ask(world.token(), "dev", proof), StepUp)
    assert world.records("refused")[-1]["detail"] == "factor session: proof too old for this role"
    world.clock.pass_(1)
    assert isinstance(world.ask(world.token(), "dev", proof), Issued)


def test_a_challenge_after_the_clock_was_set_back(world: World) -> None:
    key, token = world.add_key(), world.token(iat=NOW - 600)
    proof = world.touch(token, key, world.step_up(token))
    world.clock.pass_(-61)
    assert isinstance(world.ask(token, proof=proof), StepUp)
    assert world.records("refused")[-1]["detail"] == "no live challenge"


def test_the_record_tells_an_earlier_proof_from_a_fresh_one(world: World) -> None:
    proof = earlier(world)
    world.clock.pass_(100)
    world.ask(world.token(), "dev", proof)
    fresh, served = world.records("granted")
    assert "detail" not in fresh
    assert served["detail"] == f"proved at {NOW}"


# -- a Deny must not fall away because nobody named a target


@pytest.mark.parametrize("resources", ['"${target}"', '"${target}/*", "arn:aws:s3:::logs/*"'])
def test_a_deny_that_would_fall_away(resources: str) -> None:
    more = (
        f'target = "optional"\ntargets = ["arn:aws:ec2:{AT}:instance/*"]\n[[roles.x.statements]]\n'
        'effect = "Allow"\nactions = ["*"]\nresources = ["*"]\n[[roles.x.statements]]\n'
        f'effect = "Deny"\nactions = ["ec2:*"]\nresources = [{resources}]\n'
    )
    with pytest.raises(ConfigError, match="without one it falls away"):
        parse_policy(POLICY + ROLES + role("x", more=more))
    assert parse_policy(POLICY + ROLES + role("x", more=more.replace("optional", "required")))
