"""Claims of docs/threat-model.md and docs/break-glass.md that no other test holds: what is refused, and what is not.

A test whose name begins with ``limit`` shows something that is possible. It fails when that is no longer so: then the
page has to say less.
"""

from __future__ import annotations

import http.client
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.broker_world import CI, IDP_KEY, ISSUER, MINT_KEY, NOW, POLICY, ROLES, SecurityKey, World

from credx.broker.front import wsgi
from credx.broker.front.routes import ROUTES
from credx.broker.policy.source import PolicySource
from credx.broker.signer import LocalSigner
from credx.broker.users import Factor, load_factors
from credx.cli.broker.common import administrator
from credx.errors import ConfigError, Refusal
from credx.jose import RemoteKeys, rsa_public_jwk, sign_jwt
from credx.protocol import FactorSessionProof, Issued, StepUp

if TYPE_CHECKING:
    from pathlib import Path

    from support.front import Answer, Front

    from credx.model import Secret

HERE = "10.0.0.1"
GUARDED = [route for route in ROUTES if not route.public]
BODIES: dict[str, Any] = {
    "/factors/begin": {"purpose": "enrol", "kind": "totp", "name": "mine"},
    "/factors/complete": {"enrolment": "A" * 43, "otp": "123456"},
}


@pytest.fixture
def world() -> World:
    return World()


def proved(world: World, role: str, **more: Any) -> tuple[SecurityKey, Secret, Issued]:
    key, token = world.add_key(), world.token()
    issued = world.ask(token, role, world.touch(token, key, world.step_up(token, role, **more)), **more)
    assert isinstance(issued, Issued)
    return key, token, issued


# -- the holder of a stolen token


def test_an_id_token_alone_gives_nothing_on_any_route(world: World) -> None:
    world.add_key()
    (factor,) = load_factors(world.store, world.user_key(), now=world.clock())
    stolen, before = world.token(), len(world.records())
    assert isinstance(world.ask(stolen), StepUp)
    for route in GUARDED:
        path = route.template.replace("{id}", factor.id)
        if path != "/token":
            _, body = world.http(route.method, path, BODIES.get(path), token=stolen)
            assert not {"enrolment", "access_token", "factor", "secret"} & set(body or {}), path
    assert {record["event"] for record in world.records()[before:]} == {"refused", "logged_out"}
    assert load_factors(world.store, world.user_key(), now=world.clock()) == [factor]


@pytest.mark.parametrize("path", [route.template for route in GUARDED])
def test_a_web_identity_token_in_place_of_an_id_token(front: Front, path: str) -> None:
    """What the broker signs for AWS opens nothing at the broker."""
    _, _, issued = proved(front.world, "prod")
    route = next(route for route in GUARDED if route.template == path)

    def sent() -> Answer:
        if path == "/token":
            return front.ask(issued.token)
        where = path.replace("{id}", "0" * 16)
        return front.send(route.method, where, BODIES.get(path, {}), token=issued.token)

    if path == "/factors/begin":  # the other thing that this route takes
        front.refused(
            lambda: front.challenge(issued.token, "A" * 43),
            "invalid_token",
            verified=False,
            line="token_refused",
        )
    front.refused(sent, "invalid_token", verified=False, line="token_refused", cause="issuer")


def test_limit_a_stolen_factor_session_serves_beside_any_id_token_of_its_owner(world: World) -> None:
    _, _, issued = proved(world, "dev")
    assert issued.factor_session is not None
    earlier = FactorSessionProof(factor_session=issued.factor_session)
    assert isinstance(world.ask(world.token(jti="of another sign-in"), "dev", earlier), Issued)
    world.add_key("bob")
    assert isinstance(
        world.ask(world.token("bob"), "dev", earlier), StepUp
    )  # the hash of the person is in its key


def test_limit_the_token_of_a_job_serves_until_it_ends(world: World) -> None:
    """A job proves nothing but its ID token, and may ask with it as often as it likes."""
    job = world.job(exp=NOW + 600)
    assert isinstance(world.ask(job, "deploy"), Issued)
    assert isinstance(world.ask(job, "deploy"), Issued)
    world.clock.pass_(700)
    with pytest.raises(Refusal) as refused:
        world.ask(job, "deploy")
    assert refused.value.code == "invalid_token"


# -- one identity provider among several


def both(url: str, **_: Any) -> bytes:
    """Two providers. The second one publishes its key under the first one's name for it."""
    issuer, key = (ISSUER, IDP_KEY) if url.startswith(ISSUER) else (CI, MINT_KEY)
    if url.endswith("/.well-known/openid-configuration"):
        return json.dumps({"issuer": issuer, "jwks_uri": f"{issuer}/keys"}).encode()
    kid = LocalSigner(IDP_KEY).kid
    return json.dumps({"keys": [rsa_public_jwk(key.public_key()) | {"kid": kid}]}).encode()


