"""What only DynamoDB can get wrong: who may bend its client, lost answers, contention, throttling, silence."""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
import yaml
from support.dynamo import KEYS, REGION, Dynamo, set_credentials

from credx.broker.stores import Check, ConflictError, Delete, Key, Put, StoreUnavailableError
from credx.broker.stores import dynamodb_calls as calls
from credx.broker.stores.dynamodb import DynamoStore, Table, create_table
from credx.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from credx.broker.stores import Write

NOW = 1_800_000_000.0
A, B = Key("user#a", "profile"), Key("user#a", "factor#1")
PUT = Put(key=A, value={"v": "s3cret"}, expected=0)
TWO: list[Write] = [PUT, Put(key=B, value={}, expected=0)]


@pytest.fixture(scope="module")
def dynamo() -> Iterator[Dynamo]:
    with Dynamo() as server:
        yield server


@pytest.fixture
def store(dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch) -> Iterator[DynamoStore]:
    set_credentials(monkeypatch)
    monkeypatch.setattr(calls, "WAITS", (0.001, 0.001, 0.001))
    with closing(dynamo.new()) as opened:
        dynamo.gate.asked.clear()
        yield opened
        dynamo.gate.trouble = dynamo.gate.after = lambda *_: None


def times(count: int, *answer: Any) -> Callable[..., Any]:
    left = iter(range(count))
    return lambda *_: answer if next(left, None) is not None else None


# -- the client


