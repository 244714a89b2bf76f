from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

import pytest

from credx.credentials.keystore import KeyStoreUnavailable
from credx.credentials.store import FILE, HEADER, NoVault, Vault, open_vault

if TYPE_CHECKING:
    from pathlib import Path


class FixedKeyStore:
    """The same key in every process, as a keyring gives it."""

    def load(self) -> bytes | None:
        return b"k" * 32

    def create(self) -> bytes:
        raise AssertionError("there is a key already")

    def delete(self) -> None: ...


def test_what_is_put_is_there_for_another_process(vault: Vault, keystore: Any, tmp_path: Path) -> None:
    vault.put("a", {"n": 1, "text": "ü"})
    other = Vault(keystore, tmp_path / "state")
    assert other.get("a") == {"n": 1, "text": "ü"}
    assert other.names() == ["a"]
    assert other.get("b") is None
    other.delete("a")
    assert vault.get("a") is None
    vault.delete("never there")


def test_a_vault_that_does_not_exist_yet_is_empty_and_makes_no_key(vault: Vault, keystore: Any) -> None:
    assert vault.names() == []
    assert keystore.key is None


def test_a_read_asks_the_keyring_once(vault: Vault, keystore: Any) -> None:
    vault.put("a", {})
    before = keystore.loads
    for _ in range(5):
        vault.get("a")
    assert keystore.loads == before


def test_an_empty_vault_asks_the_keyring_only_when_it_is_written(vault: Vault, keystore: Any) -> None:
    assert vault.get("a") is None
    assert keystore.loads == 0
    vault.put("a", {})
    assert keystore.loads == 1


def test_what_cannot_be_decrypted_is_tried_and_noted_once(
    vault: Vault, keystore: Any, notes: list[str], tmp_path: Path
) -> None:
    vault.put("a", {"n": 1})
    keystore.key = None
    later = Vault(keystore, tmp_path / "state", note=notes.append)
    before = keystore.loads
    for _ in range(5):
        assert later.get("a") is None
    assert keystore.loads == before + 1
    assert len(notes) == 1


def test_a_key_that_is_there_already_is_used_for_the_first_write(keystore: Any, tmp_path: Path) -> None:
    key = keystore.create()
    Vault(keystore, tmp_path / "state").put("a", {"n": 1})
    assert keystore.key == key


def test_without_its_key_the_file_counts_as_empty_and_is_replaced(
    vault: Vault, keystore: Any, notes: list[str], tmp_path: Path
) -> None:
    vault.put("a", {"n": 1})
    keystore.key = None
    later = Vault(keystore, tmp_path / "state", note=notes.append)
    assert later.get("a") is None
    assert notes == ["the stored sign-in cannot be decrypted and is dropped"]
    later.put("b", {"n": 2})
    assert Vault(keystore, tmp_path / "state").names() == ["b"]


def test_a_wipe_elsewhere_takes_the_key_from_us_too(vault: Vault, keystore: Any, tmp_path: Path) -> None:
    vault.put("old", {"n": 1})
    first = keystore.key
    other = Vault(keystore, tmp_path / "state")
    other.wipe()
    assert keystore.key is None
    assert not (tmp_path / "state" / FILE).exists()
    vault.put("new", {"n": 2})
    assert keystore.key not in (None, first)
    assert Vault(keystore, tmp_path / "state").names() == ["new"]


def test_a_new_key_made_elsewhere_is_picked_up(vault: Vault, keystore: Any, tmp_path: Path) -> None:
    vault.put("old", {"n": 1})
    other = Vault(keystore, tmp_path / "state")
    other.wipe()
    other.put("theirs", {"n": 2})
    assert vault.get("theirs") == {"n": 2}
    vault.put("ours", {"n": 3})
    assert Vault(keystore, tmp_path / "state").names() == ["ours", "theirs"]


def test_a_wipe_removes_the_file_even_when_the_keyring_is_gone(
    vault: Vault, keystore: Any, tmp_path: Path
) -> None:
    vault.put("a", {"n": 1})
    keystore.broken = True
    with pytest.raises(KeyStoreUnavailable):
        vault.wipe()
    assert not (tmp_path / "state" / FILE).exists()


def test_an_unchanged_vault_is_not_written(vault: Vault, tmp_path: Path) -> None:
    vault.put("a", {"n": 1})
    before = (tmp_path / "state" / FILE).read_bytes()
    vault.put("a", {"n": 1})
    assert (tmp_path / "state" / FILE).read_bytes() == before
    vault.put("a", {"n": 2})
    assert (tmp_path / "state" / FILE).read_bytes() != before


def test_each_write_has_its_own_nonce(vault: Vault, tmp_path: Path) -> None:
    seen = set()
    for n in range(20):
        vault.put("a", {"n": n})
        seen.add((tmp_path / "state" / FILE).read_bytes()[len(HEADER) : len(HEADER) + 12])
    assert len(seen) == 20


def _put_many(state: Path, who: int) -> None:
    vault = Vault(FixedKeyStore(), state)
    for n in range(10):
        vault.put(f"{who}-{n}", {"n": n})


def test_parallel_writers_never_lose_each_others_entries(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_put_many, args=(tmp_path / "state", who)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    names = Vault(FixedKeyStore(), tmp_path / "state").names()
    assert names == sorted(f"{who}-{n}" for who in range(4) for n in range(10))


def _hold_turn(state: Path, started: Any, release: Any) -> None:
    with Vault(FixedKeyStore(), state).turn():
        started.set()
        release.wait(30)


def test_one_turn_at_a_time_and_a_killed_holder_gives_it_back(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started, release = context.Event(), context.Event()
    holder = context.Process(target=_hold_turn, args=(tmp_path / "state", started, release))
    holder.start()
    try:
        assert started.wait(30)
        vault = Vault(FixedKeyStore(), tmp_path / "state")
        with vault.turn(wait=False) as mine:
            assert not mine
    finally:
        holder.kill()
        holder.join()
    with vault.turn() as mine:
        assert mine
        with vault.turn() as again:  # steps within a turn take it again
            assert again


def test_without_a_keyring_nothing_is_kept_and_the_reason_is_told(
    keystore: Any, tmp_path: Path, notes: list[str]
) -> None:
    keystore.broken = True
    vault = open_vault(keystore, tmp_path / "state", note=notes.append)
    assert isinstance(vault, NoVault)
    assert not vault.persistent
    assert notes == ["nothing is kept, because it is switched off"]
    vault.put("a", {"n": 1})
    assert vault.get("a") == {"n": 1}
    assert vault.names() == ["a"]
    vault.delete("a")
    vault.update(lambda entries: entries.__setitem__("b", {}))
    with vault.turn() as mine:
        assert mine
    vault.wipe()
    assert vault.names() == []
    assert not (tmp_path / "state").exists()


def test_with_a_keyring_the_vault_is_persistent(keystore: Any, tmp_path: Path, notes: list[str]) -> None:
    assert open_vault(keystore, tmp_path / "state", note=notes.append).persistent
    assert notes == []
