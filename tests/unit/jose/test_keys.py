from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from credx.errors import UnavailableError
from credx.jose import RemoteKeys, TokenError, TrustedIssuer, rsa_public_jwk
from credx.jose.keys import DEADLINE, LAST_GOOD, MAX_AGE, REFETCH, ROOM, ROOM_ALTOGETHER

ISSUER = TrustedIssuer(issuer="https://idp.example.com/realm", audience="credx-cli")
DISCOVERY = "https://idp.example.com/realm/.well-known/openid-configuration"
JWKS = "https://idp.example.com/keys"
PUBLIC = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
T = 1_800_000_000.0


class Site:
    """The provider's two documents, which a test can change or take down."""

    def __init__(self) -> None:
        self.down = False
        self.asked: list[str] = []
        self.discovery: dict[str, Any] = {"issuer": ISSUER.issuer, "jwks_uri": JWKS}
        self.kids = ["k1"]
        self.jwks: bytes | None = None

    def __call__(self, url: str, *, deadline: float) -> bytes:
        assert 0 < deadline <= DEADLINE
        self.asked.append(url)
        if self.down:
            raise UnavailableError("down")
        if url == DISCOVERY:
            return json.dumps(self.discovery).encode()
        if self.jwks is not None:
            return self.jwks
        return json.dumps({"keys": [{**rsa_public_jwk(PUBLIC), "kid": kid} for kid in self.kids]}).encode()


@pytest.fixture
def site() -> Site:
    return Site()


def ask(keys: RemoteKeys, kid: str = "k1", now: float = T, algorithm: str = "RS256") -> str:
    """``ok`` or why not."""
    try:
        keys.key(ISSUER, kid, algorithm, now=now)
    except TokenError as error:
        return error.reason
    except UnavailableError:
        return "unavailable"
    return "ok"


def test_discovery_then_keys_and_then_the_cache(site: Site) -> None:
    keys = RemoteKeys(site)
    assert [ask(keys, now=T + n) for n in (0, 1, MAX_AGE - 1)] == ["ok"] * 3
    assert site.asked == [DISCOVERY, JWKS]
    assert ask(keys, now=T + MAX_AGE) == "ok"
    assert len(site.asked) == 4


def test_a_key_is_for_its_algorithm_only(site: Site) -> None:
    assert ask(RemoteKeys(site), algorithm="ES256") == "unknown-key"


def test_unknown_kids_cause_one_fetch_in_30_seconds(site: Site) -> None:
    keys = RemoteKeys(site)
    assert {ask(keys, kid=f"x{n}", now=T + n / 100) for n in range(1000)} == {"unknown-key"}
    assert len(site.asked) == 2
    assert ask(keys, kid="x", now=T + REFETCH) == "unknown-key"
    assert len(site.asked) == 4


def test_a_rotated_key_is_found(site: Site) -> None:
    keys = RemoteKeys(site)
    assert ask(keys) == "ok"
    site.kids = ["k2"]
    assert ask(keys, kid="k2", now=T + REFETCH) == "ok"
    assert ask(keys, kid="k1", now=T + REFETCH) == "unknown-key"


def test_a_withdrawn_key_serves_no_longer_than_the_cache(site: Site) -> None:
    keys = RemoteKeys(site)
    assert ask(keys) == "ok"
    site.kids = ["k2"]
    assert ask(keys, now=T + MAX_AGE) == "unknown-key"


def test_the_last_good_set_serves_while_the_provider_is_down(site: Site) -> None:
    keys = RemoteKeys(site)
    assert ask(keys) == "ok"
    site.down = True
    assert [ask(keys, now=T + n) for n in range(MAX_AGE, LAST_GOOD, 3600)] == ["ok"] * 24
    assert ask(keys, kid="new", now=T + MAX_AGE) == "unavailable"  # it may be new: nobody can tell
    assert ask(keys, now=T + LAST_GOOD) == "unavailable"