def test_variables_and_files_bend_nothing(
    dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_credentials(monkeypatch)
    (tmp_path / "config").write_text(
        "[profile evil]\nregion = us-east-1\nendpoint_url = http://127.0.0.1:9\n"
    )
    for name, value in {
        "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "config"),
        "AWS_PROFILE": "evil", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:9", "AWS_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "99",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    made = calls.client(Table("credx", "eu-central-1"))
    assert made.meta.endpoint_url == "https://dynamodb.eu-central-1.amazonaws.com"
    made.close()
    dynamo.new().close()


def test_a_profile_gives_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("[default]\naws_access_key_id = AKIA\naws_secret_access_key = x\n")
    (tmp_path / "boto").write_text("[Credentials]\naws_access_key_id = AKIA\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "c"))
    monkeypatch.setenv("BOTO_CONFIG", str(tmp_path / "boto"))
    for name in KEYS:
        monkeypatch.delenv(name.upper(), raising=False)
    with pytest.raises(ConfigError, match="no AWS credentials"):
        DynamoStore(Table("credx", REGION, "http://127.0.0.1:9"))


def test_a_container_role_does(dynamo: Dynamo, monkeypatch: pytest.MonkeyPatch) -> None:
    class Role(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            answer = {
                "AccessKeyId": "ASIA",
                "SecretAccessKey": "x",
                "Token": "t",
                "Expiration": "2099-01-01T00:00:00Z",
            }
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Role) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        monkeypatch.setenv(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.server_port}/role"
        )
        for name in KEYS:
            monkeypatch.delenv(name.upper(), raising=False)
        with closing(dynamo.new()) as store:
            store.apply([PUT], now=NOW)
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "table",
    [
        Table("credx", REGION, "http://dynamodb.example.com"),
        Table("credx", "eu-central-1.evil.example.com/"),
        Table("a b", REGION),
        Table("", REGION),
    ],
)
def test_what_cannot_be_a_table(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    set_credentials(monkeypatch)
    with pytest.raises(ConfigError):
        DynamoStore(table)


# -- the table


def test_a_table_as_it_should_be(dynamo: Dynamo, store: DynamoStore) -> None:
    name = store._calls.table
    table = dynamo.client.describe_table(TableName=name)["Table"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table["DeletionProtectionEnabled"]
    ttl = dynamo.client.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    assert ttl == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
    backups = dynamo.client.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_the_documented_table_is_the_same() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "broker.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shown = yaml.safe_load(block)["Resources"]["Table"]["Properties"]
    told: dict[str, Any] = {}
    create_table(Mock(**{f"{name}.side_effect": lambda **said: told.update(said) for name in (
        "create_table", "update_time_to_live", "update_continuous_backups"
    )}), "credx")  # fmt: skip
    assert shown == told


def test_there_must_be_a_table(dynamo: Dynamo, store: DynamoStore) -> None:
    with pytest.raises(ConfigError, match="no table nobody in eu-central-1") as raised:
        DynamoStore(dynamo.table("nobody"))
    assert raised.value.hint


@pytest.mark.parametrize("keys", [("partition",), ("pk", "sort"), ("sort", "partition")])
def test_another_programs_table(dynamo: Dynamo, store: DynamoStore, keys: tuple[str, ...]) -> None:
    name = "other-" + "-".join(keys)
    dynamo.client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": k, "KeyType": t} for k, t in zip(keys, ("HASH", "RANGE"), strict=False)],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
    )
    with pytest.raises(ConfigError, match="other keys"):
        DynamoStore(dynamo.table(name))


@pytest.mark.parametrize(
    "bent",
    [
        {"value": {"S": "{"}},
        {"value": {"S": "[]"}},
        {"value": {"N": "1"}},
        {"version": {"S": "x"}},
        {"version": None},
    ],
)
def test_an_item_that_is_not_ours(dynamo: Dynamo, store: DynamoStore, bent: dict[str, Any]) -> None:
    store.apply([PUT], now=NOW)
    key = {"partition": {"S": A.partition}, "sort": {"S": A.sort}}
    item = dynamo.client.get_item(TableName=store._calls.table, Key=key)["Item"] | bent
    dynamo.client.put_item(TableName=store._calls.table, Item={k: v for k, v in item.items() if v})
    for read in (lambda: store.get(A, now=NOW), lambda: store.query("user#a", now=NOW)):
        with pytest.raises(StoreUnavailableError):
            read()


def test_one_put_is_no_transaction_and_everything_else_is(dynamo: Dynamo, store: DynamoStore) -> None:
    for writes in ([PUT], [Delete(key=A, expected=None)], [Check(key=A, expected=0)], TWO):
        store.apply(writes, now=NOW)
    assert dynamo.gate.asked == ["PutItem", *["TransactWriteItems"] * 3]


def test_every_read_is_consistent(dynamo: Dynamo, store: DynamoStore) -> None:
    """moto always is; DynamoDB is only when asked (an old copy of a profile is not yet disabled)."""
    bodies: list[dict[str, Any]] = []
    dynamo.gate.trouble = lambda _, body: bodies.append(body)
    store.get(A, now=NOW)
    store.query("user#a", now=NOW)
    assert [body["ConsistentRead"] for body in bodies] == [True, True]


# -- lost answers, contention


@pytest.mark.parametrize("lost", [(500, "InternalServerError"), (503, "ServiceUnavailable")])
@pytest.mark.parametrize(
    "writes", [[PUT], TWO, [Delete(key=A, expected=None), Put(key=B, value={}, expected=0)]]
)
def test_a_lost_answer_is_asked_for_again(
    dynamo: Dynamo, store: DynamoStore, writes: list[Write], lost: tuple[int, str]
) -> None:
    """The write was made: a second try must neither make it twice nor meet its own condition."""
    dynamo.gate.after = times(2, *lost)
    store.apply(writes, now=NOW)
    assert len(dynamo.gate.asked) == 3
    versions = [item.version for item in store.query("user#a", now=NOW)]
    with pytest.raises(ConflictError):
        store.apply(writes, now=NOW)
    assert [item.version for item in store.query("user#a", now=NOW)] == versions


def test_somebody_elses_item_is_not_taken_for_ours(dynamo: Dynamo, store: DynamoStore) -> None:
    store.apply([PUT], now=NOW)
    dynamo.gate.trouble = times(1, 500, "InternalServerError")
    with pytest.raises(ConflictError):
        store.apply([PUT], now=NOW)


def test_two_transactions_at_once_are_tried_again(dynamo: Dynamo, store: DynamoStore) -> None:
    dynamo.gate.trouble = times(2, 400, "TransactionCanceledException None TransactionConflict")
    store.apply(TWO, now=NOW)
    assert len(dynamo.gate.asked) == 3


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        ("TransactionConflictException", 4),
        ("TransactionCanceledException TransactionConflict None", 4),
        ("TransactionCanceledException TransactionConflict ThrottlingError", 4),
        ("TransactionCanceledException ConditionalCheckFailed TransactionConflict", 1),
        ("TransactionCanceledException ConditionalCheckFailed ValidationError", 1),
    ],
)
def test_contention_is_a_conflict(dynamo: Dynamo, store: DynamoStore, code: str, asked: int) -> None:
    dynamo.gate.trouble = lambda *_: (400, code)
    with pytest.raises(ConflictError):
        store.apply(TWO, now=NOW)
    assert len(dynamo.gate.asked) == asked


