"""The store in one DynamoDB table: for several brokers, on several hosts or in AWS Lambda.

Partition key ``partition`` and sort key ``sort`` (text), ``value`` (JSON text), ``version`` (a random number of 62
bits) and ``expires_at`` (seconds since 1970), which is the table's TTL attribute. TTL only cleans up, within days:
every read and every condition looks at the time itself.

A partition of DynamoDB takes 1000 write units a second and 3000 of reads; a transaction costs twice the size of its
items in KB (DynamoDB Developer Guide, «Designing partition keys»). None comes near that:

- ``user#...`` and ``credential#...`` are one person's, who touches a key every few seconds at the most. What that
  person leaves behind is bounded: twenty sessions in five minutes, expired items until TTL takes them.
- ``audit#<writer>`` is the busiest. It is one process's, and each of its records follows the one before: with a
  round trip of 10 ms these are 100 a second, of some 8 units each. More brokers are more partitions.
- Lists that administrators read (who wrote, who is invited, who is there) get an item per start, per invitation and
  per enrolment. Their readers ask for them in parts.

Nothing scans the table: there is ``get``, ``query`` of one partition, and writing by key.
"""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Any, Final

from credx.broker.stores import Delete, Item, Key, Put, StoreUnavailableError
from credx.broker.stores.dynamodb_calls import Calls, Table, Trouble, deadline
from credx.broker.stores.rules import check_key, check_prefix, check_writes, decode, encode, expired
from credx.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from credx.broker.stores import Write

__all__ = ["DynamoStore", "Table", "create_table"]

VERSION_BITS: Final = 62  # random: a version never comes back
_HINT: Final = "docs/broker.md says how a table is made"

# What CreateTable is told and DescribeTable has to say.
KEYS: Final = {
    "KeySchema": [
        {"AttributeName": "partition", "KeyType": "HASH"},
        {"AttributeName": "sort", "KeyType": "RANGE"},
    ],
    "AttributeDefinitions": [
        {"AttributeName": "partition", "AttributeType": "S"},
        {"AttributeName": "sort", "AttributeType": "S"},
    ],
}

# what Store expects of a write, as conditions; expires_at is whole, so now may be cut
_LIVE: Final = "(attribute_not_exists(#expires) OR #expires > :now)"
_NEW: Final = "attribute_not_exists(#partition) OR #expires <= :now"
_SAME: Final = f"#version = :version AND {_LIVE}"


