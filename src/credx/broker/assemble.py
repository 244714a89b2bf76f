"""A broker out of a policy file and a data directory: local keys, a store in SQLite or in a table of DynamoDB."""

from __future__ import annotations

import functools
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from credx import sts
from credx.broker.audit import Audit, new_writer_id
from credx.broker.policy.source import PolicySource
from credx.broker.seal import Sealer
from credx.broker.service import Broker
from credx.broker.signer import LocalSigner
from credx.broker.stores.dynamodb import DynamoStore
from credx.broker.stores.sqlite import SqliteStore
from credx.errors import ConfigError
from credx.http import Http
from credx.jose import RemoteKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from credx.broker.stores import Store
    from credx.broker.stores.dynamodb import Table

SIGNING_KEY, SEAL_KEY, DATABASE = "signing-key.pem", "seal-key", "broker.db"  # in the data directory


class Office(NamedTuple):
    """What an administrator's command works on."""

    store: Store
    audit: Audit


def open_store(home: Path, table: Table | None = None, *, ca_file: str | None = None) -> Store:
    """The table, or without one the database in the broker's directory, which is made on first use.

    Raises:
        ConfigError: it is not as it must be, or there are no credentials for it.
        StoreUnavailableError: it does not answer.
    """
    return SqliteStore(home / DATABASE) if table is None else DynamoStore(table, ca_file=ca_file)


def open_office(
    data_dir: str | Path, *, table: Table | None = None, now: Callable[[], float] = time.time
) -> Office:
    """The store and its audit trail, without a broker around them.

    Raises:
        ConfigError: a file in the directory is not as it must be.
        StoreUnavailableError: the store cannot be opened.
    """
    home = _home(data_dir)
    if table is not None and not (home / SIGNING_KEY).exists():
        # a new key here would sign audit records that nobody can verify
        raise ConfigError(
            f"{home} has no signing key, and the table is in use with another",
            hint="give --data the directory that `credx broker serve` was given, or a copy of its keys",
        )
    store = open_store(home, table)
    signer = LocalSigner.open(home / SIGNING_KEY)
    return Office(store, Audit(store, new_writer_id(now(), secrets.token_bytes), signer=signer))


def _home(data_dir: str | Path) -> Path:
    home = Path(data_dir)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


def open_broker(
    policy_path: str | Path,
    data_dir: str | Path,
    *,
    table: Table | None = None,
    sts_endpoint: str | None = None,
    ca_file: str | None = None,
    now: Callable[[], float] = time.time,
    copy: Callable[[Mapping[str, Any]], None] | None = None,
) -> Broker:
    """Open what a broker needs; on the first start keys and database are made.

    The policy follows its file, see ``PolicySource``. ``data_dir`` is this broker's alone, for its owner
    only; brokers on one ``table`` have the same keys in theirs. ``sts_endpoint`` and ``ca_file`` say where STS is and who vouches for servers, instead of the
    defaults. ``copy`` receives every audit record once it is durable.

    Raises:
        ConfigError: the policy or a file in the directory is not as it must be.
        StoreUnavailableError: the store cannot be opened.
    """
    policy = PolicySource(policy_path, now=now)
    home = _home(data_dir)
    signer = LocalSigner.open(home / SIGNING_KEY)
    store = open_store(home, table, ca_file=ca_file)
    exchange = functools.partial(sts.assume_role_with_web_identity, endpoint=sts_endpoint, ca_file=ca_file)
    return Broker(
        policy=policy,
        store=store,
        audit=Audit(store, new_writer_id(now(), secrets.token_bytes), signer=signer, copy=copy),
        signer=signer,
        sealer=Sealer.open(home / SEAL_KEY),
        keys=RemoteKeys(Http(ca_file=ca_file).fetch),
        sts=exchange,
        now=now,
        rng=secrets.token_bytes,
    )
