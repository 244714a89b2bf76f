"""Assertions that the broker must not take. Each is right, signed by the right key, but for what is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import BE, BS, ORIGIN, UP, UV, b64

from credx.broker.stores import Put
from credx.protocol import WebAuthnProof

if TYPE_CHECKING:
    from support.front import Front

BENT: dict[str, tuple[dict[str, Any], str]] = {
    "another site": ({"origin": "https://evil.example.com"}, "origin"),
    "a site whose name begins like ours": ({"origin": ORIGIN + ".evil.com"}, "origin"),
    "a site below ours": ({"origin": "https://sub.credx.example.com"}, "origin"),
    "ours without TLS": ({"origin": "http://credx.example.com"}, "origin"),
    "another port": ({"origin": ORIGIN + ":8443"}, "origin"),
    "another relying party": ({"rp_id": "evil.example.com"}, "RP ID"),
    "the domain above": ({"rp_id": "example.com"}, "RP ID"),
    "a registration": ({"type": "webauthn.create"}, "type"),
    "a payment": ({"type": "payment.get"}, "type"),
    "no public key credential": ({"credential_type": "password"}, "type of the credential"),
    "a frame of another site": ({"client_extra": {"crossOrigin": True}}, "frame"),
    "a frame under another top": ({"client_extra": {"topOrigin": "https://evil.example.com"}}, "frame"),
    "no user verification": ({"flags": UP}, "user verified flag"),
    "no user presence": ({"flags": UV}, "User Present"),
    "backed up but not eligible": ({"flags": UP | UV | BS}, "not eligible"),
    "eligible all of a sudden": ({"flags": UP | UV | BE}, "eligibility changed"),
    "a counter that stands still": ({"counter": 1}, "signature counter 1 after 1"),
    "a counter that went back": ({"counter": 0}, "signature counter 0 after 1"),
    "somebody else's user handle": ({"user_handle": b"\1" * 32}, "user handle"),
    "a credential that nobody has": ({"credential_id": b"x" * 32}, "not a credential of this person"),
    "a signature cut short": ({"response": {"signature": "AAAA"}}, "ignature"),
    "no signature": ({"response": {"signature": ""}}, "ignature"),
    "another challenge": ({"challenge": b"\0" * 32}, "Wrong challenge"),
    "no challenge": ({"challenge": b""}, "Wrong challenge"),
}


@pytest.mark.parametrize("name", BENT)
def test_an_assertion_with(front: Front, name: str) -> None:
    bend, cause = BENT[name]
    world = front.world
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    proof = world.touch(token, key, step_up, **bend)
    answer = front.refused(lambda: front.ask(token, proof=proof), cause=cause)
    assert answer.body["retry"]
    assert cause not in answer.body["error_description"] or cause == "counter"
    good = world.touch(token, key, step_up)
    front.issued(lambda: front.ask(token, proof=good))


def test_a_challenge_of_ours_altered_by_one_bit(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    session = world.step_up(token).auth_session
    options = front.challenge(token, session.reveal()).body["public_key"]
    swapped = options | {
        "challenge": ("B" if options["challenge"][0] == "A" else "A") + options["challenge"][1:]
    }
    proof = WebAuthnProof(auth_session=session, assertion=key.answer(swapped))
    front.refused(lambda: front.ask(token, proof=proof), cause="Wrong challenge")


@pytest.mark.parametrize("part", ["clientDataJSON", "authenticatorData", "signature"])
def test_a_part_of_another_assertion(front: Front, part: str) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    options = world.broker.begin_proof(token, step_up.auth_session, "10.0.0.1")
    mixed, other = key.answer(options), key.answer(options | {"challenge": b64(b"y" * 32)})
    mixed["response"][part] = other["response"][part]
    proof = WebAuthnProof(auth_session=step_up.auth_session, assertion=mixed)
    front.refused(lambda: front.ask(token, proof=proof))


def test_client_data_with_two_challenges(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    session = world.step_up(token).auth_session
    options = world.broker.begin_proof(token, session, "10.0.0.1")
    twins = json.dumps({"type": "webauthn.get", "challenge": options["challenge"], "origin": ORIGIN}).replace(
        '"challenge"', '"challenge":"AAAA","challenge"', 1
    )
    proof = WebAuthnProof(auth_session=session, assertion=key.answer(options, client_data=twins.encode()))
    front.refused(lambda: front.ask(token, proof=proof))


@pytest.mark.parametrize("handle", [None, "own", "alice's"])
def test_another_persons_key(front: Front, handle: str | None) -> None:  # GHSA-f66q-9rf6-8795
    world = front.world
    alices, mallorys, token = world.add_key(), world.add_key("mallory"), world.token()
    handles = {None: None, "own": mallorys.user_handle, "alice's": alices.user_handle}
    proof = world.touch(token, mallorys, world.step_up(token), user_handle=handles[handle])
    front.refused(lambda: front.ask(token, proof=proof), cause="not a credential of this person")


def test_another_persons_key_under_ones_own_credential_id(front: Front) -> None:
    world = front.world
    alices, mallorys, token = world.add_key(), world.add_key("mallory"), world.token()
    proof = world.touch(
        token,
        mallorys,
        world.step_up(token),
        credential_id=alices.credential_id,
        user_handle=alices.user_handle,
        counter=99,
    )
    front.refused(lambda: front.ask(token, proof=proof), cause="ignature")


def test_a_key_that_was_removed(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    world.add_key(name="spare")
    gone = front.factor_id(name="key")
    pending = world.touch(token, key, world.step_up(token))
    step_up = world.broker.own_factors.remove(token, "10.0.0.1", gone)
    assert step_up is not None
    assert front.remove(token, gone, world.touch(token, key, step_up)).status == 204
    front.refused(lambda: front.ask(token, proof=pending), cause="not a credential of this person")


@pytest.mark.parametrize("when", ["before the step-up", "before the proof", "before the commit"])
def test_a_key_that_was_disabled(front: Front, when: str) -> None:
    world = front.world
    key, token = world.add_key(), world.token()

    def disable() -> None:
        item = front.store.query(f"user#{world.user_key()}", "factor#", now=world.clock())[0]
        put = Put(key=item.key, value={**item.value, "disabled": True}, expected=item.version)
        front.store.apply([put], now=world.clock())

    if when == "before the step-up":
        disable()
        front.refused(lambda: front.ask(token), cause="no accepted factor")
        return
    proof = world.touch(token, key, world.step_up(token))
    verify = world.broker.second_factor.verify

    def then_disabled(*args: Any) -> Any:
        proven = verify(*args)
        disable()
        return proven

    if when == "before the commit":
        world.broker.second_factor.verify = then_disabled  # type: ignore[method-assign]
        front.refused(lambda: front.ask(token, proof=proof), cause="disabled or removed")
    else:
        disable()
        front.refused(lambda: front.ask(token, proof=proof), cause="not a credential of this person")


def test_a_copy_of_a_key_after_the_other_was_used(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    ahead = world.touch(token, key, world.step_up(token), counter=7)
    front.issued(lambda: front.ask(token, proof=ahead))
    copy = world.touch(token, key, world.step_up(token), counter=7)
    front.refused(lambda: front.ask(token, proof=copy), cause="signature counter 7 after 7")


def test_a_touch_alone_where_the_role_once_was_content_with_it(front: Front) -> None:
    world = front.world
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token, "touch"), flags=UP)
    world.change_policy("user_verification = false\n", "user_verification = true\n")
    front.refused(lambda: front.ask(token, "touch", proof), cause="not accepted here")


@pytest.mark.parametrize(
    "junk",
    [b"{}", b"[]", b"null", b'{"id":1,"rawId":2,"response":3}', b'{"a":1,"a":2}', b"{" * 3000, b"\xff"],
)
def test_junk_in_place_of_an_assertion(front: Front, junk: bytes) -> None:
    from urllib.parse import quote_from_bytes

    from credx.protocol import Ask, TokenRequest

    world = front.world
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    world.touch(token, key, step_up)
    form = TokenRequest(subject_token=token, ask=Ask(role="prod")).to_form()
    form += f"&auth_session={step_up.auth_session.reveal()}&webauthn={quote_from_bytes(junk)}".encode()
    shaped = junk in (b"{}", b'{"id":1,"rawId":2,"response":3}')
    front.refused(
        lambda: front.form(form),
        "insufficient_authorization" if shaped else "invalid_request",
        verified=shaped,
    )
