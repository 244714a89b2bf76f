"""``credx broker users``, ``invite`` and ``invitations`` over a store in a directory."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from credx.broker.assemble import open_office
from credx.broker.person import shown_name, user_key_of
from credx.broker.users import Factor, Profile
from credx.sandbox.scenario import policy_text

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench, Outcome

ISSUER = "https://idp.example.com"
NOW = 1_800_000_000


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    text = policy_text(broker="https://credx.example.com", issuer=ISSUER, client_id="credx-cli")
    path.write_text(text.replace('rp_id = "localhost"\n', ""), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> str:
    """A broker that three people have a factor of."""
    at = open_office(tmp_path / "data", now=lambda: NOW)
    for subject in ("alice", "bob", "carol"):
        user_key = user_key_of(ISSUER, subject)
        name = shown_name(f"{subject}\x1b[31m@example.com", user_key)
        writes = Profile({}, 0).changed(user_key, user=name, issuer=ISSUER, subject=subject, had_factor=True)
        factor = Factor(
            id="0123456789abcdef", kind="totp", name="phone\u202e", created_at=NOW - 9000,
            last_used_at=NOW - 90 if subject == "bob" else None, material={"sealed": "SEALED", "last_step": 1},
        )  # fmt: skip
        at.store.apply([*writes, factor.put(user_key)], now=NOW)
    at.store.close()
    return str(tmp_path / "data")


def shown(subject: str) -> str:
    return shown_name(f"{subject}\x1b[31m@example.com", user_key_of(ISSUER, subject))


@pytest.fixture
def users(bare: Bench, data: str) -> Any:
    def run(*args: str) -> Outcome:
        return bare.run("broker", "users", *args, "--data", data)

    return run


def test_list(users: Any) -> None:
    table = users("list")
    assert table.code == 0, table.err
    lines = table.out.splitlines()
    assert lines[0].split() == ["user", "keys", "apps", "last", "used"]
    assert [line.split()[0] for line in lines[1:]] == [shown(s) for s in ("alice", "bob", "carol")]
    assert lines[2].split()[1:] == ["-", "1", "2027-01-15"]
    found = json.loads(users("list", "--json").out)
    assert [set(one) for one in found] == [
        {"user", "user_key", "issuer", "subject", "disabled", "factors", "last_used_at"}
    ] * 3
    assert [one["subject"] for one in json.loads(users("list", "BOB", "--json").out)] == ["bob"]
    assert users("list", "nobody").out == "nobody\n"
    assert json.loads(users("list", "nobody", "--json").out) == []


def test_pages(users: Any) -> None:
    seen, after = [], []
    for _ in range(4):
        page = users("list", "--limit", "1", "--json", *after)
        seen += [one["user_key"] for one in json.loads(page.out)]
        more = re.search(r"--after (\S+)", page.err)
        if more is None:
            break
        after = ["--after", more[1]]
    assert seen == sorted(user_key_of(ISSUER, s) for s in ("alice", "bob", "carol"))


def test_show_names_no_secret_and_is_clean(users: Any) -> None:
    told = users("show", shown("alice"))
    assert told.code == 0, told.err
    assert "phone" in told.out
    assert not re.search(r"SEALED|\u202e|\x1b", told.out)
    assert json.loads(users("show", f"{ISSUER}|alice", "--json").out)["subject"] == "alice"


def test_disable_tells_what_it_does_not_end(users: Any, bare: Bench, data: str) -> None:
    done = users("disable", shown("alice"))
    assert (done.code, done.out) == (0, "")
    assert f"credx broker users deny {shown('alice')}" in done.err
    assert "disabled" in users("show", shown("alice")).out
    assert "disabled" in users("list").out
    assert json.loads(users("enable", shown("alice"), "--json").out)["done"] == "enabled"
    assert not json.loads(users("show", shown("alice"), "--json").out)["disabled"]
    records = json.loads(bare.run("broker", "audit", "show", "--data", data, "--json").out)
    assert {"disabled", "enabled"} <= {record["event"] for record in records}
    assert all("@" in record["administrator"] for record in records if record["event"] == "disabled")


def test_somebody_unknown(users: Any) -> None:
    done = users("disable", f"{ISSUER}|mallory")
    assert done.code == 0, done.err
    assert "nobody was known" in done.err
    assert f"user-{user_key_of(ISSUER, 'mallory')[:16]}" in users("list").out
    for act in ("show", "enable", "unlock", "reset-factors"):
        gone = users(act, f"{ISSUER}|nobody")
        assert (gone.code, gone.out) == (2, "")
        assert "hint: credx broker users list" in gone.err
    for name in ("alice", "alice-1a2b3c4d", "alice-0123456789abcdef"):
        assert users("disable", name).code == 2


def test_unlock_and_reset(users: Any) -> None:
    assert users("unlock", shown("bob")).code == 0
    done = users("reset-factors", shown("bob"))
    assert done.code == 0, done.err
    assert "gone: phone" in done.err
    assert "\u202e" not in done.err
    assert json.loads(users("show", shown("bob"), "--json").out)["factors"] == []
    assert "nothing, there was no factor" in users("reset-factors", shown("bob")).err


def test_a_directory_that_is_no_brokers_is_not_made_one(bare: Bench, tmp_path: Path) -> None:
    for args in (["users", "list"], ["users", "disable", "a|b"], ["invitations", "list"]):
        done = bare.run("broker", *args, "--data", str(tmp_path / "typo"))
        assert done.code == 3
        assert not (tmp_path / "typo" / "broker.db").exists()


def test_deny_needs_no_store_and_names_the_roles(bare: Bench, policy: Path) -> None:
    who = shown("alice")
    done = bare.run("broker", "users", "deny", who)
    (statement,) = json.loads(done.out)["Statement"]
    assert statement["Condition"] == {
        "StringLike": {"aws:SourceIdentity": f"*-{who[-16:]}"},
        "DateLessThan": {"aws:TokenIssueTime": "2027-01-15T08:07:00Z"},
    }
    assert "attach it once more" in done.err
    for same in (f"{ISSUER}|alice", user_key_of(ISSUER, "alice")):
        assert bare.run("broker", "users", "deny", same).out == done.out
    every = bare.run("broker", "users", "deny", who, "--policy", str(policy))
    assert every.err.count("aws iam put-role-policy --role-name") == 6
    one = bare.run("broker", "users", "deny", who, "--policy", str(policy), "--role", "prod-logs")
    assert one.out == done.out
    assert f"--role-name prod-logs --policy-name credx-revoke-{who[-16:]}" in one.err
    assert bare.run("broker", "users", "deny", who, "--role", "prod-logs").code == 2
    assert bare.run("broker", "users", "deny", who, "--policy", str(policy), "--role", "x").code == 2
    assert bare.run("broker", "users", "deny", "alice").code == 2


def test_invitations(bare: Bench, policy: Path, data: str) -> None:
    where = ("--policy", str(policy), "--data", data)
    made = json.loads(bare.run("broker", "invite", *where, ISSUER, "dave", "--json").out)
    assert set(made) == {"invitation", "issuer", "subject"}
    for subject in (" dave", "", "a\u202eb"):
        refused = bare.run("broker", "invite", *where, ISSUER, subject)
        assert (refused.code, refused.out) == (2, "")
    (one,) = json.loads(bare.run("broker", "invitations", "list", "--data", data, "--json").out)
    assert set(one) == {"id", "issuer", "subject", "administrator", "expires_at"}
    table = bare.run("broker", "invitations", "list", "--data", data).out
    assert one["id"] in table
    assert made["invitation"] not in table
    gone = bare.run("broker", "invitations", "revoke", one["id"], "--data", data)
    assert (gone.code, gone.out) == (0, ""), gone.err
    assert bare.run("broker", "invitations", "list", "--data", data).out == "no invitation is open\n"
    assert bare.run("broker", "invitations", "revoke", one["id"], "--data", data).code == 2
