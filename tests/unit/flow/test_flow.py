"""The client story, step by step, against a broker on the wire."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import credx.identity
from credx.credentials.keystore import KeyStoreUnavailable
from credx.credentials.store import Vault
from credx.errors import (
    AwsRefusedError,
    CredxError,
    DeniedError,
    FactorError,
    SignInError,
    UnavailableError,
)
from credx.model import Secret
from credx.protocol import Ask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEV = Ask(role="dev")


# -- the whole way ---------------------------------------------------------------------------------


def test_from_nothing_to_credentials(world: Any) -> None:
    world.ui.answers = ["123456"]
    creds = world.flow().credentials(Ask(role="dev", scopes=("read",), duration=5400, reason="why"))
    assert creds.access_key_id == "ASIA1"
    assert world.idp.events == ["browser"]
    assert world.broker.calls == ["POST /token", "POST /token"]
    assert world.broker.forms[1]["auth_session"] == ["auth-session-00000001"]
    assert world.ui.asked == [
        "code of your authenticator app, to approve: dev with read for 1 h 30 min (why): "
    ]
    called = world.sts_calls[0]
    assert called["token"].reveal() == "WEB-IDENTITY-TOKEN"
    assert (called["role_arn"], called["duration"], called["session_name"]) == (
        "arn:aws:iam::111122223333:role/dev", 3600, "ada-1",
    )  # fmt: skip


def test_the_second_time_nothing_is_asked_and_nothing_is_called(world: Any) -> None:
    world.ui.answers = ["123456"]
    first = world.flow().credentials(DEV)
    calls = len(world.broker.calls)
    assert world.flow().credentials(DEV) == first
    assert len(world.broker.calls) == calls


def test_the_web_identity_token_is_never_kept(world: Any) -> None:
    world.ui.answers = ["123456"]
    world.flow().credentials(DEV)
    kept = {name: world.vault.get(name) for name in world.vault.names()}
    assert "WEB-IDENTITY-TOKEN" not in repr(kept)
    assert "AWS-SECRET" in repr(kept)


# -- 1 cache ---------------------------------------------------------------------------------------


def test_another_ask_does_not_get_these_credentials(world: Any) -> None:
    world.ui.answers = ["123456"] * 5
    flow = world.flow()
    others = [Ask(role="prod"), Ask(role="dev", scopes=("s",)), Ask(role="dev", resources=("arn:x",)),
              Ask(role="dev", duration=900)]  # fmt: skip
    keys = {flow.credentials(ask).access_key_id for ask in [DEV, *others]}
    assert len(keys) == 5


def test_without_the_cache_there_is_a_new_issuance(world: Any) -> None:
    world.ui.answers = ["123456", "123456"]
    first = world.flow().credentials(DEV)
    assert world.flow().credentials(DEV, use_cache=False) != first


@pytest.mark.parametrize(
    ("left", "min_left", "new"), [(1000, 300, False), (304, 300, True), (306, 300, False), (1000, 1800, True)]
)
def test_how_much_life_has_to_be_left(world: Any, left: int, min_left: int, new: bool) -> None:
    world.ui.answers = ["123456", "123456"]
    flow = world.flow()
    flow.credentials(DEV)
    world.now += 3600 - left
    again = flow.credentials(DEV, min_left=min_left)
    assert (again.access_key_id == "ASIA2") == new


def test_near_the_end_a_renewal_that_needs_a_touch_waits_until_it_must(world: Any) -> None:
    world.ui.answers = ["123456"]
    flow = world.flow()
    flow.credentials(DEV)
    calls = len(world.broker.calls)
    world.now += 3600 - 600
    assert flow.credentials(DEV).access_key_id == "ASIA1"
    assert len(world.broker.calls) == calls


def test_near_the_end_a_renewal_that_asks_nobody_is_made(world: Any) -> None:
    world.totp_code = lambda: Secret("123456")
    flow = world.flow()
    flow.credentials(DEV)
    world.now += 3600 - 600
    assert flow.credentials(DEV).access_key_id == "ASIA2"
    assert world.ui.asked == []


def test_a_factor_session_renews_without_asking(world: Any) -> None:
    world.broker.factor_max_age = 8 * 3600
    world.ui.answers = ["123456"]
    flow = world.flow()
    flow.credentials(DEV)
    world.now += 3600 - 600
    assert flow.credentials(DEV).access_key_id == "ASIA2"


@pytest.mark.parametrize("trouble", ["down", "denied"])
def test_a_renewal_that_fails_leaves_what_is_there(world: Any, trouble: str) -> None:
    world.totp_code = lambda: Secret("123456")
    flow = world.flow()
    flow.credentials(DEV)
    world.now += 3600 - 600
    setattr(world.broker, trouble, True)
    assert flow.credentials(DEV).access_key_id == "ASIA1"
    world.now += 301
    with pytest.raises(CredxError):
        flow.credentials(DEV)


# -- 2 identity ------------------------------------------------------------------------------------


def test_a_kept_sign_in_serves_and_is_renewed_silently(world: Any) -> None:
    world.broker.wants_proof = False
    world.flow().credentials(DEV)
    world.flow().credentials(Ask(role="prod"))
    assert world.idp.events == ["browser"]
    world.now += 3590
    world.flow().credentials(Ask(role="prod"), use_cache=False)
    assert world.idp.events == ["browser", "refresh"]


def test_a_refresh_token_that_is_not_rotated_stays(world: Any) -> None:
    flow = world.flow()
    flow.sign_in()
    world.idp.gives_refresh_tokens = False
    world.now += 3590
    flow.id_token()
    world.now += 3590
    flow.id_token()
    assert world.idp.events == ["browser", "refresh", "refresh"]


def test_a_refresh_token_that_is_refused_leads_to_the_browser(world: Any) -> None:
    flow = world.flow()
    flow.sign_in()
    world.idp.refresh_works = SignInError("revoked")
    world.now += 3600
    flow.id_token()
    assert world.idp.events == ["browser", "browser"]


def test_while_the_provider_is_away_the_kept_token_serves_as_long_as_it_lives(world: Any) -> None:
    world.idp.life = 7200
    flow = world.flow()
    flow.sign_in()
    world.idp.refresh_works = UnavailableError("away")
    world.now += 3600
    assert flow.id_token().reveal() == "idt.1"
    world.now += 3600
    with pytest.raises(UnavailableError):
        flow.id_token()


def test_a_token_older_than_an_hour_is_the_brokers_to_judge(world: Any) -> None:
    world.idp.life, world.idp.gives_refresh_tokens = 8 * 3600, False
    flow = world.flow()
    flow.sign_in()
    world.now += 7200
    assert flow.id_token().reveal() == "idt.1"
    assert world.idp.events == ["browser"]


def test_a_refresh_for_another_person_is_not_taken(world: Any) -> None:
    """OpenID Connect Core 12.2."""
    flow = world.flow()
    flow.sign_in()
    world.idp.subject = "mallory"
    world.now += 3590
    world.no_browser = True
    with pytest.raises(SignInError):
        world.flow().id_token()
    assert world.flow().status()["signed_in"]["subject"] == "ada"


def test_a_refresh_from_another_authentication_is_not_taken(world: Any) -> None:
    """OpenID Connect Core 12.2."""
    world.flow().sign_in()
    world.idp.auth_time += 60
    world.now += 3590
    world.no_browser = True
    with pytest.raises(SignInError):
        world.flow().id_token()
    world.idp.auth_time -= 60
    assert world.flow().id_token().reveal() == "idt.3"


@pytest.mark.parametrize("error", ["invalid_token", "insufficient_user_authentication"])
def test_a_token_that_the_broker_refuses_is_renewed_then_replaced(world: Any, error: str) -> None:
    world.broker.wants_proof = False
    world.broker.refused_tokens = {"idt.1": error, "idt.2": error}
    world.flow().credentials(DEV)
    assert world.idp.events == ["browser", "refresh", "browser"]
    assert world.broker.forms[-1]["subject_token"] == ["idt.3"]


def test_a_broker_that_refuses_every_token_is_not_asked_for_ever(world: Any) -> None:
    world.broker.refused_tokens = {f"idt.{n}": "invalid_token" for n in range(9)}
    with pytest.raises(SignInError):
        world.flow().credentials(DEV)
    assert world.idp.events == ["browser", "refresh", "browser"]


def test_the_credentials_of_another_person_are_dropped(world: Any) -> None:
    world.broker.factor_max_age = 3600
    world.ui.answers = ["123456"]
    flow = world.flow()
    flow.credentials(DEV)
    world.idp.subject = "eve"
    flow.sign_in(force=True)
    assert flow.status()["credentials"] == []
    assert [name for name in world.vault.names() if name.startswith(("aws:", "factor-sessions:"))] == []


def test_another_broker_is_not_sent_what_was_kept_for_this_one(world: Any) -> None:
    world.flow().sign_in()
    assert world.flow().status()["signed_in"]
    world.configure(broker="https://other.example.com")
    assert world.flow().status()["signed_in"] is None


def test_the_same_person_keeps_them(world: Any) -> None:
    world.ui.answers = ["123456"]
    flow = world.flow()
    flow.credentials(DEV)
    flow.sign_in(force=True)
    assert len(flow.status()["credentials"]) == 1


def test_a_token_source_needs_no_browser_and_keeps_no_sign_in(world: Any, monkeypatch: Any) -> None:
    _ambient(world, monkeypatch, lambda: Secret("ci.token"))
    world.configure(token_source="env:CI_TOKEN")
    world.broker.wants_proof = False
    world.flow().credentials(DEV)
    assert world.broker.forms[0]["subject_token"] == ["ci.token"]
    assert world.idp.events == []
    assert not [name for name in world.vault.names() if name.startswith("identity:")]


def test_credentials_of_a_token_source_are_not_those_of_the_browser(world: Any, monkeypatch: Any) -> None:
    world.broker.wants_proof = False
    first = world.flow().credentials(DEV)
    _ambient(world, monkeypatch, lambda: Secret("ci.token"))
    world.configure(token_source="env:CI_TOKEN")
    assert world.flow().credentials(DEV) != first


def test_a_refused_token_of_a_source_is_not_replaced_by_a_browser(world: Any, monkeypatch: Any) -> None:
    _ambient(world, monkeypatch, lambda: Secret("ci.token"))
    world.configure(token_source="stdin")
    world.broker.refused_tokens = {"ci.token": "invalid_token"}
    with pytest.raises(SignInError):
        world.flow().credentials(DEV)
    assert world.idp.events == []


def _ambient(world: Any, monkeypatch: pytest.MonkeyPatch, read: Callable[[], Secret]) -> None:
    import sys
    from types import SimpleNamespace

    import credx.identity

    module = SimpleNamespace(read_token=lambda source, *, environ, stdin: read())
    monkeypatch.setitem(sys.modules, "credx.identity.ambient", module)
    monkeypatch.setattr(credx.identity, "ambient", module, raising=False)


# -- nobody is asked without a terminal -----------------------------------------------------------------


def test_without_a_terminal_no_browser_opens_by_itself(world: Any) -> None:
    world.ui.interactive = False
    with pytest.raises(SignInError, match="would have asked you to sign in at https://idp") as caught:
        world.flow().credentials(DEV)
    assert caught.value.hint == "credx login"
    assert world.browser_opened == []


def test_an_explicit_sign_in_needs_no_terminal_but_a_browser(world: Any) -> None:
    world.ui.interactive = False
    assert world.flow().sign_in(force=True).subject == "ada"
    world.no_browser = True
    with pytest.raises(SignInError):
        world.flow().sign_in(force=True)


@pytest.mark.parametrize("kind", ["totp", "webauthn"])
def test_without_a_terminal_no_factor_is_asked_for(world: Any, kind: str) -> None:
    world.flow().sign_in()
    world.ui.interactive = False
    world.broker.kinds, world.keys = [kind], ["key"]
    with pytest.raises(FactorError, match="would have asked for"):
        world.flow().credentials(DEV)
    assert world.ui.asked == []
    assert "POST /factors/begin" not in world.broker.calls


def test_a_profile_may_allow_a_touch_without_a_terminal(world: Any) -> None:
    world.flow().sign_in()
    world.ui.interactive = False
    world.configure(prompt="touch")
    world.broker.kinds, world.keys = ["webauthn"], ["key"]
    assert world.flow().credentials(DEV)


def test_what_needs_no_person_works_without_a_terminal(world: Any) -> None:
    world.flow().sign_in()
    world.ui.interactive, world.totp_code = False, lambda: Secret("123456")
    assert world.flow().credentials(DEV)
    assert world.ui.asked == []


# -- 3 challenge, 4 factor ----------------------------------------------------------------------------


def test_a_refusal_costs_no_touch(world: Any) -> None:
    world.broker.denied = True
    with pytest.raises(DeniedError):
        world.flow().credentials(DEV)
    assert world.ui.asked == []


def test_a_wrong_code_may_be_typed_again_twice(world: Any) -> None:
    world.ui.answers = ["000000", "111111", "123456"]
    assert world.flow().credentials(DEV)
    assert world.ui.notes == ["the code is not right"] * 2


def test_after_three_wrong_codes_it_is_over(world: Any) -> None:
    world.ui.answers = ["000000"] * 9
    with pytest.raises(FactorError, match="was not accepted"):
        world.flow().credentials(DEV)
    assert len(world.ui.asked) == 3
    assert world.sts_calls == []


def test_the_challenge_is_made_for_the_session_that_asked(world: Any) -> None:
    world.broker.kinds, world.keys = ["totp", "webauthn"], ["key"]
    world.flow().credentials(DEV)
    assert world.broker.calls == ["POST /token", "POST /factors/begin", "POST /token"]
    assert world.broker.forms[-1]["auth_session"] == ["auth-session-00000001"]


def test_one_proof_serves_the_group_while_it_lasts(world: Any) -> None:
    world.broker.factor_max_age, world.broker.groups = 3600, {"dev": "low", "test": "low", "prod": "prod"}
    world.ui.answers = ["123456"]
    world.flow().credentials(DEV)
    world.flow().credentials(Ask(role="test"))  # never taken before: its group is looked up
    assert world.broker.count("GET /roles") == 1
    world.now += 3601
    world.ui.answers = ["123456"]
    world.flow().credentials(Ask(role="test"), use_cache=False)
    assert len(world.ui.asked) == 2


def test_a_factor_session_is_shown_to_its_own_group_alone(world: Any) -> None:
    world.broker.factor_max_age = 3600
    world.ui.answers = ["123456", "123456"]
    world.flow().credentials(DEV)
    world.flow().credentials(Ask(role="prod"))
    assert not any("factor_session" in form for form in world.broker.forms)


def test_a_factor_session_that_has_ended_is_no_obstacle(world: Any) -> None:
    world.broker.factor_max_age = 3600
    world.ui.answers = ["123456", "123456"]
    world.flow().credentials(DEV)
    world.broker.sessions.clear()
    assert world.flow().credentials(DEV, use_cache=False).access_key_id == "ASIA2"


# -- 5 exchange ---------------------------------------------------------------------------------------


def test_credentials_that_the_broker_got_are_taken_as_they_are(world: Any) -> None:
    world.broker.broker_sts = True
    world.ui.answers = ["123456"]
    creds = world.flow().credentials(DEV)
    assert (creds.access_key_id, creds.account_id) == ("ASIABROKER", "111122223333")
    assert creds.expiration == 1_800_003_600
    assert world.sts_calls == []


def test_an_answer_of_an_unknown_kind_is_refused(world: Any) -> None:
    world.broker.token_type = "urn:example:other"
    world.ui.answers = ["123456"]
    with pytest.raises(UnavailableError, match="not understood"):
        world.flow().credentials(DEV)


def test_a_refusal_of_aws_is_passed_on_and_nothing_is_kept(world: Any) -> None:
    world.sts_refuses = True
    world.ui.answers = ["123456"]
    with pytest.raises(AwsRefusedError):
        world.flow().credentials(DEV)
    assert world.flow().status()["credentials"] == []


# -- 6 keep, and one at a time ------------------------------------------------------------------------


class Keyring:
    """One key for everybody; ``refuses`` as a keyring that can be read but not written."""

    key: bytes | None = None
    refuses = False

    def load(self) -> bytes | None:
        return self.key

    def create(self) -> bytes:
        if self.refuses:
            raise KeyStoreUnavailable("it is locked")
        self.key = b"k" * 32
        return self.key

    def delete(self) -> None:
        self.key = None


def test_parallel_callers_ask_the_person_once(world: Any, tmp_path: Path) -> None:
    """aws-vault #291, saml2aws #162: every caller opened a browser and asked for a code of its own."""
    keyring = Keyring()
    world.ui.answers = ["123456"]

    def one(_: int) -> str:
        return world.flow(Vault(keyring, tmp_path / "state")).credentials(DEV).access_key_id

    with ThreadPoolExecutor(8) as pool:  # each with its own descriptors, as processes have
        found = set(pool.map(one, range(8)))
    assert found == {"ASIA1"}
    assert world.idp.events == ["browser"]
    assert len(world.ui.asked) == 1