def test_a_provider_that_is_down_is_asked_once_in_30_seconds(site: Site) -> None:
    site.down = True
    keys = RemoteKeys(site)
    assert {ask(keys, now=T + n / 100) for n in range(1000)} == {"unavailable"}
    assert len(site.asked) == 1
    site.down = False
    assert ask(keys, now=T + REFETCH) == "ok"


@pytest.mark.parametrize("jwks", [b'{"keys":[]}', b"{}", b"<html>", b'{"keys":[' + b"{}," * 100 + b"{}]}"])
def test_an_unusable_set_neither_replaces_the_good_one_nor_causes_more_fetches(
    site: Site, jwks: bytes
) -> None:
    keys = RemoteKeys(site)
    assert ask(keys) == "ok"
    site.jwks = jwks
    assert {ask(keys, now=T + MAX_AGE + n) for n in range(REFETCH)} == {"ok"}
    assert len(site.asked) == 4


def test_an_unusable_set_at_the_start(site: Site) -> None:
    site.jwks = b'{"keys":[]}'
    keys = RemoteKeys(site)
    assert {ask(keys, kid=f"x{n}") for n in range(20)} == {"unavailable"}
    assert len(site.asked) == 2


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.example", "jwks_uri": JWKS},
        {"issuer": ISSUER.issuer + "/", "jwks_uri": JWKS},
        {"jwks_uri": JWKS},
        {"issuer": ISSUER.issuer},
        {"issuer": ISSUER.issuer, "jwks_uri": [JWKS]},
        {"issuer": ISSUER.issuer, "jwks_uri": "https://evil.example/keys"},
        {"issuer": ISSUER.issuer, "jwks_uri": "https://idp.example.com:444/keys"},
        {"issuer": ISSUER.issuer, "jwks_uri": "https://idp.example.com.evil.example/keys"},
        {"issuer": ISSUER.issuer, "jwks_uri": "https://idp.example.com@evil.example/keys"},
        {"issuer": ISSUER.issuer, "jwks_uri": "http://idp.example.com/keys"},
        {"issuer": ISSUER.issuer, "jwks_uri": "http://localhost/keys"},
        {"issuer": ISSUER.issuer, "jwks_uri": "file:///etc/keys"},
        {"issuer": ISSUER.issuer, "jwks_uri": "data:application/json,{}"},
    ],
)
def test_discovery_that_points_elsewhere_is_not_followed(site: Site, discovery: dict[str, Any]) -> None:
    """Fulcio GHSA-f5mr-q85p-6hh6, PyJWT GHSA-993g-76c3-p5m4."""
    site.discovery = discovery
    assert ask(RemoteKeys(site)) == "unavailable"
    assert site.asked == [DISCOVERY]


def test_a_pinned_key_set_needs_no_discovery(site: Site) -> None:
    pinned = TrustedIssuer(issuer=ISSUER.issuer, audience="a", jwks_uri="https://keys.example.net/certs")
    assert RemoteKeys(site).key(pinned, "k1", "RS256", now=T)
    assert site.asked == ["https://keys.example.net/certs"]


def test_a_clock_that_is_set_back_makes_nothing_immortal(site: Site) -> None:
    keys = RemoteKeys(site)
    assert ask(keys, now=T + 10**9) == "ok"
    site.kids = ["k2"]
    assert ask(keys, now=T) == "unknown-key"


