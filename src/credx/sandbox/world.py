"""The whole world in one process: identity provider, AWS, broker, and two people with their second factors.

Everything listens on loopback ports of its own and lives in one directory, which belongs to whoever made
it; ``stop`` leaves no thread, no listener and no state of moto behind. The people are real to the broker:
they enrol through its HTTP API with invitations, as everybody does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self

from credx import config
from credx.broker.assemble import open_broker
from credx.broker.invitation import create_invitation
from credx.broker_client import BrokerClient
from credx.http import Http
from credx.model import Secret
from credx.sandbox import scenario, seed
from credx.sandbox.aws.front import AwsFront
from credx.sandbox.broker_server import BrokerServer
from credx.sandbox.homes import Home
from credx.sandbox.idp import Idp
from credx.sandbox.plug import AuthenticatorApp, pocket, security_key_path
from credx.sandbox.security_key import SoftwareKey
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from credx.broker.policy.rules import Policy
    from credx.broker.service import Broker

KEY_OWNERS: Final = ("alice",)  # the others have an authenticator app only
KEY_NAME: Final = "sandbox key"
APP_NAME: Final = "phone"
ADMINISTRATOR: Final = "sandbox"

_log = logging.getLogger("credx.sandbox.broker")


def _tell(record: Mapping[str, Any]) -> None:
    """What the broker refuses, for whoever watches the sandbox; the client hears less."""
    if record.get("event") in {"refused", "failed"}:
        words = (record.get(name) for name in ("user", "role", "error", "detail"))
        _log.warning("broker %s %s", record["event"], clean(", ".join(str(word) for word in words if word)))


class World:
    """The sandbox.

    Args:
        directory: exists, is empty and 0700; it is left as it is at the end.
        now: seconds since 1970, of every clock in this process. The ``credx`` on the people's PATH has the
            machine's clock.

    Attributes:
        people: their names. idp, aws, broker: running parts, with knobs of their own.
        broker_url: also the broker's issuer. policy_file: what the broker decides by.
        instances: Name tag -> instance id.
    """

    people: tuple[str, ...] = ("alice", "bob")
    region = scenario.REGION
    account = scenario.ACCOUNT

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self.idp = Idp(now=now)
        self.aws = AwsFront(now)
        self.broker: Broker
        self.broker_url = ""
        self.policy_file = directory / "policy.toml"
        self.instances: dict[str, str] = {}
        self._now = now
        self._http = Http(environ={})  # no proxy of this machine between the parts
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Everything up and everybody enrolled; on failure everything is down again."""
        with contextlib.ExitStack() as ending:
            ending.enter_context(self.idp)
            ending.enter_context(self.aws)
            server = BrokerServer(self._open_broker)
            ending.callback(server.stop)
            self.broker, self.broker_url = server.broker, server.url
            policy = self.broker.policy()
            with ThreadPoolExecutor(1) as pool:
                seeding = pool.submit(seed.seed_aws, self.aws, policy)
                for user in self.people:
                    self._enrol(user)
                self.instances = seeding.result()
            for user in self.people:
                self._furnish(user, policy)
            self._ending = ending.pop_all()

    def stop(self) -> None:
        """Twice is harmless."""
        self._ending.close()

    def home(self, user: str) -> Path:
        return self._home(user).path

    def environment(self, user: str) -> dict[str, str]:
        """What a program needs to be ``user`` in this world, ``credx`` on PATH included."""
        return self._home(user).environment(endpoint=self.aws.url, region=self.region, inherited=os.environ)

    def id_token(self, user: str) -> Secret:
        """A good ID token without a ceremony; ``idp.id_token_for`` makes the bad ones."""
        return Secret(self.idp.id_token_for(user))

    def invitation(self, user: str) -> Secret:
        """One more, as an administrator makes it."""
        subject = self.idp.people[user].subject
        return create_invitation(
            self.broker.audit,
            self.idp.issuer,
            subject,
            administrator=ADMINISTRATOR,
            now=self._now(),
            rng=secrets.token_bytes,
        )

    def security_key(self, user: str) -> SoftwareKey:
        return SoftwareKey(security_key_path(self.directory, user))

    def authenticator_app(self, user: str) -> AuthenticatorApp:
        return AuthenticatorApp(pocket(self.directory, user) / "totp", now=self._now)

    def client(self) -> BrokerClient:
        return BrokerClient(self.broker_url, self._http, now=self._now)

    def _open_broker(self, url: str) -> Broker:
        text = scenario.policy_text(broker=url, issuer=self.idp.issuer, client_id=self.idp.client_id)
        self.policy_file.write_text(text, encoding="utf-8")
        return open_broker(
            self.policy_file, self.directory / "broker", sts_endpoint=self.aws.url, now=self._now, copy=_tell
        )

    def _home(self, user: str) -> Home:
        if user not in self.people:
            raise KeyError(user)
        return Home(self.directory, user)

    def _enrol(self, user: str) -> None:
        self._home(user).make()
        client, id_token = self.client(), self.id_token(user)
        if user in KEY_OWNERS:
            seed.enrol_security_key(
                client,
                id_token,
                self.invitation(user),
                key=self.security_key(user),
                name=KEY_NAME,
                origin=self.broker_url,
            )
        seed.enrol_authenticator_app(
            client, id_token, self.invitation(user), app=self.authenticator_app(user), name=APP_NAME
        )

    def _furnish(self, user: str, policy: Policy) -> None:
        """What ``credx init`` leaves behind, and a profile for each role in ``~/.aws/config``."""
        home = self._home(user)
        settings = config.from_broker_document(self.broker_url, self.client().configuration())
        # what a real configuration has no need of: STS is here, and nobody sits at a terminal to be asked
        settings = dataclasses.replace(settings, sts_endpoint=self.aws.url, prompt="touch")
        config.save(config.places({"CREDX_HOME": str(home.credx_home)}), settings)
        groups = set(self.idp.people[user].groups)
        home.write_aws_config(
            [(role.name, role.region) for role in policy.roles.values() if groups & role.groups]
        )
