"""Invitations: one partition, so that they can be listed and taken back; no handle is ever in it."""

from __future__ import annotations

from typing import Any

import pytest

from credx.broker.handles import handle_hash
from credx.broker.invitation import LIFE, invited, open_invitations, revoke_invitation
from credx.errors import Refusal, UsageError

ISSUER = "https://idp.example.com"
HERE = "10.0.0.1"


def listed(world: Any) -> list[Any]:
    return list(open_invitations(world.store, now=world.clock()))


def revoke(world: Any, name: str) -> Any:
    return revoke_invitation(world.store, world.audit, name, administrator="root@host", now=world.clock())


def test_open_invitations_are_listed_without_what_opens_them(world: Any) -> None:
    secret, _ = world.invite(), world.invite("bob")
    one, two = sorted(listed(world), key=lambda one: str(one.subject))
    assert (one.issuer, one.subject, one.administrator) == (ISSUER, "alice", "root")
    assert (two.subject, two.expires_at) == ("bob", int(world.clock()) + LIFE)
    assert one.id == handle_hash(secret)[:16]
    assert secret.reveal() not in str(world.store.query("invitations", now=world.clock()))


def test_used_and_ended_ones_are_not(world: Any) -> None:
    world.add_key()
    assert listed(world) == []
    world.invite()
    world.clock.pass_(LIFE)
    assert listed(world) == []


def test_a_revoked_one_opens_nothing_and_leaves_one_record(world: Any) -> None:
    secret, kept = world.invite(), world.invite()
    assert revoke(world, handle_hash(secret)[:16]).subject == "alice"
    (record,) = world.records("invitation_revoked")
    assert (record["administrator"], record["subject"]) == ("root@host", "alice")
    begin = world.broker.enrolment.begin
    with pytest.raises(Refusal, match="access_denied"):
        begin(world.token(), HERE, kind="totp", name="a", invited=secret)
    assert begin(world.token(), HERE, kind="totp", name="a", invited=kept)


def test_an_enrolment_under_way_ends_with_its_invitation(world: Any, new_key: Any) -> None:
    secret, token = world.invite(), world.token()
    begun = world.broker.enrolment.begin(token, HERE, kind="webauthn", name="a", invited=secret)
    answer = new_key().register(begun["public_key"])
    revoke(world, handle_hash(secret)[:16])
    from credx.model import Secret

    with pytest.raises(Refusal, match="access_denied"):
        world.broker.enrolment.complete(token, HERE, Secret(begun["enrolment"]), registration=answer)


@pytest.mark.parametrize("name", ["", "0", "0" * 15, "0" * 16, "0" * 64, "g" * 16, "A" * 16])
def test_an_id_that_is_none(world: Any, name: str) -> None:
    world.invite()
    with pytest.raises(UsageError):
        revoke(world, name)
    assert len(listed(world)) == 1
    assert world.records("invitation_revoked") == []


def test_a_revocation_that_loses_to_its_use_says_so(world: Any) -> None:
    secret = world.invite()
    commit = world.audit.commit

    def used_first(writes: Any, record: Any, *, now: float) -> None:
        world.audit.commit = commit
        world.store.apply(writes, now=now)
        commit(writes, record, now=now)

    world.audit.commit = used_first
    with pytest.raises(UsageError):
        revoke(world, handle_hash(secret)[:16])
    assert world.records("invitation_revoked") == []


def test_whose_an_invitation_is(world: Any) -> None:
    world.invite()
    world.invite("alice", "https://ci.example.com")
    assert len(invited(world.store, ISSUER, "alice", now=world.clock())) == 1
    assert invited(world.store, ISSUER, "ALICE", now=world.clock()) == []
    assert invited(world.store, "", "", now=world.clock()) == []


@pytest.mark.parametrize("subject", ["", "a\0b", "a\nb", "\u202ea"])
def test_nobody_that_no_token_can_name_is_invited(world: Any, subject: str) -> None:
    with pytest.raises(ValueError, match="subject"):
        world.invite(subject)
    assert listed(world) == []
