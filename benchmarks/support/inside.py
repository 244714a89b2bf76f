"""The broker without its front door: one issuance is three calls of ``Api.handle`` in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from credx.broker.assemble import open_broker
from credx.broker.front.answers import Request
from credx.broker.front.api import Api
from credx.protocol import FACTORS_BEGIN_PATH, TOKEN_PATH
from support.crowd import ROLE
from support.load import FORM, JSON

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from credx.broker.stores import Write
    from support.crowd import Somebody


class Inside:
    """A broker over the files that ``credx broker serve`` uses."""

    def __init__(self, directory: Path) -> None:
        self.broker = open_broker(directory / "policy.toml", directory / "data")
        self._api = Api(self.broker)

    def issue(self, who: Somebody, role: str = ROLE) -> dict[str, Any]:
        """Ask, begin, prove. The touch between them is in it: about 50 us."""
        ask = who.ask(role)
        session = self._post(TOKEN_PATH, FORM, ask, expect=403)["auth_session"].encode()
        begin = b'{"purpose":"prove","auth_session":"%s"}' % session
        begun = self._post(FACTORS_BEGIN_PATH, JSON, begin, who.id_token)
        assertion = quote(who.touch(begun["public_key"]["challenge"]), "").encode()
        return self._post(TOKEN_PATH, FORM, ask + b"&auth_session=%s&webauthn=%s" % (session, assertion))

    def writes_of(self, who: Somebody) -> list[Sequence[Write]]:
        """Every ``Store.apply`` of one issuance."""
        store, seen = self.broker.store, []
        apply = store.apply

        def watched(writes: Sequence[Write], *, now: float) -> None:
            seen.append(list(writes))
            apply(writes, now=now)

        store.apply = watched  # type: ignore[method-assign]
        try:
            self.issue(who)
        finally:
            store.apply = apply  # type: ignore[method-assign]
        return seen

    def close(self) -> None:
        self.broker.store.close()

    def _post(
        self, path: str, kind: str, body: bytes, bearer: str = "", *, expect: int = 200
    ) -> dict[str, Any]:
        headers = {"content-type": kind} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
        request = Request(method="POST", path=path, headers=headers, body=body, client="127.0.0.1")
        response = self._api.handle(request)
        assert response.status == expect, (response.status, response.body)
        answer: dict[str, Any] = json.loads(response.body)
        return answer