def test_who_has_usable_credentials_does_not_wait_for_somebody_elses_ceremony(
    world: Any, tmp_path: Path
) -> None:
    keyring = Keyring()
    world.vault = Vault(keyring, tmp_path / "state")
    world.totp_code = lambda: Secret("123456")
    world.flow().credentials(DEV)
    world.now += 3600 - 600
    with Vault(keyring, tmp_path / "state").turn():
        assert world.flow().credentials(DEV).access_key_id == "ASIA1"
    assert world.flow().credentials(DEV).access_key_id == "ASIA2"


def test_what_cannot_be_kept_is_handed_out_all_the_same(world: Any, tmp_path: Path) -> None:
    keyring = Keyring()
    keyring.refuses = True
    world.vault = Vault(keyring, tmp_path / "state")
    world.broker.factor_max_age = 3600
    world.ui.answers = ["123456"]
    assert world.flow().credentials(DEV).access_key_id == "ASIA1"
    assert world.ui.notes[0] == "the sign-in is not kept, because it is locked"
    assert "not kept, because it is locked" in world.ui.notes


def test_log_out_says_when_the_key_stays(world: Any, tmp_path: Path) -> None:
    keyring = Keyring()
    world.vault = Vault(keyring, tmp_path / "state")
    world.flow().sign_in()

    def stuck() -> None:
        raise KeyStoreUnavailable("it is locked")

    keyring.delete = stuck  # type: ignore[method-assign]
    assert world.flow().log_out() == ["the key in the keyring: it is locked"]
    assert world.flow().status()["signed_in"] is None