class DynamoStore:
    """``Store`` in a table that ``create_table`` or an administrator has made.

    ``ca_file``: PEM bundle beside the system's trust store.

    Raises:
        ConfigError: there is no such table, it has other keys, or there are no credentials for it.
        StoreUnavailableError: DynamoDB does not answer.
    """

    def __init__(self, table: Table, *, ca_file: str | None = None) -> None:
        self._calls = Calls(table, ca_file=ca_file)
        try:
            self._check(table)
        except BaseException:
            self.close()
            raise

    def get(self, key: Key, *, now: float) -> Item | None:
        check_key(key)
        found = self._calls.ask("get_item", {"Key": _key(key), "ConsistentRead": True}).get("Item")
        item = _item(found) if found else None
        return None if item is None or expired(item.expires_at, now) else item

    def query(self, partition: str, prefix: str = "", *, now: float, limit: int = 1000) -> Sequence[Item]:
        check_prefix(partition, prefix)
        names = {"#partition": "partition", "#expires": "expires_at"}
        values = {":partition": {"S": partition}, ":now": _number(math.floor(now))}
        condition = "#partition = :partition"
        if prefix:  # DynamoDB takes no empty one
            names["#sort"], values[":prefix"] = "sort", {"S": prefix}
            condition += " AND begins_with(#sort, :prefix)"
        asked: dict[str, Any] = {
            "ConsistentRead": True,
            "KeyConditionExpression": condition,
            "FilterExpression": _LIVE,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            "Limit": limit,  # of what it looks at, so an item that has expired makes a page shorter
        }
        found: list[Item] = []
        ends = deadline()
        while len(found) < limit:
            page = self._calls.ask("query", asked, ends=ends)
            found += map(_item, page.get("Items", ()))
            if not page.get("LastEvaluatedKey"):
                break
            asked["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return found[:limit]

    def apply(self, writes: Sequence[Write], *, now: float) -> None:
        check_writes(writes)
        actions = [_action(write, now) for write in writes]
        if len(writes) == 1 and isinstance(writes[0], Put):  # half the price of a transaction
            self._calls.ask("put_item", actions[0] | {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"})
            return
        # A Delete that stands alone as well: without the token a second try cannot tell that the first was made.
        items = [
            {_kind(write): action | {"TableName": self._calls.table}}
            for write, action in zip(writes, actions, strict=True)
        ]
        self._calls.ask(
            "transact_write_items", {"TransactItems": items, "ClientRequestToken": secrets.token_hex(16)}
        )

    def close(self) -> None:
        self._calls.close()

    def _check(self, table: Table) -> None:
        answer = self._calls.once("describe_table", {}, shows="Table")
        if isinstance(answer, Trouble):
            if answer.code == "ResourceNotFoundException":
                raise ConfigError(f"there is no table {table.name} in {table.region}", hint=_HINT)
            raise answer.error
        description = answer["Table"]
        for name, wanted in KEYS.items():
            if sorted(map(str, description.get(name, ()))) != sorted(map(str, wanted)):
                raise ConfigError(f"the table {table.name} has other keys than credx's", hint=_HINT)


def create_table(client: Any, name: str) -> None:
    """Make the table as it should be: paid by request, TTL, point-in-time recovery, deletion protection.

    ``client``: a botocore client of DynamoDB that may do so; the broker itself needs no such right.
    """
    client.create_table(TableName=name, BillingMode="PAY_PER_REQUEST", DeletionProtectionEnabled=True, **KEYS)
    client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 2, "MaxAttempts": 60})
    client.update_time_to_live(
        TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"}
    )
    client.update_continuous_backups(
        TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
    )


def _key(key: Key) -> dict[str, Any]:
    return {"partition": {"S": key.partition}, "sort": {"S": key.sort}}


def _number(number: int) -> dict[str, str]:
    return {"N": str(number)}


def _kind(write: Write) -> str:
    return "Put" if isinstance(write, Put) else "Delete" if isinstance(write, Delete) else "ConditionCheck"


def _action(write: Write, now: float) -> dict[str, Any]:
    """One write as PutItem and TransactWriteItems take it, but for the name of the table."""
    if isinstance(write, Put):
        item = _key(write.key) | {
            "value": {"S": encode(write.value)},
            "version": _number(secrets.randbelow(2**VERSION_BITS - 1) + 1),
        }
        if write.expires_at is not None:
            item["expires_at"] = _number(write.expires_at)
        return {"Item": item} | _expectation(write.expected, now)
    return {"Key": _key(write.key)} | _expectation(write.expected, now)


def _expectation(expected: int | None, now: float) -> dict[str, Any]:
    if expected is None:
        return {}
    names, values = {"#expires": "expires_at"}, {":now": _number(math.floor(now))}
    if expected == 0:
        names["#partition"] = "partition"
    else:
        names["#version"], values[":version"] = "version", _number(expected)
    return {
        "ConditionExpression": _SAME if expected else _NEW,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


def _item(raw: Mapping[str, Any]) -> Item:
    try:
        return Item(
            key=Key(raw["partition"]["S"], raw["sort"]["S"]),
            value=decode(raw["value"]["S"]),
            version=int(raw["version"]["N"]),
            expires_at=int(raw["expires_at"]["N"]) if "expires_at" in raw else None,
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise StoreUnavailableError("the table holds an item that is not credx's") from exc