@pytest.mark.parametrize("first", ["the foreign one is asked first", "ours is"])
def test_a_token_for_one_provider_signed_by_another(first: str) -> None:
    world = World(keys=RemoteKeys(both))
    foreign = LocalSigner(MINT_KEY)
    foreign.kid = LocalSigner(IDP_KEY).kid
    times = {"iat": NOW, "exp": NOW + 600}
    job = {"iss": CI, "aud": "credx-ci", "sub": "repo:42:main", "job": "x", "repository_id": "42", **times}
    person = {"iss": ISSUER, "aud": "credx-cli", "sub": "alice", "email": "a", "groups": ["sre"], **times}
    if first.startswith("ours"):
        world.add_key()
    assert isinstance(
        world.ask(sign_jwt(job, signer=foreign), "deploy"), Issued
    )  # its own people it may name
    with pytest.raises(Refusal) as refused:
        world.ask(sign_jwt(person, signer=foreign))
    assert refused.value.detail == "bad-signature"
    assert not [record for record in world.records("refused") if record["subject"] == "alice"]


# -- the address in records


def test_an_address_in_front_of_the_one_that_the_proxy_saw(world: World) -> None:
    """X-Forwarded-For grows at its end: what a client sent already stands before what the proxy adds."""
    server = wsgi.serve(world.broker, port=0, trusted_proxy="127.0.0.1")
    stop = threading.Event()
    thread = threading.Thread(target=wsgi.run_until, args=(server, stop))
    thread.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.effective_port, timeout=10)
        token = world.token(groups="nothing")
        said = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7", "Authorization": f"Bearer {token.reveal()}"}
        connection.request("DELETE", "/factor-sessions", headers=said)
        connection.getresponse().read()
        connection.close()
    finally:
        stop.set()
        thread.join()
    assert world.records()[-1]["client"] == "198.51.100.7"


# -- somebody on the host: reads the store


def stored(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(path.name + "*")))


def test_a_store_that_somebody_reads_holds_nothing_to_present(front: Front) -> None:
    """Database and write-ahead log, after everything that a broker does."""
    world = front.world
    app = world.add_app(name="app")
    key, token, issued = proved(world, "dev")
    brokered = world.ask(token, "brokered", world.touch(token, key, world.step_up(token, "brokered")))
    assert isinstance(brokered, Issued)
    open_session = world.step_up(token)
    code = world.code(app, world.step_up(token, "dev"))
    world.ask(token, "dev", code)
    invitation = world.invite("bob")
    begun = world.broker.enrolment.begin(world.token("bob"), HERE, kind="totp", name="a", invited=invitation)
    assert isinstance(begun, dict)
    secrets = {
        "ID token": token.reveal(),
        "web-identity token": issued.token.reveal(),
        "its signature": issued.token.reveal().rpartition(".")[2],
        "secret key": "very-secret-key",
        "session token": "very-secret-session",
        "factor session": issued.factor_session.reveal() if issued.factor_session else "",
        "auth session": open_session.auth_session.reveal(),
        "invitation": invitation.reveal(),
        "enrolment": begun["enrolment"],
        "seed": app.secret,
        "seed to be confirmed": begun["secret"],
        "code": f'"{code.otp.reveal()}"',
    }
    everything = stored(front.path)
    assert world.user_key().encode() in everything
    assert [name for name, text in secrets.items() if not text or text.encode() in everything] == []


# -- somebody on the host: writes the store


def test_limit_a_planted_factor_serves_and_is_in_no_record_of_an_enrolment(world: World) -> None:
    """Whoever writes the store and holds an ID token too; what shows it: a ``factor_id`` that nobody enrolled."""
    proved(world, "prod")
    (real,) = load_factors(world.store, world.user_key(), now=world.clock())
    mallory = World()
    own = mallory.add_key("alice")
    (planted,) = load_factors(mallory.store, world.user_key(), now=world.clock())
    world.store.apply(
        [Factor(id="feedfeedfeedfeed", kind="webauthn", name="x", created_at=NOW, material=planted.material)
         .put(world.user_key())],
        now=world.clock(),
    )  # fmt: skip
    stolen = world.token()
    assert isinstance(world.ask(stolen, proof=world.touch(stolen, own, world.step_up(stolen))), Issued)
    enrolled = {record["factor_id"] for record in world.records("enrolled")}
    assert enrolled == {real.id}
    assert {record["factor_id"] for record in world.records("granted")} - enrolled == {"feedfeedfeedfeed"}


# -- somebody on the host: writes the policy file


def test_a_policy_file_that_everybody_may_write(tmp_path: Path) -> None:
    """Not at the start, and not while the broker serves: the policy that held goes on."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY + ROLES, encoding="utf-8")
    path.chmod(0o646)
    with pytest.raises(ConfigError, match="written by everybody"):
        PolicySource(path)
    path.chmod(0o644)
    source = PolicySource(path)
    before = source().version
    path.write_text(POLICY + ROLES + "# mine\n", encoding="utf-8")
    path.chmod(0o646)
    source.look_now()
    assert source().version == before
    assert "written by everybody" in str(source.state().error)
    path.chmod(0o644)
    source.look_now()
    assert source().version != before


# -- an administrator


def test_an_administrator_does_not_choose_his_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER", "HOSTNAME"):
        monkeypatch.setenv(name, "somebody-else")
    assert "somebody-else" not in administrator()
