"""Calls to one DynamoDB table: a few tries within a bounded time, and what AWS answers in credx's own errors."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credx import __version__
from credx.aws_client import detached_session, transport
from credx.aws_limits import REGION
from credx.broker.stores import ConflictError, StoreUnavailableError
from credx.errors import ConfigError
from credx.urls import permitted_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from botocore.session import Session

CONNECT_TIMEOUT: Final = 1.0  # seconds; DynamoDB answers in 10 ms
READ_TIMEOUT: Final = 2.0
WAITS: Final = (0.05, 0.1, 0.2)  # seconds before another try, each shortened at random
BUDGET: Final = 2.5  # seconds; no try starts later than that after the first, so every call ends within 6

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}")  # CreateTable, TableName

# DynamoDB API: Common Errors, and the codes of CancellationReasons in TransactWriteItems
_REFUSED: Final = frozenset({"ConditionalCheckFailedException", "ConditionalCheckFailed"})
_CONTENDED: Final = frozenset({"TransactionConflictException", "TransactionConflict"})
_LATER: Final = frozenset({
    "ThrottlingException", "ThrottlingError", "ProvisionedThroughputExceededException",
    "ProvisionedThroughputExceeded", "RequestLimitExceeded", "TransactionInProgressException",
})  # fmt: skip


class Table(NamedTuple):
    """Where a table is. ``endpoint`` instead of the region's own: https, or http on a loopback host."""

    name: str
    region: str
    endpoint: str | None = None


class Trouble(NamedTuple):
    """Instead of an answer. ``error`` is raised outside of handlers: botocore's own can hold the request.

    Attributes:
        again: another try may help. lost: whether it was written is not known.
        code: as AWS gave it. stored: the version of the item that did not meet the condition of a PutItem.
    """

    error: Exception
    again: bool = False
    lost: bool = False
    code: str = ""
    stored: object = None


def client(table: Table, *, ca_file: str | None = None) -> Any:
    """A botocore client with the credentials of the environment, the container or the instance, and no others.

    Raises:
        ConfigError: a name, region or endpoint that cannot be, or there are no credentials.
    """
    from botocore.config import Config  # noqa: PLC0415 -- not for a broker on SQLite

    for what, name, good in (("table", table.name, _NAME), ("region", table.region, REGION)):
        if not good.fullmatch(name):
            raise ConfigError(
                f"{name[:80]!r} is no name of a {what}", hint="--table NAME --region eu-central-1"
            )
    if table.endpoint is not None and not permitted_url(table.endpoint):
        raise ConfigError("the endpoint of DynamoDB must be https, or http on a loopback host")
    session = _session()
    made: Any = session.create_client(
        "dynamodb",
        region_name=table.region,
        endpoint_url=table.endpoint,
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 1},  # ``Calls`` tries again, in bounded time
            ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]  # stubs lag
            account_id_endpoint_mode="disabled",  # one host name that a firewall can know
            use_fips_endpoint=False,
            use_dualstack_endpoint=False,
            user_agent_extra=f"credx/{__version__}",
        ),
    )
    made._endpoint.http_session = transport(  # noqa: SLF001 -- no other seam
        made.meta.endpoint_url, ca_file=ca_file, timeouts=(CONNECT_TIMEOUT, READ_TIMEOUT)
    )
    return made


def _session() -> Session:
    from botocore.credentials import (  # noqa: PLC0415 -- not for a broker on SQLite
        ContainerProvider,
        CredentialResolver,
        EnvProvider,
        InstanceMetadataFetcher,
        InstanceMetadataProvider,
    )
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    # IMDSv2 alone, as far as a client has a say
    instance = InstanceMetadataFetcher(timeout=1, num_attempts=2, config={"ec2_metadata_v1_disabled": True})
    resolver = CredentialResolver([EnvProvider(), ContainerProvider(), InstanceMetadataProvider(instance)])
    session = detached_session()
    session.register_component("credential_provider", resolver)
    try:
        found = session.get_credentials() is not None
    except BotoCoreError:
        found = False
    if not found:
        raise ConfigError(
            "the environment, the container and the instance have no AWS credentials for the table",
            hint="give the broker's host or task an IAM role",
        )
    return session


