from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from credx.credentials import keyring_child
from credx.credentials.keystore import KeyStoreUnavailable, SystemKeyStore

if TYPE_CHECKING:
    from pathlib import Path

# a keyring backend of a few lines that keeps its items in the file named by argv[1]
FAKE = """
import json, pathlib, sys
from credx.credentials import keyring_child
class Fake:
    priority = 5
    file = pathlib.Path(sys.argv[1])
    def items(self): return json.loads(self.file.read_text()) if self.file.exists() else {}
    def get_password(self, service, user): return self.items().get(service + "/" + user)
    def set_password(self, service, user, value): self.file.write_text(json.dumps({service + "/" + user: value}))
    def delete_password(self, service, user): self.file.unlink()
keyring_child.main(sys.stdin.buffer, sys.stdout.buffer, [("__main__", "Fake")])
"""


def test_a_key_lives_through_the_child(tmp_path: Path) -> None:
    store = SystemKeyStore((sys.executable, "-c", FAKE, str(tmp_path / "items")), limit=20)
    assert store.load() is None
    key = store.create()
    assert len(key) == 32
    assert store.load() == key
    assert list(json.loads((tmp_path / "items").read_text())) == ["credx/vault-key"]
    assert store.create() != key
    store.delete()
    assert store.load() is None
    store.delete()


def test_an_item_that_is_no_key_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "items").write_text(json.dumps({"credx/vault-key": "not base64!"}))
    assert SystemKeyStore((sys.executable, "-c", FAKE, str(tmp_path / "items")), limit=20).load() is None
    (tmp_path / "items").write_text(json.dumps({"credx/vault-key": "AAAA"}))
    assert SystemKeyStore((sys.executable, "-c", FAKE, str(tmp_path / "items")), limit=20).load() is None


def test_a_keyring_that_hangs_is_given_up() -> None:
    store = SystemKeyStore((sys.executable, "-c", "import time; time.sleep(60)"), limit=0.5)
    start = time.monotonic()
    with pytest.raises(KeyStoreUnavailable, match=r"did not answer within 0.5 s"):
        store.load()
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "print('nonsense')", "print('[1]')"])
def test_a_helper_that_fails_is_named(code: Any) -> None:
    with pytest.raises(KeyStoreUnavailable, match="the keyring helper failed"):
        SystemKeyStore((sys.executable, "-c", code), limit=20).load()


def test_a_helper_that_cannot_be_started_is_named() -> None:
    with pytest.raises(KeyStoreUnavailable, match="cannot be started"):
        SystemKeyStore(("/nonexistent/python",)).load()


def test_the_reason_of_the_child_is_shown_cleaned() -> None:
    code = "import json; print(json.dumps({'error': 'no \\x1b[31m keyring'}))"
    with pytest.raises(KeyStoreUnavailable) as caught:
        SystemKeyStore((sys.executable, "-c", code), limit=20).load()
    assert "\x1b" not in caught.value.message
    assert caught.value.hint


def test_importing_the_room_does_not_import_keyring() -> None:
    code = (
        "import sys, credx.flow, credx.credentials.store, credx.credentials.keystore;"
        "print([m for m in ('keyring', 'fido2', 'boto3', 'cryptography', 'urllib3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Good:
    priority = 5.0

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, user: str) -> str | None:
        return self.items.get((service, user))

    def set_password(self, service: str, user: str, value: str) -> None:
        self.items[service, user] = value

    def delete_password(self, service: str, user: str) -> None:
        del self.items[service, user]


class WinVaultKeyring(Good):
    persist = "enterprise"


class Absent(Good):
    priority = 0.0


def test_the_first_backend_that_works_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    here = sys.modules.setdefault(__name__, type(sys)(__name__))
    monkeypatch.setattr(here, "Absent", Absent, raising=False)
    monkeypatch.setattr(here, "Good", Good, raising=False)
    monkeypatch.setattr(here, "WinVaultKeyring", WinVaultKeyring, raising=False)
    allowed = [("no.such.module", "Keyring"), (__name__, "Missing"), (__name__, "Absent"), (__name__, "Good")]
    assert isinstance(keyring_child.choose(allowed), Good)
    assert keyring_child.choose(allowed[:3]) is None
    local = keyring_child.choose([(__name__, "WinVaultKeyring")])
    assert local.persist == "local machine"  # not roamed to a domain controller


def test_requests_of_the_child() -> None:
    backend = Good()
    assert keyring_child.answer({"do": "load"}, backend) == {}
    assert keyring_child.answer({"do": "save", "key": "K"}, backend) == {}
    assert keyring_child.answer({"do": "load"}, backend) == {"key": "K"}
    assert keyring_child.answer({"do": "delete"}, backend) == {}
    assert keyring_child.answer({"do": "delete"}, backend) == {}
    assert "error" in keyring_child.answer({"do": "dump"}, backend)


def test_an_error_of_the_backend_says_its_class_and_no_more() -> None:
    out = io.BytesIO()
    keyring_child.main(io.BytesIO(b"not json"), out, [])
    assert json.loads(out.getvalue()) == {"error": "the keyring refused (JSONDecodeError)"}
    out = io.BytesIO()
    keyring_child.main(io.BytesIO(b'{"do":"load"}'), out, [])
    assert json.loads(out.getvalue()) == {"error": "there is no keyring that credx trusts on this machine"}


def test_the_allow_list_names_no_backend_that_keeps_nothing_or_plain_text() -> None:
    modules = {module for module, _ in keyring_child.ALLOWED}
    assert modules == {f"keyring.backends.{m}" for m in ("macOS", "Windows", "SecretService", "kwallet")}