# -- the rest -----------------------------------------------------------------------------------------


def test_status_tells_who_and_what_without_secrets_or_network(world: Any) -> None:
    assert world.flow().status() == {"signed_in": None, "persistent": False, "credentials": []}
    world.ui.answers = ["123456"]
    world.flow().credentials(DEV)
    calls = len(world.broker.calls)
    found = world.flow().status()
    assert found["signed_in"] == {
        "issuer": "https://idp.example.com", "subject": "ada", "user": "ada@example.com",
        "expires_at": 1_800_003_600, "renewable": True,
    }  # fmt: skip
    assert found["credentials"][0]["role"] == "dev"
    assert found["credentials"][0]["expires_in"] == 3600
    assert len(world.broker.calls) == calls
    assert "AWS-" not in repr(found)
    assert "idt." not in repr(found)


def test_log_out_ends_what_is_elsewhere_and_forgets_what_is_here(world: Any) -> None:
    world.broker.factor_max_age = 3600
    world.ui.answers = ["123456"]
    world.flow().credentials(DEV)
    assert world.flow().log_out() == []
    assert world.broker.sessions == {}
    assert world.idp.events[-1] == "revoke REFRESH-1"
    assert world.vault.names() == []


def test_log_out_works_offline_and_says_what_is_left(world: Any) -> None:
    world.broker.factor_max_age = 3600
    world.ui.answers = ["123456"]
    world.flow().credentials(DEV)
    world.broker.down = True
    world.idp.revoke_works = UnavailableError("out of reach")
    assert world.flow().log_out() == [
        "factor sessions at the broker: the broker is out of reach",
        "the sign-in at https://idp.example.com: out of reach",
    ]
    assert world.vault.names() == []


