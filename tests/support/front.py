"""The broker's real front door on loopback, over SQLite, and the three things that every refusal owes.

Set-up goes straight to the broker through ``world``; an attack goes through the door.
"""

from __future__ import annotations

import http.client
import json
import logging
import re
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from support.broker_world import IDP_KEY, ISSUER, World

from credx.broker.administration import set_disabled
from credx.broker.directory import Somebody
from credx.broker.stores import StoreUnavailableError
from credx.jose import RemoteKeys, rsa_public_jwk
from credx.protocol import ERROR_STATUS, Ask, TokenRequest, proof_to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from credx.broker.stores import Write
    from credx.broker.stores.sqlite import SqliteStore
    from credx.model import Secret
    from credx.protocol import Proof

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
PROGRESS = {"granted", "issued", "enrolled", "removed", "logged_out", "invited"}
HANDED_OUT = {
    "access_token", "issuance_id", "factor_session", "enrolment", "public_key", "secret", "uri", "factor",
}  # fmt: skip
_TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]+\.|ASIA|otpauth:")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    raw: bytes = field(repr=False)

    @property
    def body(self) -> Any:
        return json.loads(self.raw) if self.raw else None


def published(url: str, **_: Any) -> bytes:
    """What the identity provider has under its addresses: discovery and one key."""
    if url.endswith("/.well-known/openid-configuration"):
        return json.dumps({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}).encode()
    return json.dumps({"keys": [rsa_public_jwk(IDP_KEY.public_key())]}).encode()


