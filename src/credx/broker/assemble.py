"""A broker out of a policy file and a data directory: SQLite, a local signing key, keys fetched over HTTPS."""

from __future__ import annotations

import functools
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from credx import sts
from credx.broker.audit import Audit, new_writer_id
from credx.broker.policy_source import PolicySource
from credx.broker.seal import Sealer
from credx.broker.service import Broker
from credx.broker.signer import LocalSigner
from credx.broker.stores.sqlite import SqliteStore
from credx.http import Http
from credx.jose import RemoteKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from credx.broker.stores import Store


class Office(NamedTuple):
    """What an administrator's command works on."""

    store: Store
    audit: Audit


def open_office(data_dir: str | Path, *, now: Callable[[], float] = time.time) -> Office:
    """The store and its audit trail, without a broker around them.

    Raises:
        ConfigError: a file in the directory is not as it must be.
        StoreUnavailableError: the database cannot be opened.
    """
    home = _home(data_dir)
    store = SqliteStore(home / "broker.db")
    signer = LocalSigner.open(home / "signing-key.pem")
    return Office(store, Audit(store, new_writer_id(now(), secrets.token_bytes), signer=signer))


def _home(data_dir: str | Path) -> Path:
    home = Path(data_dir)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


def open_broker(
    policy_path: str | Path,
    data_dir: str | Path,
    *,
    sts_endpoint: str | None = None,
    ca_file: str | None = None,
    now: Callable[[], float] = time.time,
    copy: Callable[[Mapping[str, Any]], None] | None = None,
) -> Broker:
    """Open what a broker needs; on the first start keys and database are made.

    The policy follows its file, see ``PolicySource``. ``data_dir`` is this broker's alone, for its owner
    only. ``sts_endpoint`` and ``ca_file`` say where STS is and who vouches for servers, instead of the
    defaults. ``copy`` receives every audit record once it is durable.

    Raises:
        ConfigError: the policy or a file in the directory is not as it must be.
        StoreUnavailableError: the database cannot be opened.
    """
    policy = PolicySource(policy_path, now=now)
    home = _home(data_dir)
    signer = LocalSigner.open(home / "signing-key.pem")
    store = SqliteStore(home / "broker.db")
    exchange = functools.partial(sts.assume_role_with_web_identity, endpoint=sts_endpoint, ca_file=ca_file)
    return Broker(
        policy=policy,
        store=store,
        audit=Audit(store, new_writer_id(now(), secrets.token_bytes), signer=signer, copy=copy),
        signer=signer,
        sealer=Sealer.open(home / "seal-key"),
        keys=RemoteKeys(Http(ca_file=ca_file).fetch),
        sts=exchange,
        now=now,
        rng=secrets.token_bytes,
    )
