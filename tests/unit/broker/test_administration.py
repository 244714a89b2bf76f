"""What administrators do holds at once: on what is pending, on what has been proved, on a commit in flight."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from credx.broker import administration, audit
from credx.broker.administration import CHUNK, MAX_PENDING, reset_factors, set_disabled, unlock
from credx.broker.directory import everybody, find
from credx.broker.stores import ConflictError, Key, Put, StoreUnavailableError
from credx.errors import Refusal, UnavailableError
from credx.model import Secret
from credx.protocol import FactorSessionProof, Issued, StepUp

if TYPE_CHECKING:
    from collections.abc import Callable

ISSUER = "https://idp.example.com"
HERE = "10.0.0.1"


def act(world: Any, what: Callable[..., Any], subject: str = "alice", **more: Any) -> Any:
    now = world.clock()
    who = find(world.store, f"{ISSUER}|{subject}", now=now)
    return what(world.store, world.audit, who, administrator="root@host", now=now, **more)


def disable(world: Any, subject: str = "alice") -> None:
    act(world, set_disabled, subject, disabled=True)


def enable(world: Any, subject: str = "alice") -> None:
    act(world, set_disabled, subject, disabled=False)


def stored(world: Any, subject: str = "alice") -> set[str]:
    items = world.store.query(f"user#{world.user_key(subject)}", now=world.clock())
    return {item.key.sort.partition("#")[0] for item in items}


def refused(call: Callable[[], Any], code: str) -> str:
    with pytest.raises(Refusal) as caught:
        call()
    assert caught.value.code == code
    return caught.value.detail


def everything_pending(world: Any) -> Any:
    """A person with a factor session, an auth session, an enrolment and an open invitation."""
    key, token = world.add_key(), world.token()
    first = world.ask(token, "dev", world.touch(token, key, world.step_up(token, "dev")))
    step_up = world.step_up(token)
    invitation = world.invite()
    begun = world.broker.enrolment.begin(token, HERE, kind="totp", name="new", invited=invitation)
    assert stored(world) == {"profile", "factor", "auth", "fsession", "enrol"}
    return key, token, first, step_up, invitation, begun


def test_disabling_ends_all_that_is_pending_and_leaves_one_record(world: Any) -> None:
    _, token, first, *_ = everything_pending(world)
    disable(world)
    assert stored(world) == {"profile", "factor"}
    assert world.store.query("invitations", now=world.clock()) == []
    (record,) = world.records("disabled")
    assert record["administrator"] == "root@host"
    assert record["detail"] == "by root@host"
    assert (record["issuer"], record["subject"], record["user_key"]) == (ISSUER, "alice", world.user_key())
    assert record["user"].startswith("alice@example.com-")
    refused(lambda: world.ask(token), "access_denied")
    enable(world)
    earlier = FactorSessionProof(factor_session=first.factor_session)
    assert isinstance(world.ask(token, "dev", earlier), StepUp)


def test_what_a_request_in_flight_left_behind_ends_with_the_letting_in(world: Any) -> None:
    _, token, first, *_ = everything_pending(world)
    items = world.store.query(f"user#{world.user_key()}", "fsession#", now=world.clock())
    disable(world)
    left = [Put(key=i.key, value=i.value, expected=0, expires_at=i.expires_at) for i in items]
    world.store.apply(left, now=world.clock())  # as a commit does that was decided on the profile before
    enable(world)
    earlier = FactorSessionProof(factor_session=first.factor_session)
    assert isinstance(world.ask(token, "dev", earlier), StepUp)


def test_an_invitation_made_while_disabled_is_good_after_the_letting_in(world: Any, new_key: Any) -> None:
    world.add_key()
    disable(world)
    invitation, token = world.invite(), world.token()
    enable(world)
    begun = world.broker.enrolment.begin(token, HERE, kind="webauthn", name="b", invited=invitation)
    answer = new_key().register(begun["public_key"])
    assert world.broker.enrolment.complete(token, HERE, Secret(begun["enrolment"]), registration=answer)


def test_resetting_takes_every_factor_and_only_a_new_invitation_helps(world: Any, new_key: Any) -> None:
    key, token, first, step_up, invitation, begun = everything_pending(world)
    proof = world.touch(token, key, step_up)
    assert act(world, reset_factors) == ["key"]
    assert stored(world) == {"profile"}
    (record,) = world.records("factors_reset")
    assert record["administrator"] == "root@host"

    refused(lambda: world.ask(token, proof=proof), "insufficient_authorization")
    refused(
        lambda: world.ask(token, "dev", FactorSessionProof(factor_session=first.factor_session)),
        "insufficient_authorization",
    )
    enrolment = world.broker.enrolment
    refused(
        lambda: enrolment.complete(token, HERE, Secret(begun["enrolment"]), otp=Secret("000000")),
        "invalid_grant",
    )
    refused(lambda: enrolment.begin(token, HERE, kind="totp", name="a", invited=invitation), "access_denied")
    by_idp = world.token(amr=["mfa"], auth_time=int(world.clock()))
    refused(lambda: enrolment.begin(by_idp, HERE, kind="totp", name="a"), "insufficient_authorization")
    again = enrolment.begin(token, HERE, kind="webauthn", name="a", invited=world.invite())
    answer = key.register(again["public_key"])  # the same key: its credential id is nobody's now
    assert enrolment.complete(token, HERE, Secret(again["enrolment"]), registration=answer)
    assert isinstance(world.ask(token, proof=world.touch(token, key, world.step_up(token))), Issued)


def test_resetting_somebody_who_has_no_factor_shuts_the_providers_word_out(world: Any) -> None:
    disable(world)
    enable(world)
    assert act(world, reset_factors) == []
    token = world.token(amr=["mfa"], auth_time=int(world.clock()))
    refused(
        lambda: world.broker.enrolment.begin(token, HERE, kind="totp", name="a"), "insufficient_authorization"
    )


def test_unlocking_forgets_wrong_codes(world: Any) -> None:
    app, token = world.add_app(), world.token()
    step_up = world.step_up(token, "other-group")
    for _ in range(5):
        with contextlib.suppress(Refusal):
            world.ask(token, "other-group", world.code(app, step_up, steps=400))
    refused(lambda: world.ask(token, "other-group", world.code(app, step_up)), "insufficient_authorization")
    act(world, unlock)
    assert [r["administrator"] for r in world.records("unlocked")] == ["root@host"]
    assert isinstance(world.ask(token, "other-group", world.code(app, step_up)), Issued)


def test_somebody_who_never_came_can_be_shut_out_and_is_listed_then(world: Any) -> None:
    assert list(everybody(world.store, now=world.clock())) == []
    disable(world, "mallory")
    refused(lambda: world.ask(world.token("mallory")), "access_denied")
    (one,) = everybody(world.store, now=world.clock())
    assert (one.issuer, one.subject, one.disabled, one.enrolled) == (ISSUER, "mallory", True, False)
    enable(world, "mallory")
    assert [one.disabled for one in everybody(world.store, now=world.clock())] == [False]


def test_more_than_a_commit_holds_is_ended_all_the_same(world: Any) -> None:
    world.add_key()
    user, now = f"user#{world.user_key()}", world.clock()
    for kind, count in (("auth#", 130), ("fsession#", 70), ("enrol#", 40)):
        for number in range(count):
            put = Put(key=Key(user, f"{kind}{number}"), value={}, expected=0, expires_at=int(now) + 300)
            world.store.apply([put], now=now)
    for _ in range(MAX_PENDING):
        world.invite()
    disable(world)
    assert stored(world) == {"profile", "factor"}
    assert world.store.query("invitations", now=now) == []
    assert len(world.records("disabled")) == 1
    assert 2 + 10 + 10 + 1 + MAX_PENDING <= audit.MAX_WRITES < CHUNK


def test_an_act_is_tried_again_when_a_request_of_the_person_came_in_between(world: Any) -> None:
    world.add_key()
    apply, left = world.store.apply, [3]

    def now_and_then(writes: Any, *, now: float) -> None:
        if left[0]:
            left[0] -= 1
            raise ConflictError
        apply(writes, now=now)

    world.store.apply = now_and_then
    disable(world)
    assert len(world.records("disabled")) == 1


def test_but_not_without_end(world: Any) -> None:
    world.add_key()
    tries = []

    def never(*_: Any, **__: Any) -> None:
        tries.append(1)
        raise ConflictError

    world.audit.commit = never
    with pytest.raises(UnavailableError):
        disable(world)
    assert len(tries) == administration.TRIES


def test_an_act_without_its_record_did_not_happen(world: Any) -> None:
    world.add_key()

    def broken(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError

    apply, world.store.apply = world.store.apply, broken
    with pytest.raises(StoreUnavailableError):
        act(world, reset_factors)
    world.store.apply = apply
    assert stored(world) == {"profile", "factor"}
    assert world.records("factors_reset") == []


def test_a_factor_that_completes_meanwhile_is_reset_too(world: Any, new_key: Any) -> None:
    """The enrolment wins the race for the profile, and the reset reads again."""
    world.add_key()
    token = world.token()
    begun = world.broker.enrolment.begin(token, HERE, kind="webauthn", name="b", invited=world.invite())
    answer, commit = new_key().register(begun["public_key"]), world.audit.commit

    def first(writes: Any, record: Any, *, now: float) -> None:
        if record["event"] == "factors_reset":
            world.audit.commit = commit
            world.broker.enrolment.complete(token, HERE, Secret(begun["enrolment"]), registration=answer)
        commit(writes, record, now=now)

    world.audit.commit = first
    assert sorted(act(world, reset_factors)) == ["b", "key"]
    assert stored(world) == {"profile"}


def test_what_is_told_about_a_person_holds_no_secret(world: Any) -> None:
    everything_pending(world)
    world.add_app()
    told = administration.described(
        world.store, find(world.store, f"{ISSUER}|alice", now=world.clock()), now=world.clock()
    )
    assert {(f["kind"], f["name"], f["disabled"]) for f in told["factors"]} == {
        ("webauthn", "key", False), ("totp", "app", False),
    }  # fmt: skip
    assert set(told["factors"][0]) == {"id", "kind", "name", "created_at", "last_used_at", "disabled"}
    assert told["pending"] == {
        "auth_sessions": 1, "factor_sessions": 1, "enrolments": 1, "invitations": 1,
    }  # fmt: skip
    assert (told["wrong_codes"], told["locked"]) == (0, 0)