def test_log_out_interrupted_still_forgets_what_is_here(world: Any) -> None:
    world.flow().sign_in()
    world.idp.revoke_works = False
    flow = world.flow()

    def interrupted() -> None:
        raise KeyboardInterrupt

    flow._person.revoke = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        flow.log_out()
    assert world.vault.names() == []


def test_log_out_of_nobody_calls_nobody(world: Any) -> None:
    assert world.flow().log_out() == []
    assert world.broker.calls == []
    assert world.idp.events == []


def test_a_totp_factor_is_added_with_a_proof_and_its_first_code(world: Any) -> None:
    world.ui.answers = ["123456", "000000", "123456"]
    shown: list[tuple[str, str]] = []
    made = world.flow().add_factor("totp", "new", show=lambda u, s: shown.append((u.reveal(), s.reveal())))
    assert made["id"] == "f2"
    assert shown == [("otpauth://x", "BASE32")]
    assert world.ui.asked[0].endswith("to approve: add the factor 'new' (totp): ")
    assert "BASE32" not in "".join(world.ui.notes)


def test_a_first_factor_needs_only_the_invitation(world: Any) -> None:
    made = world.flow().add_factor("webauthn", "key", Secret("i" * 20), show=lambda *_: None)
    assert made["id"] == "f2"
    assert world.ui.asked == []


def test_a_factor_is_removed_with_a_proof(world: Any) -> None:
    world.ui.answers = ["123456"]
    world.flow().remove_factor("f1")
    assert world.broker.count("DELETE /factors/f1") == 2
    assert "remove the factor f1" in world.ui.asked[0]


def test_listings(world: Any) -> None:
    assert [role["name"] for role in world.flow().roles()] == ["dev", "prod"]
    assert world.flow().factors()[0]["name"] == "phone"


def test_an_impatient_caller_shortens_the_wait_for_the_browser(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    sign_in = world.idp.sign_in

    def waiting(provider: Any, **rest: Any) -> Any:
        waits.append(rest["deadline"])
        return sign_in(provider, **rest)

    monkeypatch.setattr(credx.identity.code_flow, "sign_in", waiting)
    world.ui.patience = lambda limit: min(limit, 7.0)
    world.flow().sign_in()
    assert waits == [7.0]
