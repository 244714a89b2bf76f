"""Finished credentials in the vault, one entry per different ask."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from credx.model import AwsCredentials, Secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from credx.credentials.store import AnyVault, Entries
    from credx.protocol import Ask

PREFIX: Final = "aws:"
RENEW_BELOW: Final = 960  # seconds left; botocore asks again on each use below 15 minutes


@dataclass(frozen=True)
class Kept:
    """``renew_at``: from then on new credentials are better, if they cost nobody a touch."""

    creds: AwsCredentials
    renew_at: float


def cache_name(broker: str, ask: Ask) -> str:
    """One name per broker and ask. The reason is left out: it changes the record, not the credentials.

    Everything else is in: a narrower ask must never be answered with what a wider one got (saml2aws #618
    gave out another account's credentials).
    """
    parts = [
        broker, ask.role, sorted(ask.resources), sorted(ask.scopes), ask.operation, ask.duration,
    ]  # fmt: skip
    return PREFIX + json.dumps(parts, separators=(",", ":"))


def save(
    vault: AnyVault,
    name: str,
    creds: AwsCredentials,
    *,
    now: float,
    still: Callable[[Entries], bool] = lambda _: True,
) -> None:
    """Keep ``creds`` under ``name`` and drop what has expired; nothing is kept unless ``still``."""
    value: dict[str, Any] = {
        # never in the first half of a short session: it would be renewed on every call
        "renew_at": creds.expiration - min(RENEW_BELOW, (creds.expiration - now) / 2),
        "access_key_id": creds.access_key_id,
        "secret_access_key": creds.secret_access_key.reveal(),
        "session_token": creds.session_token.reveal(),
        "expiration": creds.expiration,
        "account_id": creds.account_id,
        "region": creds.region,
        "role_arn": creds.role_arn,
    }

    def change(entries: Entries) -> None:
        for other in [n for n, v in entries.items() if n.startswith(PREFIX) and v["expiration"] <= now]:
            del entries[other]
        if still(entries):
            entries[name] = value

    vault.update(change)


def load(vault: AnyVault, name: str) -> Kept | None:
    value = vault.get(name)
    if value is None:
        return None
    creds = AwsCredentials(
        access_key_id=value["access_key_id"],
        secret_access_key=Secret(value["secret_access_key"]),
        session_token=Secret(value["session_token"]),
        expiration=value["expiration"],
        account_id=value["account_id"],
        region=value["region"],
        role_arn=value["role_arn"],
    )
    return Kept(creds, value["renew_at"])


def usable(creds: AwsCredentials, now: float, min_left: float) -> bool:
    """Whether at least ``min_left`` seconds are left."""
    return creds.expiration - now >= min_left


def listing(vault: AnyVault, broker: str, *, now: float) -> list[dict[str, Any]]:
    """What is cached for this broker and has not expired, without the credentials themselves."""
    found = []
    for name in vault.names():
        if not name.startswith(PREFIX) or (kept := load(vault, name)) is None:
            continue
        creds = kept.creds
        kept_broker, role, resources, scopes, operation, _duration = json.loads(name[len(PREFIX) :])
        if kept_broker == broker and usable(creds, now, 1):
            found.append(
                {
                    "role": role,
                    "role_arn": creds.role_arn,
                    "operation": operation,
                    "scopes": scopes,
                    "resources": resources,
                    "expires_in": int(creds.expiration - now),
                }
            )
    return found