class Front:
    def __init__(self, store: SqliteStore, path: Path) -> None:
        self.store, self.path = store, path
        self.world = World(store, RemoteKeys(published))
        self.lines: list[dict[str, Any]] = []
        self.host, self.port = "127.0.0.1", 0

    # -- requests

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: Secret | None = None,
        headers: Sequence[tuple[str, str]] = (),
        kind: str = JSON,
    ) -> Answer:
        """One request on its own connection; ``headers`` as they are, repeated ones too."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        sent = [("Content-Type", kind), ("Content-Length", str(len(raw))), *headers]
        if token is not None:
            sent.append(("Authorization", f"Bearer {token.reveal()}"))
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=10)) as connection:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in sent:
                connection.putheader(name, value)
            connection.endheaders(raw)
            response = connection.getresponse()
            headers_back = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers_back, response.read())

    def form(self, body: bytes) -> Answer:
        return self.send("POST", "/token", body, kind=FORM)

    def ask(self, token: Secret, role: str = "prod", proof: Proof | None = None, **more: Any) -> Answer:
        return self.form(TokenRequest(subject_token=token, ask=Ask(role=role, **more), proof=proof).to_form())

    def challenge(self, token: Secret, auth_session: str) -> Answer:
        body = {"purpose": "prove", "auth_session": auth_session}
        return self.send("POST", "/factors/begin", body, token=token)

    def enrol(
        self,
        token: Secret,
        kind: str = "webauthn",
        name: str = "new",
        proof: Proof | None = None,
        invitation: Secret | None = None,
    ) -> Answer:
        body = {"purpose": "enrol", "kind": kind, "name": name, **(proof_to_json(proof) if proof else {})}
        if invitation is not None:
            body["invitation"] = invitation.reveal()
        return self.send("POST", "/factors/begin", body, token=token)

    def complete(self, token: Secret, enrolment: str, **answer: Any) -> Answer:
        return self.send("POST", "/factors/complete", {"enrolment": enrolment, **answer}, token=token)

    def remove(self, token: Secret, factor_id: str, proof: Proof | None = None) -> Answer:
        return self.send(
            "DELETE", f"/factors/{factor_id}", proof_to_json(proof) if proof else {}, token=token
        )

    def factor_id(self, subject: str = "alice", kind: str = "webauthn", name: str | None = None) -> str:
        factors = self.world.broker.own_factors.listing(self.world.token(subject), "10.0.0.1")
        return next(f["id"] for f in factors if f["kind"] == kind and name in (None, f["name"]))

    def disable(self, subject: str = "alice", issuer: str = ISSUER, *, disabled: bool = True) -> None:
        world, who = self.world, self.world.user_key(subject, issuer)
        set_disabled(
            self.store,
            world.audit,
            Somebody(who, subject),
            disabled=disabled,
            administrator="root",
            now=world.clock(),
        )

    # -- what every refusal owes

    def refused(
        self,
        call: Callable[[], Answer],
        error: str = "insufficient_authorization",
        *,
        cause: str = "",
        verified: bool = True,
        line: str | None = "request_refused",
    ) -> Answer:
        """``call`` is refused with ``error``; nothing is issued; one record, or one line in the security log.

        ``verified``: the ID token was, so there is one record ``refused`` with ``cause`` in its detail. Else
        there is none, and the one line of the event ``line`` has ``cause`` in it (None: no line at all).
        """
        records, lines, asked = self._records(), len(self.lines), len(self.world.sts.asked)
        answer = call()
        assert (answer.status, answer.body["error"]) == (ERROR_STATUS[error], error), answer.raw
        self.nothing_in(answer)
        new = self._records()[len(records) :]
        new_lines = self.lines[lines:]
        assert not PROGRESS & {record["event"] for record in new}, new
        assert len(self.world.sts.asked) == asked
        if verified:
            assert [(r["event"], r["error"]) for r in new] == [("refused", error)], new
            assert cause in new[0]["detail"], new[0]["detail"]
            assert new[0]["client"] == "127.0.0.1"
            assert new_lines == []
        else:
            assert new == []
            assert [entry["event"] for entry in new_lines] == ([] if line is None else [line])
            assert cause in json.dumps(new_lines)
        return answer

    def asked_again(self, call: Callable[[], Answer]) -> Answer:
        """No proof was given: a step-up is neither a refusal nor an issuance, and leaves nothing behind."""
        records, lines = len(self._records()), len(self.lines)
        answer = call()
        assert answer.status == 403
        assert answer.body["auth_session"]
        assert "retry" not in answer.body
        self.nothing_in(answer)
        assert len(self._records()) == records
        assert len(self.lines) == lines
        return answer

    def issued(self, call: Callable[[], Answer]) -> Answer:
        """The control: what is not bent is issued, with its two records."""
        before = len(self._records())
        answer = call()
        assert answer.status == 200, answer.raw
        assert answer.body["access_token"]
        assert [record["event"] for record in self._records()[before:]] == ["granted", "issued"]
        return answer

    def nothing_in(self, answer: Answer) -> None:
        """No token, no handle but that of an auth session, no stored state in an answer; and none is cached."""
        told = answer.body if answer.raw else {}
        assert not HANDED_OUT & set(told), told
        assert not _TOKEN.search(answer.raw)
        assert answer.headers.get("cache-control") == "no-store"

    def _records(self) -> list[dict[str, Any]]:
        return self.world.records()


class Lines(logging.Handler):
    """The security log, line by line."""

    def __init__(self, kept: list[dict[str, Any]]) -> None:
        super().__init__()
        self.kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(json.loads(record.getMessage()))


class Failing:
    """Makes one ``apply`` of a store fail: the ``at``-th, before the write or after it (a lost answer)."""

    def __init__(self, store: SqliteStore, at: int, *, after: bool = False) -> None:
        self.store, self.left, self.after, self.failed = store, at, after, False
        self._apply = store.apply

    def __enter__(self) -> Self:
        self.store.apply = self._counted  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        del self.store.apply

    def _counted(self, writes: Sequence[Write], *, now: float) -> None:
        self.left -= 1
        if self.left == -1 and not self.after:
            self.failed = True
            raise StoreUnavailableError("gone")
        self._apply(writes, now=now)
        if self.left == -1:
            self.failed = True
            raise StoreUnavailableError("the answer got lost")
