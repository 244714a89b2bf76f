"""An administrator's act against a request in flight, at every moment of it and on every route that gives something.

Keycloak CVE-2026-9798, CVE-2026-16103, CVE-2026-88770: a lock that was looked at when a flow began, and not when it
was redeemed. pgAdmin CVE-2026-7820, step-ca CVE-2025-66406: a route that did not look at it at all.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import CI, ISSUER, SecurityKey, World

from credx.broker.administration import reset_factors, set_disabled
from credx.broker.audit import Audit, new_writer_id
from credx.broker.directory import find
from credx.broker.stores import Put
from credx.errors import Refusal
from credx.model import Secret
from credx.protocol import FactorSessionProof, Issued, StepUp

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = "10.0.0.1"
GIVES = {"granted", "enrolled", "removed"}


def client(world: World) -> Callable[[], Any]:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    return lambda: world.ask(token, proof=proof)


def brokered(world: World) -> Callable[[], Any]:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token, "brokered"))
    return lambda: world.ask(token, "brokered", proof)


def code(world: World) -> Callable[[], Any]:
    app, token = world.add_app(), world.token()
    proof = world.code(app, world.step_up(token, "other-group"))
    return lambda: world.ask(token, "other-group", proof)


def earlier_proof(world: World) -> Callable[[], Any]:
    key, token = world.add_key(), world.token()
    first = world.ask(token, "dev", world.touch(token, key, world.step_up(token, "dev")))
    assert isinstance(first, Issued)
    assert first.factor_session is not None
    proof = FactorSessionProof(factor_session=first.factor_session)
    return lambda: world.ask(token, "dev", proof)


def enrolment_by_invitation(world: World) -> Callable[[], Any]:
    token, key = world.token(), SecurityKey()
    begun = world.broker.enrolment.begin(token, HERE, kind="webauthn", name="k", invited=world.invite())
    return completed(world, token, begun, key)


def enrolment_by_proof(world: World) -> Callable[[], Any]:
    key, token = world.add_key(), world.token()
    step_up = world.broker.enrolment.begin(token, HERE, kind="webauthn", name="k")
    proof = world.touch(token, key, step_up)
    begun = world.broker.enrolment.begin(token, HERE, kind="webauthn", name="k", proof=proof)
    return completed(world, token, begun, SecurityKey())


def enrolment_by_the_providers_mfa(world: World) -> Callable[[], Any]:
    token = world.token(amr=["mfa"], auth_time=int(world.clock()))
    begun = world.broker.enrolment.begin(token, HERE, kind="webauthn", name="k")
    return completed(world, token, begun, SecurityKey())


def completed(world: World, token: Secret, begun: Any, key: SecurityKey) -> Callable[[], Any]:
    answer = key.register(begun["public_key"])
    handle = Secret(begun["enrolment"])
    return lambda: world.broker.enrolment.complete(token, HERE, handle, registration=answer)


def removal(world: World) -> Callable[[], Any]:
    key, token = world.add_key(), world.token()
    own = world.broker.own_factors
    factor_id = own.listing(token, HERE)[0]["id"]
    proof = world.touch(token, key, own.remove(token, HERE, factor_id))
    return lambda: own.remove(token, HERE, factor_id, proof=proof)


ROUTES = [
    client, brokered, code, earlier_proof, removal,
    enrolment_by_invitation, enrolment_by_proof, enrolment_by_the_providers_mfa,
]  # fmt: skip
MOMENTS = 5  # at the least: none of these requests does with fewer reads and writes of the store


def at_the_moment(world: World, number: int, happens: Callable[[], Any]) -> list[str]:
    """Something happens right before the ``number``-th access to the store from now on.

    What is recorded from now on, in the order in which it was written.
    """
    store, left = world.store, [number]
    written: list[str] = []
    originals = {name: getattr(store, name) for name in ("get", "query", "apply")}

    def guarded(name: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == -1:
                happens()
            answer = originals[name](*args, **more)
            if name == "apply":
                values = [write.value for write in args[0] if isinstance(write, Put)]
                written.extend(value["event"] for value in values if "event" in value and "seq" in value)
            return answer

        return call

    for name in originals:
        setattr(store, name, guarded(name))
    return written


def act(
    world: World, what: Callable[..., Any], subject: str = "alice", issuer: str = ISSUER, **more: Any
) -> None:
    """As another process does it: with an audit chain of its own."""
    now = world.clock()
    who = find(world.store, f"{issuer}|{subject}", now=now)
    audit = Audit(world.store, new_writer_id(now, os.urandom), signer=world.broker.signer)
    what(world.store, audit, who, administrator="root", now=now, **more)


@pytest.mark.parametrize("route", ROUTES)
def test_nothing_is_given_after_the_record_that_says_disabled(route: Callable[..., Any]) -> None:
    moments = 0
    for number in range(60):
        world = World()
        request = route(world)
        happened = at_the_moment(world, number, lambda w=world: act(w, set_disabled, disabled=True))  # type: ignore[misc]
        answer: Any = None
        with contextlib.suppress(Refusal):
            answer = request()
        if "disabled" not in happened:  # the request was over before that moment
            break
        moments += 1
        after = happened[happened.index("disabled") :]
        assert not GIVES & set(after), (number, happened)
        given = GIVES & set(happened)
        assert given or answer is None or isinstance(answer, StepUp), (number, happened)
        if "granted" not in happened:
            assert world.sts.asked == []
        with pytest.raises(Refusal, match="access_denied"):
            world.ask(world.token())
    assert moments >= MOMENTS


@pytest.mark.parametrize("route", [client, brokered, code, earlier_proof, enrolment_by_proof])
def test_no_proof_by_a_factor_serves_after_the_record_that_says_reset(route: Callable[..., Any]) -> None:
    moments = 0
    for number in range(60):
        world = World()
        request = route(world)
        happened = at_the_moment(world, number, lambda w=world: act(w, reset_factors))  # type: ignore[misc]
        with contextlib.suppress(Refusal):
            request()
        if "factors_reset" not in happened:
            break
        moments += 1
        assert not GIVES & set(happened[happened.index("factors_reset") :]), (number, happened)
        left = world.store.query(f"user#{world.user_key()}", "factor#", now=world.clock())
        assert list(left) == []
    assert moments >= MOMENTS


@pytest.mark.parametrize("path", ["/roles", "/factors"])
def test_reading_ends_at_once_too(path: str) -> None:
    world = World()
    world.add_key()
    token = world.token()
    assert world.http("GET", path, token=token)[0].status == 200
    act(world, set_disabled, disabled=True)
    assert world.http("GET", path, token=token)[0].status == 403
    assert world.http("DELETE", "/factor-sessions", token=token)[0].status == 403


def test_a_job_is_shut_out_in_flight() -> None:
    world = World()
    job = world.job()
    moments = 0
    for number in range(30):
        world = World()
        job = world.job()
        happened = at_the_moment(
            world, number,
            lambda w=world: act(w, set_disabled, "repo:42:main", CI, disabled=True),  # type: ignore[misc]
        )  # fmt: skip
        with contextlib.suppress(Refusal):
            world.ask(job, "deploy")
        if "disabled" not in happened:
            break
        moments += 1
        assert "granted" not in happened[happened.index("disabled") :]
    assert moments >= 3


def test_shutting_one_out_says_nothing_about_another_of_the_same_name() -> None:
    """Vault CVE-2025-6004: a lock by an alias that two people share, or that one can change."""
    world = World()
    key = world.add_key("bob")
    act(world, set_disabled, "alice", disabled=True)
    token = world.token("bob", email="alice@example.com", preferred_username="alice")
    assert isinstance(world.ask(token, proof=world.touch(token, key, world.step_up(token))), Issued)
    renamed = world.token("alice", email="somebody@example.com")
    with pytest.raises(Refusal, match="access_denied"):
        world.ask(renamed)


@pytest.mark.parametrize("subject", ["ALICE", "Alice", "alice.", "a\u0301lice"])
def test_another_spelling_is_another_person(subject: str) -> None:
    """Vault CVE-2025-6013: neither folded nor trimmed, so a spelling opens nothing that the name has."""
    world = World()
    world.add_key("alice")
    token = world.token(subject)
    assert world.broker.own_factors.listing(token, HERE) == []
    with pytest.raises(Refusal):
        world.ask(token)
