"""A broker that cannot remember: nothing leaves, the answer is 503, and afterwards it goes on as before."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyotp
import pytest
from support.front import Failing

from credx.broker.stores import StoreUnavailableError
from credx.model import Secret
from credx.protocol import StepUp, TotpProof, WebAuthnProof

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from support.front import Answer, Front

    from credx.broker.stores import Write

    Story = Callable[[], Iterator[Answer]]

DONE = {200, 201, 204}


# -- stories: everything that a person can do, request by request. What is enrolled before is no part of them.


def a_touch(front: Front, who: str, role: str = "dev") -> Story:
    key, token = front.world.add_key(who), front.world.token(who)

    def story() -> Iterator[Answer]:
        yield (asked := front.ask(token, role))
        yield (options := front.challenge(token, asked.body["auth_session"]))
        answer = key.answer(options.body["public_key"])
        yield front.ask(token, role, WebAuthnProof(auth_session=session(asked), assertion=answer))

    return story


def credentials(front: Front, who: str) -> Story:
    return a_touch(front, who, "brokered")


def a_code(front: Front, who: str, bent: int = 0) -> Story:
    app, token = front.world.add_app(who), front.world.token(who)

    def story() -> Iterator[Answer]:
        yield (asked := front.ask(token, "dev"))
        code = app.at(int(front.world.clock()), counter_offset=bent)
        yield front.ask(token, "dev", TotpProof(auth_session=session(asked), otp=Secret(code)))

    return story


def a_wrong_code(front: Front, who: str) -> Story:
    return a_code(front, who, bent=7)


def a_wrong_touch(front: Front, who: str) -> Story:
    key, token = front.world.add_key(who), front.world.token(who)

    def story() -> Iterator[Answer]:
        yield (asked := front.ask(token))
        yield (options := front.challenge(token, asked.body["auth_session"]))
        answer = key.answer(options.body["public_key"], origin="https://evil.example.com")
        yield front.ask(token, proof=WebAuthnProof(auth_session=session(asked), assertion=answer))

    return story


def adding_an_app(front: Front, who: str) -> Story:
    token, invitation = front.world.token(who), front.world.invite(who)

    def story() -> Iterator[Answer]:
        yield (begun := front.enrol(token, "totp", invitation=invitation))
        code = pyotp.TOTP(begun.body["secret"]).at(int(front.world.clock()))
        yield front.complete(token, begun.body["enrolment"], otp=code)

    return story


def removing_a_key(front: Front, who: str) -> Story:
    key, token = front.world.add_key(who), front.world.token(who)
    mine = front.factor_id(who)

    def story() -> Iterator[Answer]:
        yield (asked := front.remove(token, mine))
        yield (options := front.challenge(token, asked.body["auth_session"]))
        answer = key.answer(options.body["public_key"])
        yield front.remove(token, mine, WebAuthnProof(auth_session=session(asked), assertion=answer))

    return story


def logging_out(front: Front, who: str) -> Story:
    token = front.world.token(who)
    return lambda: iter([front.send("DELETE", "/factor-sessions", token=token)])


def a_denied_role(front: Front, who: str) -> Story:
    token = front.world.token(who)
    return lambda: iter([front.ask(token, "foreign")])


STORIES: dict[Any, int] = {  # and how often each writes
    a_touch: 4, credentials: 4, a_code: 4, a_wrong_code: 3, a_wrong_touch: 4, adding_an_app: 2, removing_a_key: 3,
    logging_out: 1, a_denied_role: 1,
}  # fmt: skip


def session(asked: Answer) -> Secret:
    return StepUp.from_json(asked.body).auth_session


def until_it_fails(story: Story) -> Answer:
    for answer in story():
        if answer.status == 503:
            break
    return answer


def unavailable(front: Front, answer: Answer) -> None:
    assert (answer.status, answer.body["error"]) == (503, "temporarily_unavailable")
    assert answer.headers["retry-after"]
    front.nothing_in(answer)


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it, the answer lost"])
@pytest.mark.parametrize("tell", STORIES, ids=lambda tell: tell.__name__)
def test_a_store_that_fails_at_any_write(front: Front, tell: Any, after: bool) -> None:
    world = front.world
    for at in itertools.count():
        story, known = tell(front, f"person{at}"), len(world.records())
        with Failing(front.store, at, after=after) as failing:
            answer = until_it_fails(story)
        if not failing.failed:
            break
        unavailable(front, answer)
        left = [record["event"] for record in world.records()[known:]]
        if not after:  # at the most the grant whose outcome could not be written
            assert left in ([], ["granted"]), left
        assert world.audit.verify(world.clock()) is None
    assert at - STORIES[tell] in ({0, 1} if after else {0})  # a lost answer leaves a head to look up again
    assert answer.status in DONE | {403}
    *_, last = tell(front, "afterwards")()
    assert last.status == answer.status


@contextmanager
def full_disk(front: Front) -> Iterator[None]:
    (pages,) = front.store._db.execute("PRAGMA page_count").fetchone()
    front.store._db.execute(f"PRAGMA max_page_count = {pages}")
    apply = front.store.apply

    def with_weight(writes: Sequence[Write], *, now: float) -> None:
        for write in writes:  # what is free within the pages must not help
            if hasattr(write, "value"):
                object.__setattr__(write, "value", {**write.value, "weight": "x" * 100_000})
        apply(writes, now=now)

    front.store.apply = with_weight  # type: ignore[method-assign]
    yield
    del front.store.apply
    front.store._db.execute("PRAGMA max_page_count = 1000000")


@contextmanager
def read_only_file(front: Front) -> Iterator[None]:
    writable = front.store._db
    front.store._db = sqlite3.connect(
        f"file:{front.path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    yield
    front.store._db.close()
    front.store._db = writable


@contextmanager
def locked_by_another(front: Front) -> Iterator[None]:
    front.store._db.execute("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(front.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@contextmanager
def no_room_for_audit_records(front: Front) -> Iterator[None]:
    apply = front.store.apply

    def refuse(writes: Sequence[Write], *, now: float) -> None:
        if any(write.key.partition.startswith("audit#") for write in writes):
            raise StoreUnavailableError("no audit today")
        apply(writes, now=now)

    front.store.apply = refuse  # type: ignore[method-assign]
    yield
    del front.store.apply


@contextmanager
def unreadable(front: Front) -> Iterator[None]:
    def broken(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("gone")

    front.store.get = broken  # type: ignore[method-assign]
    yield
    del front.store.get


@pytest.mark.parametrize(
    "trouble", [full_disk, read_only_file, locked_by_another, no_room_for_audit_records, unreadable]
)
def test_a_proof_presented_to_a_store_with(front: Front, trouble: Any) -> None:
    world = front.world
    key, app, token = world.add_key(), world.add_app(), world.token()
    touched = world.touch(token, key, world.step_up(token))
    brokered = world.touch(token, key, world.step_up(token, "brokered"))
    typed = world.code(app, world.step_up(token, "dev"))
    invitation = world.invite()
    begun = front.enrol(token, "totp", invitation=invitation).body
    confirming = pyotp.TOTP(begun["secret"]).at(int(world.clock()))
    before = world.records()
    calls = {
        "token": lambda: front.ask(token, proof=touched),
        "credentials": lambda: front.ask(token, "brokered", brokered),
        "code": lambda: front.ask(token, "dev", typed),
        "enrolment": lambda: front.complete(token, begun["enrolment"], otp=confirming),
        "log-out": lambda: front.send("DELETE", "/factor-sessions", token=token),
        "refusal": lambda: front.ask(token, "foreign"),
    }
    with trouble(front):
        for call in calls.values():
            unavailable(front, call())
    assert world.records() == before
    assert world.sts.asked == []
    # nothing was used up: the very same proofs are good once it writes again
    statuses = {name: call().status for name, call in calls.items()}
    assert statuses == {
        "token": 200, "credentials": 200, "code": 200, "enrolment": 201, "log-out": 200, "refusal": 403
    }  # fmt: skip
    assert world.audit.verify(world.clock()) is None


def test_sts_credentials_whose_record_cannot_be_written(front: Front) -> None:
    """With ``sts = "broker"`` AWS has made them already: they stay with the broker."""
    story = credentials(front, "alice")
    with Failing(front.store, 3) as failing:
        unavailable(front, until_it_fails(story))
    assert failing.failed
    assert len(front.world.sts.asked) == 1
    assert [record["event"] for record in front.world.records()][-1] == "granted"


def test_a_copy_of_the_audit_that_fails_is_told_and_stops_nobody(front: Front) -> None:
    def broken(_: Any) -> None:
        raise OSError("no space left")

    front.world.audit._copy = broken
    key, token = front.world.add_key(), front.world.token()
    front.lines.clear()
    proof = front.world.touch(token, key, front.world.step_up(token))
    front.issued(lambda: front.ask(token, proof=proof))
    assert [line["event"] for line in front.lines] == ["audit_copy_failed", "audit_copy_failed"]
