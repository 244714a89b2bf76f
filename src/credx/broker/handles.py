"""Random handles (auth_session, factor_session, enrolment, invitation) and what the store may know of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from credx.model import Secret
from credx.strict import to_base64url

Rng = Callable[[int], bytes]  # as secrets.token_bytes: n random bytes

HANDLE_BYTES = 32  # 256 bit: guessing is hopeless, so looking one up by its hash needs no constant time


def new_handle(rng: Rng) -> Secret:
    """43 characters of ``protocol.HANDLE``."""
    return Secret(to_base64url(rng(HANDLE_BYTES)))


def handle_hash(handle: Secret) -> str:
    """Hex SHA-256: the only form in which a handle is stored."""
    return hashlib.sha256(handle.reveal().encode()).hexdigest()