class Gate:
    """A fetch that a test holds up."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def close(self) -> None:
        self.go_on.clear()
        self.entered.clear()

    def __call__(self, url: str, *, deadline: float) -> bytes:
        self.entered.set()
        assert self.go_on.wait(10)
        return self.site(url, deadline=deadline)


def test_nobody_waits_for_a_fetch_while_there_is_a_set(site: Site) -> None:
    gate = Gate(site)
    keys = RemoteKeys(gate)
    assert ask(keys) == "ok"
    gate.close()
    fetcher = threading.Thread(target=ask, args=(keys, "new", T + MAX_AGE))
    fetcher.start()
    assert gate.entered.wait(10)
    try:
        start = time.monotonic()
        assert ask(keys, now=T + MAX_AGE - 1) == "ok"  # fresh
        assert ask(keys, now=T + MAX_AGE + 1) == "ok"  # stale, and somebody is fetching
        assert ask(keys, kid="x", now=T + MAX_AGE + 1) == "unavailable"  # it may be in what is being fetched
        assert time.monotonic() - start < 1
        assert fetcher.is_alive()
    finally:
        gate.go_on.set()
        fetcher.join()


def at_once(count: int, call: Any) -> tuple[list[threading.Thread], list[str]]:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, answers


def until(true: Any) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_threads_at_the_start_wait_for_one_fetch_and_only_so_many_do(site: Site) -> None:
    gate = Gate(site)
    gate.close()
    keys = RemoteKeys(gate)
    threads, answers = at_once(16, lambda: ask(keys))
    try:
        until(lambda: len(answers) == 16 - ROOM)
        assert set(answers) == {"unavailable"}  # at once, not after a wait
    finally:
        gate.go_on.set()
        for thread in threads:
            thread.join()
    assert answers.count("ok") == ROOM
    assert len(site.asked) == 2


def test_parallel_requests_whose_clocks_were_read_in_another_order_cause_one_fetch(site: Site) -> None:
    site.down = True
    keys = RemoteKeys(site)
    assert [ask(keys, now=T), ask(keys, now=T - 0.001)] == ["unavailable"] * 2
    assert len(site.asked) == 1


def test_no_number_of_slow_providers_takes_every_thread(site: Site) -> None:
    gate = Gate(site)
    gate.close()
    keys = RemoteKeys(gate)
    others = [TrustedIssuer(issuer=f"https://{n}.example.com", audience="a") for n in range(8)]
    # one answer each: discovery of another issuer is refused by its name, so those never have a set
    threads, answers = at_once(1, lambda: ask(keys))
    assert gate.entered.wait(10)

    def first(issuer: TrustedIssuer) -> None:
        try:
            keys.key(issuer, "k1", "RS256", now=T)
        except UnavailableError:
            answers.append("unavailable")

    more = [threading.Thread(target=first, args=(issuer,)) for issuer in others]
    try:
        for thread in more:
            thread.start()
        until(lambda: len(answers) == 1 + len(others) - ROOM_ALTOGETHER)
    finally:
        gate.go_on.set()
        for thread in (*threads, *more):
            thread.join()
    assert ask(keys, now=T + 1) == "ok"  # and what was taken is given back
    assert {keys._inside, *(known.inside for known in keys._issuers.values())} == {0}


def test_discovery_and_key_set_share_one_deadline() -> None:
    clock, allowed = [0.0], []

    def slow(url: str, *, deadline: float) -> bytes:
        allowed.append(deadline)
        clock[0] += 3
        return Site()(url, deadline=deadline)

    assert ask(RemoteKeys(slow, clock=lambda: clock[0])) == "ok"
    assert allowed == [DEADLINE, DEADLINE - 3]


def test_a_discovery_that_takes_all_the_time_leaves_none_for_the_key_set() -> None:
    clock, asked = [0.0], []

    def slow(url: str, *, deadline: float) -> bytes:
        asked.append(url)
        clock[0] += DEADLINE
        return Site()(url, deadline=deadline)

    assert ask(RemoteKeys(slow, clock=lambda: clock[0])) == "unavailable"
    assert asked == [DISCOVERY]


def test_a_thread_without_any_set_waits_a_bounded_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("credx.jose.keys.WAIT", 0.05)
    gate = Gate(site)
    gate.close()
    keys = RemoteKeys(gate)
    fetcher = threading.Thread(target=ask, args=(keys,))
    fetcher.start()
    assert gate.entered.wait(10)
    try:
        assert ask(keys) == "unavailable"
    finally:
        gate.go_on.set()
        fetcher.join()
