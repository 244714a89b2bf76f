from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from credx.credentials import process
from credx.errors import CredxError

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000


def test_the_document_is_exactly_what_the_sdks_read(make_creds: Any) -> None:
    document = process.document(make_creds(), NOW + 0.7)
    assert document.endswith(b"\n")
    assert document.count(b"\n") == 1
    assert json.loads(document) == {
        "Version": 1,
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": "wJalr/K7+bPx=",
        "SessionToken": "FwoG//token==",
        "Expiration": "2027-01-15T09:00:00Z",
        "AccountId": "111122223333",
    }


@pytest.mark.parametrize(("left", "good"), [(301, True), (300, True), (299, False), (0, False), (-5, False)])
def test_what_expires_soon_is_never_handed_out(make_creds: Any, left: int, good: bool) -> None:
    creds = make_creds(expiration=NOW + left)
    if good:
        assert process.document(creds, NOW)
        return
    with pytest.raises(CredxError) as caught:
        process.document(creds, NOW)
    assert "wJalr" not in str(caught.value)


def test_botocore_takes_the_document(make_creds: Any, tmp_path: Path) -> None:
    botocore = pytest.importorskip("botocore.credentials")
    file = tmp_path / "document"
    now = time.time()  # botocore looks at the clock
    file.write_bytes(process.document(make_creds(expiration=int(now) + 3600), now))
    provider = botocore.ProcessProvider(
        "dev", lambda: {"profiles": {"dev": {"credential_process": f"cat {file}"}}}
    )
    found = provider.load().get_frozen_credentials()
    assert found.access_key == "ASIAEXAMPLE"
    assert found.token == "FwoG//token=="
