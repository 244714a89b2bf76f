from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from credx.credentials import cache
from credx.protocol import Ask

if TYPE_CHECKING:
    from credx.credentials.store import Vault

NOW = 1_800_000_000
BROKER = "https://credx.example.com"

words = st.lists(st.text("abc-:/", min_size=1, max_size=4), max_size=3, unique=True).map(tuple)
asks = st.builds(
    Ask,
    role=st.sampled_from(["a", "ab"]),
    resources=words,
    scopes=words,
    operation=st.sampled_from(["creds", "shell"]),
    duration=st.sampled_from([None, 900, 3600]),
    reason=st.text(max_size=3),
)


@given(asks, asks)
def test_two_asks_share_credentials_only_when_they_ask_for_the_same(one: Ask, other: Ask) -> None:
    def meaning(ask: Ask) -> object:
        return ask.role, sorted(ask.resources), sorted(ask.scopes), ask.operation, ask.duration

    same = cache.cache_name(BROKER, one) == cache.cache_name(BROKER, other)
    assert same == (meaning(one) == meaning(other))
    assert cache.cache_name(BROKER, one) != cache.cache_name("https://other.example", one)


def test_what_is_saved_is_loaded(vault: Vault, make_creds: Any) -> None:
    name = cache.cache_name(BROKER, Ask(role="dev"))
    assert cache.load(vault, name) is None
    cache.save(vault, name, make_creds(), now=NOW)
    kept = cache.load(vault, name)
    assert kept.creds == make_creds()
    assert kept.renew_at == NOW + 3600 - cache.RENEW_BELOW


def test_a_short_session_is_not_renewed_in_its_first_half(vault: Vault, make_creds: Any) -> None:
    cache.save(vault, "aws:x", make_creds(expiration=NOW + 900), now=NOW)
    assert cache.load(vault, "aws:x").renew_at == NOW + 450


def test_saving_drops_what_has_expired_and_nothing_else(vault: Vault, make_creds: Any) -> None:
    cache.save(vault, "aws:old", make_creds(expiration=NOW + 10), now=NOW)
    cache.save(vault, "aws:live", make_creds(), now=NOW)
    vault.put("identity:x", {"id_token": "t"})
    cache.save(vault, "aws:new", make_creds(), now=NOW + 10)
    assert vault.names() == ["aws:live", "aws:new", "identity:x"]


def test_usable_counts_the_seconds_that_are_left(make_creds: Any) -> None:
    creds = make_creds(expiration=NOW + 300)
    assert cache.usable(creds, NOW, 300)
    assert not cache.usable(creds, NOW + 0.5, 300)


def test_the_listing_holds_no_secret_and_nothing_expired(vault: Vault, make_creds: Any) -> None:
    ask = Ask(role="dev", resources=("arn:r",), scopes=("s",), duration=900)
    cache.save(vault, cache.cache_name(BROKER, ask), make_creds(), now=NOW)
    cache.save(vault, cache.cache_name("https://other.example", ask), make_creds(), now=NOW)
    assert cache.listing(vault, BROKER, now=NOW) == [
        {
            "role": "dev",
            "role_arn": "arn:aws:iam::111122223333:role/dev",
            "operation": "creds",
            "scopes": ["s"],
            "resources": ["arn:r"],
            "expires_in": 3600,
        }
    ]
    assert cache.listing(vault, BROKER, now=NOW + 3600) == []
