"""The whole of it against a provider of another make (the sandbox's, on Authlib), over real sockets."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest
from support.ui import FakeUI

from credx.errors import SignInError
from credx.http import Http
from credx.identity import code_flow
from credx.identity.discovery import discover
from credx.jose import RemoteKeys
from credx.sandbox.idp import Idp
from credx.sandbox.robot import browser_for

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def idp() -> Iterator[Idp]:
    running = Idp()
    running.start()
    yield running
    running.stop()


def test_sign_in_renew_revoke(idp: Idp) -> None:
    http = Http(environ={})
    keys = RemoteKeys(http.fetch)
    provider = discover(idp.issuer, http)
    tokens = code_flow.sign_in(
        provider,
        client_id=idp.client_id,
        scopes=("openid", "profile", "offline_access"),
        http=http,
        keys=keys,
        ui=FakeUI(interactive=False),
        open_browser=browser_for("alice"),
        now=time.time,
        rng=os.urandom,
        deadline=10,
    )
    assert tokens.claims.issuer == idp.issuer
    assert tokens.refresh_token is not None
    renewed = code_flow.refresh(
        provider, idp.client_id, tokens.refresh_token, http, keys, time.time(), subject=tokens.claims.subject
    )
    assert renewed.refresh_token is not None
    assert code_flow.revoke(provider, idp.client_id, renewed.refresh_token, http)
    with pytest.raises(SignInError, match="refused"):
        code_flow.refresh(provider, idp.client_id, renewed.refresh_token, http, keys, time.time())