class Calls:
    """``ask`` for one table; an answer or one of the errors of ``Store``."""

    def __init__(self, table: Table, *, ca_file: str | None = None) -> None:
        self.table = table.name
        self._client = client(table, ca_file=ca_file)
        self._open = True

    def close(self) -> None:
        self._open = False
        self._client.close()

    def ask(self, operation: str, asked: Mapping[str, Any], *, ends: float | None = None) -> dict[str, Any]:
        """One answer. ``asked`` serves every try, so that a transaction keeps its ClientRequestToken.

        ``ends``: of the monotonic clock; no try starts later.

        Raises:
            ConflictError: a condition did not hold, or other transactions kept coming in between.
            StoreUnavailableError: no answer. If it was a write, whether it was made is not known.
        """
        ends, lost, waits = ends or deadline(), False, iter(WAITS)
        if time.monotonic() > ends:
            raise StoreUnavailableError("dynamodb: too slow")
        while True:
            answer = self.once(
                operation, {**asked, "ReturnConsumedCapacity": "TOTAL"}, shows="ConsumedCapacity"
            )
            if not isinstance(answer, Trouble):
                return answer
            if lost and answer.stored is not None and answer.stored == asked["Item"]["version"]:
                return {}  # our own item, of the try whose answer was lost: versions are random
            lost = lost or answer.lost
            wait = next(waits, None)
            if wait is None or not answer.again or time.monotonic() + wait > ends:
                break
            time.sleep(wait * (0.5 + secrets.randbelow(1000) / 2000))
        contended = answer.again and isinstance(answer.error, ConflictError)
        if lost and contended:  # a conflict says that nothing was written, and that is not known
            raise StoreUnavailableError("dynamodb: an answer was lost")
        raise answer.error

    def once(self, operation: str, asked: Mapping[str, Any], *, shows: str) -> dict[str, Any] | Trouble:
        """``shows`` is in every answer that DynamoDB makes. Without it, botocore would read the page of some proxy
        as «no such item» or «written».
        """
        from botocore.exceptions import ClientError  # noqa: PLC0415 -- not for a broker on SQLite

        if not self._open:
            return Trouble(StoreUnavailableError("the store is closed"))
        try:
            # a transaction names its table in every item
            named = {} if operation == "transact_write_items" else {"TableName": self.table}
            answer: dict[str, Any] = getattr(self._client, operation)(**asked, **named)
        except ClientError as exc:
            return _trouble(exc.response)
        except Exception as exc:  # noqa: BLE001 -- timeouts, TLS; and parsers raise what the answer makes them raise
            return Trouble(_unavailable(type(exc).__name__), again=True, lost=True)
        if shows not in answer:
            return Trouble(_unavailable("NoAnswer"), again=True, lost=True)
        return answer


def deadline() -> float:
    """For one call of ``Store``, however many pages it takes."""
    return time.monotonic() + BUDGET


def _trouble(response: Mapping[str, Any]) -> Trouble:
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    reasons = {str(reason.get("Code")) for reason in response.get("CancellationReasons", ())}
    codes = {code} if code != "TransactionCanceledException" else reasons - {"None"}
    if codes & _REFUSED:
        return Trouble(ConflictError(), code=code, stored=response.get("Item", {}).get("version"))
    if codes and codes <= _CONTENDED | _LATER:
        contended = bool(codes & _CONTENDED)
        return Trouble(ConflictError() if contended else _unavailable(*codes), again=True, code=code)
    return Trouble(_unavailable(*codes), again=status >= 500, lost=status >= 500, code=code)


def _unavailable(*codes: str) -> StoreUnavailableError:
    """AWS's messages are left out: they may quote what was sent."""
    named = sorted(code if re.fullmatch(r"[A-Za-z0-9]{1,64}", code) else "unknown error" for code in codes)
    return StoreUnavailableError(f"dynamodb: {', '.join(named) or 'unknown error'}")
