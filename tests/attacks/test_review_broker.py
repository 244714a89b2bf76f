"""What an outside review got through with, each named after what is refused since."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import ISSUER, NOW, POLICY, ROLES, SecurityKey, World, parse_policy, role
from support.front import published
from waitress.channel import HTTPChannel

from credx.broker.administration import set_disabled
from credx.broker.directory import Somebody
from credx.broker.front import wsgi
from credx.broker.front.door import MAX_AHEAD, Dispatcher
from credx.broker.front.readiness import Readiness
from credx.broker.front.wsgi import THREADS
from credx.broker.handles import handle_hash
from credx.broker.invitation import PARTITION
from credx.broker.pace import BURST, PERSON_BURST, RATE, Pace
from credx.broker.policy.arn import matches
from credx.broker.stores import Key, Put
from credx.errors import ConfigError, Refusal
from credx.jose import RemoteKeys
from credx.model import Secret
from credx.protocol import FactorSessionProof, Issued, StepUp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


# -- an answer of one's own security key that makes the reader fall over is a no, and burns its challenge


@pytest.mark.parametrize("offered", [1, True, 1.5])
def test_transports_that_are_no_list(world: World, offered: object) -> None:
    token = world.token()
    begun = world.broker.enrolment.begin(token, HERE, kind="webauthn", name="own", invited=world.invite())
    assert isinstance(begun, dict)
    answer = SecurityKey().register(begun["public_key"])
    answer["response"]["transports"] = offered
    with pytest.raises(Refusal) as refused:
        world.broker.enrolment.complete(token, HERE, Secret(begun["enrolment"]), registration=answer)
    assert refused.value.code == "insufficient_authorization"
    with pytest.raises(Refusal) as refused:
        world.broker.enrolment.complete(token, HERE, Secret(begun["enrolment"]), registration=answer)
    assert refused.value.code == "invalid_grant"


# -- a broker that has just started: whoever comes together must not be told to come back


def test_everybody_who_comes_while_the_keys_are_fetched_first() -> None:
    """Four may wait for a slow provider; of a healthy one everybody waits for the blink that it takes."""
    together = threading.Barrier(THREADS)

    def fetch(url: str, *, deadline: float) -> bytes:
        time.sleep(0.03)
        return published(url)

    world = World(keys=RemoteKeys(fetch))
    token = world.token()

    def come(_: int) -> str:
        together.wait(5)
        try:
            world.broker.roles(token, HERE)
        except Refusal as refusal:
            return refusal.code
        return "ok"

    with ThreadPoolExecutor(THREADS) as threads:
        assert set(threads.map(come, range(THREADS))) == {"ok"}


# -- one connection, many requests: 8 KB of them must not keep the house full for seconds


@contextlib.contextmanager
def open_door(world: World) -> Iterator[Callable[[], socket.socket]]:
    server, stopping = wsgi.serve(world.broker, port=0), threading.Event()
    thread = threading.Thread(target=wsgi.run_until, args=(server, stopping), daemon=True)
    thread.start()
    yield lambda: socket.create_connection(("127.0.0.1", int(server.effective_port)), timeout=3)
    stopping.set()
    thread.join(10)


def statuses(connection: socket.socket, sent: bytes) -> list[bytes]:
    """Of all answers on this connection until the other side closes it."""
    connection.sendall(sent)
    got = b"".join(iter(lambda: connection.recv(65536), b""))
    return re.findall(rb"HTTP/1\.1 (\d{3}) ", got)


@pytest.mark.parametrize("path", [b"/healthz", b"/openapi.json", b"/nothing"])
def test_requests_far_ahead_of_their_answers(world: World, path: bytes) -> None:
    one = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    with open_door(world) as connect, contextlib.closing(connect()) as connection:
        assert len(statuses(connection, one * (8192 // len(one)))) == MAX_AHEAD


def test_a_request_behind_another_when_the_house_is_full_is_answered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that was done with the first left the second to the loop, and the loop had gone on already."""
    received, asked = HTTPChannel.received, itertools.count()

    def slow(self: Any, data: bytes) -> bool:
        more: bool = received(self, data)
        time.sleep(0.1)  # the thread that answers the first one gets this far meanwhile
        return more

    def full_for_the_second(_self: Any, _request: Any) -> bool:
        if next(asked) == 0:
            return True
        time.sleep(0.2)
        return False

    monkeypatch.setattr(HTTPChannel, "received", slow)
    monkeypatch.setattr(Dispatcher, "_room_for", full_for_the_second)
    sent = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with open_door(world) as connect, contextlib.closing(connect()) as connection:
        assert len(statuses(connection, sent)) == 2


# -- one item that is not ours must not keep an administrator from shutting anybody out


def test_an_invitation_of_no_known_shape_keeps_nobody_in(world: World) -> None:
    world.add_key()
    mine = world.invite()
    world.store.apply([Put(key=Key(PARTITION, "f" * 64), value={"x": 1}, expected=0)], now=NOW)
    who = Somebody(world.user_key(), "alice", ISSUER, "alice")
    set_disabled(world.store, world.audit, who, disabled=True, administrator="root", now=world.clock())
    with pytest.raises(Refusal) as refused:
        world.broker.roles(world.token(), HERE)
    assert refused.value.detail == "user disabled"
    assert world.store.get(Key(PARTITION, handle_hash(mine)), now=world.clock()) is None


# -- readiness


def test_readiness_goes_on_after_a_thread_that_could_not_be_started(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("credx.broker.front.readiness.PATIENCE", 0.5)
    ready = Readiness(world.broker, itertools.count().__next__)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        assert "failed" in ready().values()
    assert set(ready().values()) == {"ok"}