def test_contention_after_a_lost_answer_is_no_conflict(dynamo: Dynamo, store: DynamoStore) -> None:
    """A conflict would say that nothing was written."""
    answers = iter([(500, "InternalServerError"), *[(400, "TransactionConflictException")] * 3])
    dynamo.gate.trouble = lambda *_: next(answers, None)
    with pytest.raises(StoreUnavailableError):
        store.apply(TWO, now=NOW)


# -- faults, and that it goes on by itself


@pytest.mark.parametrize(
    ("status", "code", "asked"),
    [
        (400, "ProvisionedThroughputExceededException", 4),
        (400, "ThrottlingException", 4),
        (400, "RequestLimitExceeded", 4),
        (400, "TransactionInProgressException", 4),
        (400, "TransactionCanceledException ThrottlingError None", 4),
        (400, "TransactionCanceledException ItemCollectionSizeLimitExceeded", 1),
        (400, "TransactionCanceledException", 1),
        (400, "AccessDeniedException", 1),
        (400, "ExpiredTokenException", 1),
        (400, "ResourceNotFoundException", 1),
        (400, "IdempotentParameterMismatchException", 1),
        (500, "InternalServerError", 4),
        (503, "ServiceUnavailable", 4),
    ],
)
def test_no_answer_is_unavailable_and_passes(
    dynamo: Dynamo, store: DynamoStore, status: int, code: str, asked: int
) -> None:
    reads: list[Callable[[], object]] = [
        lambda: store.get(A, now=NOW), lambda: store.query("user#a", now=NOW), lambda: store.apply(TWO, now=NOW)
    ]  # fmt: skip
    for call in reads:
        dynamo.gate.trouble = lambda *_: (status, code)
        dynamo.gate.asked.clear()
        with pytest.raises(StoreUnavailableError) as raised:
            call()
        assert len(dynamo.gate.asked) == asked
        assert "s3cret" not in str(raised.value)
        assert raised.value.__cause__ is raised.value.__context__ is None  # botocore's error holds the answer
        dynamo.gate.trouble = lambda *_: None
        call()


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b"<html>"])
def test_an_answer_that_is_none(store: DynamoStore, dynamo: Dynamo, body: bytes) -> None:
    """Of a proxy in between, say: it must be neither «no such item» nor «written»."""
    answer = dynamo.gate._answer
    dynamo.gate._answer = lambda *_: ("200 OK", [("Content-Type", "application/x-amz-json-1.0")], body)
    try:
        with pytest.raises(StoreUnavailableError):
            store.query("user#a", now=NOW)
        with pytest.raises(StoreUnavailableError):
            store.get(A, now=NOW)
        with pytest.raises(StoreUnavailableError):
            store.apply([PUT], now=NOW)
        with pytest.raises(StoreUnavailableError):
            store.apply(TWO, now=NOW)
        with pytest.raises(StoreUnavailableError):
            DynamoStore(dynamo.table(store._calls.table))
    finally:
        dynamo.gate._answer = answer


def test_every_call_ends_within_six_seconds() -> None:
    assert calls.BUDGET + calls.CONNECT_TIMEOUT + calls.READ_TIMEOUT <= 6


def test_silence_is_unavailable_in_bounded_time(
    dynamo: Dynamo, store: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "READ_TIMEOUT", 0.3)
    monkeypatch.setattr(calls, "BUDGET", 0.5)
    with closing(DynamoStore(dynamo.table(store._calls.table))) as impatient:
        dynamo.gate.trouble = lambda *_: time.sleep(0.6)
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="ReadTimeout"):
            impatient.apply(TWO, now=NOW)
        assert time.monotonic() - started < 2
        dynamo.gate.trouble = lambda *_: None
        assert impatient.get(A, now=NOW) is None or impatient.get(B, now=NOW)  # whole, whenever it came in


def test_a_slow_table_with_many_pages_ends_too(
    dynamo: Dynamo, store: DynamoStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = [Put(key=Key("p", f"{n:03d}"), value={}, expected=0, expires_at=int(NOW)) for n in range(60)]
    store.apply(dead, now=NOW - 1)
    monkeypatch.setattr(calls, "BUDGET", 0.3)
    dynamo.gate.trouble = lambda *_: time.sleep(0.1)
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        store.query("p", now=NOW, limit=1)  # 60 pages with nothing alive
    assert time.monotonic() - started < 2


def test_nobody_there_is_unavailable_and_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    set_credentials(monkeypatch)
    with Dynamo() as dynamo:
        store = dynamo.new()
        port = dynamo._server.server_port
    with pytest.raises(StoreUnavailableError, match="EndpointConnectionError"):
        store.get(A, now=NOW)
    with Dynamo(port):
        assert store.get(A, now=NOW) is None
    store.close()
