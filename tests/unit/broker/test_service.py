"""The story of ``Broker.token``, step by step: what is answered, what is left behind, what never leaves."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from support.memory_store import MemoryStore

from credx.broker.administration import set_disabled
from credx.broker.directory import Somebody
from credx.broker.stores import ConflictError, StoreUnavailableError
from credx.broker.stores.sqlite import SqliteStore
from credx.errors import AwsRefusedError, Refusal, UnavailableError
from credx.model import Secret
from credx.protocol import AWS_CREDENTIALS_TYPE, JWT_TYPE, FactorSessionProof, Issued, StepUp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from credx.broker.stores import Write

TARGET = "arn:aws:ec2:eu-central-1:111122223333:instance/i-0123456789abcdef0"


def claims_of(token: Secret, world: Any) -> dict[str, Any]:
    import base64

    head, body, signature = token.reveal().split(".")
    world.broker.signer._key.public_key().verify(
        base64.urlsafe_b64decode(signature + "=="),
        f"{head}.{body}".encode(),
        padding.PKCS1v15(),
        hashes.SHA256(),
    )
    return json.loads(base64.urlsafe_b64decode(body + "=="))


def refused(world: Any, call: Callable[[], Any], code: str) -> str:
    """The call is refused with ``code`` and leaves exactly one record, ``refused``; its private detail."""
    before = len(world.records())
    with pytest.raises(Refusal) as caught:
        call()
    assert caught.value.code == code
    after = world.records()
    assert len(after) == before + 1
    assert (after[-1]["event"], after[-1]["error"]) == ("refused", code)
    return str(after[-1]["detail"])


# -- the whole way


def test_a_touch_gives_a_token_for_one_role(world: Any) -> None:
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token)
    assert [f["kind"] for f in step_up.factors] == ["webauthn"]
    issued = world.ask(token, proof=world.touch(token, key, step_up))
    assert isinstance(issued, Issued)
    assert issued.issued_token_type == JWT_TYPE
    assert (issued.expires_in, issued.duration, issued.session_policy) == (120, 3600, None)
    claims = claims_of(issued.token, world)
    assert claims["https://aws.amazon.com/roles"] == ["arn:aws:iam::111122223333:role/prod"]
    granted, done = world.records("granted"), world.records("issued")
    assert len(granted) == len(done) == 1
    assert granted[0]["jti"] == done[0]["jti"] == claims["jti"]
    assert granted[0]["issuance"] == issued.issuance_id
    assert granted[0]["factor_kind"] == "webauthn"
    assert world.records("refused") == []  # a step-up is no refusal


def test_a_code_gives_a_token_where_the_role_takes_codes(world: Any) -> None:
    app, token = world.add_app(), world.token()
    step_up = world.step_up(token, "dev")
    assert isinstance(world.ask(token, "dev", world.code(app, step_up)), Issued)


def test_no_secret_reaches_the_audit_or_a_repr(world: Any) -> None:
    key, token = world.add_key(), world.token()
    step_up = world.step_up(token, "dev")
    issued = world.ask(token, "dev", proof=world.touch(token, key, step_up))
    told = json.dumps(world.records()) + repr(issued) + repr(step_up) + repr(world.store._rows)
    for secret in (token, issued.token, step_up.auth_session, issued.factor_session):
        assert secret.reveal() not in told


# -- 1, 2


def test_a_token_that_does_not_verify_leaves_no_record(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    for bad, code in [
        (Secret("x.y.z"), "invalid_token"),
        (Secret(world.token().reveal()[:-6] + "AAAAAA"), "invalid_token"),
        (world.token(iat=world.clock() - 3700, exp=int(world.clock()) + 60), "invalid_token"),
        (world.token(iat=int(world.clock()) - 3700), "insufficient_user_authentication"),
        (world.token(exp=int(world.clock()) - 100), "invalid_token"),
        (world.token(aud="another"), "invalid_token"),
        (world.token(iss="https://evil.example.com"), "invalid_token"),
    ]:
        with pytest.raises(Refusal) as caught:
            world.ask(bad)
        assert caught.value.code == code
    assert world.records() == []
    assert caplog.text.count("token_refused") == 7
    assert all(bad not in caplog.text for bad in ("x.y.z", world.token().reveal()))


def test_keys_out_of_reach_is_temporary(world: Any) -> None:
    world.keys.down = True
    with pytest.raises(Refusal) as caught:
        world.ask(world.token())
    assert caught.value.code == "temporarily_unavailable"


def test_a_disabled_person_stops_at_the_door_and_his_proofs_end(world: Any) -> None:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    set_disabled(
        world.store,
        world.audit,
        Somebody(world.user_key(), "alice"),
        disabled=True,
        administrator="root",
        now=world.clock(),
    )
    assert refused(world, lambda: world.ask(token, proof=proof), "access_denied") == "user disabled"
    set_disabled(
        world.store,
        world.audit,
        Somebody(world.user_key(), "alice"),
        disabled=False,
        administrator="root",
        now=world.clock(),
    )
    refused(world, lambda: world.ask(token, proof=proof), "insufficient_authorization")
    assert world.records("granted") == []


def test_group_overage_is_refused_and_recorded(world: Any) -> None:
    token = world.token(_claim_names={"groups": "src1"})
    refused(world, lambda: world.ask(token), "access_denied")


# -- 3


def test_what_the_policy_denies_costs_no_touch(world: Any) -> None:
    world.add_key()
    token = world.token()
    for role in ("foreign", "nothing-of-the-kind", "deploy"):
        refused(world, lambda role=role: world.ask(token, role), "access_denied")
    refused(world, lambda: world.ask(token, "shell", operation="shell"), "invalid_target")
    refused(world, lambda: world.ask(world.token(groups=[])), "access_denied")


# -- 4


def test_without_a_factor_the_answer_says_how_to_get_one(world: Any) -> None:
    before = len(world.records())
    with pytest.raises(Refusal, match="insufficient_authorization") as caught:
        world.ask(world.token())
    assert "credx factor add" in caught.value.public
    assert len(world.records()) == before + 1


def test_a_workload_needs_no_proof_where_its_role_says_so(world: Any) -> None:
    issued = world.ask(world.job(), "deploy")
    assert isinstance(issued, Issued)
    assert claims_of(issued.token, world)["https://aws.amazon.com/tags"]["principal_tags"][
        "credx-factor"
    ] == ["workload"]
    refused(world, lambda: world.ask(world.job(repository_id="43"), "deploy"), "access_denied")
    refused(world, lambda: world.ask(world.job(), "deploy-otp"), "insufficient_authorization")
    refused(world, lambda: world.ask(world.token(), "deploy"), "access_denied")


def test_a_workload_can_have_codes(world: Any) -> None:
    app = world.add_app("repo:42:main", issuer="https://ci.example.com")
    token = world.job()
    step_up = world.step_up(token, "deploy-otp")
    assert isinstance(world.ask(token, "deploy-otp", world.code(app, step_up)), Issued)


# -- 5


def test_policy_and_person_are_looked_at_again_in_the_commit(world: Any) -> None:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    verify = world.broker.second_factor.verify

    def then_the_policy_changes(*args: Any) -> Any:
        proven = verify(*args)
        world.change_policy('claims = ["sre"]', 'claims = ["nobody"]')
        return proven

    world.broker.second_factor.verify = then_the_policy_changes
    refused(world, lambda: world.ask(token, proof=proof), "access_denied")
    assert world.records("granted") == []


def test_a_person_disabled_between_proof_and_commit_gets_nothing(world: Any) -> None:  # CVE-2026-9798 class
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    commit = world.audit.commit

    def disabled_first(writes: Sequence[Write], record: dict[str, Any], *, now: float) -> None:
        if record["event"] == "granted":
            world.audit.commit = commit
            set_disabled(
                world.store,
                world.audit,
                Somebody(world.user_key(), "alice"),
                disabled=True,
                administrator="x",
                now=now,
            )
        commit(writes, record, now=now)

    world.audit.commit = disabled_first
    with pytest.raises(Refusal, match="access_denied"):
        world.ask(token, proof=proof)
    assert world.records("granted") == []


def test_a_factor_removed_between_proof_and_commit_gets_nothing(world: Any) -> None:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    commit = world.audit.commit

    def removed_first(writes: Sequence[Write], record: dict[str, Any], *, now: float) -> None:
        if record["event"] == "granted":
            world.audit.commit = commit
            for item in world.store.query(f"user#{world.user_key()}", "factor#", now=now):
                from credx.broker.stores import Delete

                world.store.apply([Delete(key=item.key, expected=None)], now=now)
        commit(writes, record, now=now)

    world.audit.commit = removed_first
    refused(world, lambda: world.ask(token, proof=proof), "insufficient_authorization")
    assert world.records("granted") == []


@pytest.mark.parametrize("kind", ["webauthn", "totp"])
@pytest.mark.parametrize("backend", ["memory", "sqlite"])
def test_sixty_four_requests_with_one_proof_have_one_winner(
    new_world: Any, tmp_path: Path, backend: str, kind: str
) -> None:
    world = new_world(SqliteStore(tmp_path / "broker.db") if backend == "sqlite" else None)
    key, app, token = world.add_key(), world.add_app(), world.token()
    step_up = world.step_up(token, "dev")
    proof = world.code(app, step_up) if kind == "totp" else world.touch(token, key, step_up)
    answers: list[Any] = []
    start = threading.Barrier(64)

    def one() -> None:
        start.wait()
        try:
            answers.append(world.ask(token, "dev", proof))
        except Refusal as refusal:
            answers.append(refusal)

    threads = [threading.Thread(target=one) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 64
    assert sum(isinstance(answer, Issued) for answer in answers) == 1
    assert len(world.records("granted")) == len(world.records("issued")) == 1
    assert len(world.records("refused")) == 63
    assert world.audit.verify(world.clock()) is None
    world.store.close()


def test_a_commit_that_never_gets_through_is_temporary(world: Any) -> None:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))
    commit = world.audit.commit

    def contended(writes: Sequence[Write], record: dict[str, Any], *, now: float) -> None:
        if record["event"] == "granted":
            raise ConflictError
        commit(writes, record, now=now)

    world.audit.commit = contended
    refused(world, lambda: world.ask(token, proof=proof), "temporarily_unavailable")


# -- 6, 7, 8


class Failing(MemoryStore):
    """Fails from the n-th write on."""

    left = 10_000

    def apply(self, writes: Sequence[Write], *, now: float) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoreUnavailableError
        super().apply(writes, now=now)


@pytest.mark.parametrize("writes", range(6))
@pytest.mark.parametrize("role", ["prod", "brokered"])
def test_nothing_leaves_when_the_store_fails_at_any_write(new_world: Any, role: str, writes: int) -> None:
    store = Failing()
    world = new_world(store)
    key, token = world.add_key(), world.token()
    store.left = writes  # step-up, challenge, granted, issued
    try:
        issued: Any = world.ask(token, role, proof=world.touch(token, key, world.step_up(token, role)))
    except Refusal as refusal:
        assert refusal.code == "temporarily_unavailable"  # noqa: PT017 -- in some cases there is none
        issued = None
    assert (issued is not None) == (writes >= 4)


def test_the_broker_can_make_the_sts_call_itself(world: Any) -> None:
    key, token = world.add_key(), world.token()
    issued = world.ask(token, "brokered", world.touch(token, key, world.step_up(token, "brokered")))
    assert issued.issued_token_type == AWS_CREDENTIALS_TYPE
    document = json.loads(issued.token.reveal())
    assert document["AccessKeyId"] == "ASIAEXAMPLE"
    assert document["Expiration"] == "2027-01-15T09:00:00Z"  # the granted hour, not STS's two
    asked = world.sts.asked[0]
    assert asked["duration"] == 3600
    assert claims_of(asked["token"], world)["aud"] == "credx:aws:111122223333"
    allow, deny = json.loads(asked["policy"])["Statement"]
    assert allow["Action"] == ["s3:GetObject"]
    assert (deny["Effect"], deny["Action"]) == ("Deny", "*")
    assert list(deny["Condition"].values()) == [{"aws:CurrentTime": "2027-01-15T09:00:00Z"}]
    assert len(asked["policy"]) <= 2048
    assert world.records("issued")[0]["access_key_id"] == "ASIAEXAMPLE"
    told = json.dumps(world.records())
    assert "very-secret" not in told
    assert asked["token"].reveal() not in told


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AwsRefusedError("no trust", code="AccessDenied"), "aws_refused"),
        (UnavailableError("timed out"), "temporarily_unavailable"),
    ],
)
def test_an_sts_failure_is_recorded_and_answered(world: Any, error: Exception, code: str) -> None:
    key, token = world.add_key(), world.token()
    world.sts.fails = error
    with pytest.raises(Refusal) as caught:
        world.ask(token, "brokered", world.touch(token, key, world.step_up(token, "brokered")))
    assert caught.value.code == code
    events = [record["event"] for record in world.records()][-2:]
    assert events == ["granted", "failed"]
    assert world.records("refused") == []


def test_a_mint_that_fails_is_recorded(world: Any) -> None:
    key, token = world.add_key(), world.token()
    proof = world.touch(token, key, world.step_up(token))

    def broken(_: bytes) -> bytes:
        raise RuntimeError("the text of this error holds a secret")

    world.broker.signer.sign = broken
    with pytest.raises(RuntimeError):
        world.ask(token, proof=proof)
    assert world.records("failed")[0]["error"] == "RuntimeError"
    assert "secret" not in json.dumps(world.records())


# -- factor_max_age


def test_one_proof_serves_within_its_group_for_its_time(world: Any) -> None:
    key, token = world.add_key(), world.token()
    first = world.ask(token, "dev", world.touch(token, key, world.step_up(token, "dev")))
    assert first.factor_session_expires_in == 8 * 3600
    assert first.factor_group == "dev"
    earlier = FactorSessionProof(factor_session=first.factor_session)
    world.clock.pass_(300)
    again = world.ask(token, "dev", earlier)
    assert isinstance(again, Issued)
    assert again.factor_session is None  # the age counts from the proof: nothing is renewed
    assert isinstance(world.ask(token, "dev-short", earlier), Issued)
    for role in ("other-group", "prod"):
        before = len(world.records("refused"))
        answer = world.ask(token, role, earlier)
        assert isinstance(answer, StepUp)
        assert answer.retry
        assert len(world.records("refused")) == before + 1
    world.clock.pass_(301)
    assert isinstance(world.ask(token, "dev-short", earlier), StepUp)
    assert isinstance(world.ask(token, "dev", earlier), Issued)
    world.clock.pass_(8 * 3600)
    assert isinstance(world.ask(world.token(), "dev", earlier), StepUp)


def test_a_weaker_proof_does_not_serve_for_a_stronger_role(world: Any) -> None:
    app, key, token = world.add_app(), world.add_key(), world.token()
    code = world.ask(token, "dev", world.code(app, world.step_up(token, "dev")))
    earlier = FactorSessionProof(factor_session=code.factor_session)
    assert isinstance(world.ask(token, "dev-key", earlier), StepUp)
    up_only = world.ask(token, "touch", world.touch(token, key, world.step_up(token, "touch"), flags=0x01))
    earlier = FactorSessionProof(factor_session=up_only.factor_session)
    assert isinstance(world.ask(token, "touch", earlier), Issued)
    assert isinstance(world.ask(token, "dev", earlier), StepUp)


def test_a_factor_session_is_one_persons_and_ends_with_its_factor_and_at_logout(world: Any) -> None:
    key, token = world.add_key(), world.token()
    world.add_key("bob")

    def session() -> FactorSessionProof:
        issued = world.ask(token, "dev", world.touch(token, key, world.step_up(token, "dev")))
        return FactorSessionProof(factor_session=issued.factor_session)

    earlier = session()
    assert isinstance(world.ask(world.token("bob"), "dev", earlier), StepUp)
    assert world.broker.own_factors.end_factor_sessions(token, "10.0.0.1") == 1
    assert isinstance(world.ask(token, "dev", earlier), StepUp)
    assert world.records("logged_out")
    earlier = session()
    factor_id = world.broker.own_factors.listing(token, "10.0.0.1")[0]["id"]
    step_up = world.broker.own_factors.remove(token, "10.0.0.1", factor_id)
    world.broker.own_factors.remove(token, "10.0.0.1", factor_id, proof=world.touch(token, key, step_up))
    refused(world, lambda: world.ask(token, "dev", earlier), "insufficient_authorization")
    world.add_key()
    assert isinstance(world.ask(token, "dev", earlier), StepUp)


def test_a_role_for_targets_takes_no_earlier_proof(world: Any) -> None:
    key, token = world.add_key(), world.token()
    first = world.ask(token, "dev", world.touch(token, key, world.step_up(token, "dev")))
    earlier = FactorSessionProof(factor_session=first.factor_session)
    assert isinstance(world.ask(token, "shell", earlier, resources=(TARGET,), operation="shell"), StepUp)
