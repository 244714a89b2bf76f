"""Step 7: what leaves the broker: the token for a client that calls STS, or what STS gave the broker itself."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from credx.broker.mint import TOKEN_LIFE
from credx.broker.policy.rules import BROKER
from credx.broker.policy.session_policy import with_expiry
from credx.errors import AwsRefusedError, Refusal, UnavailableError
from credx.model import Secret
from credx.protocol import AWS_CREDENTIALS_TYPE, AWS_REFUSED, JWT_TYPE, Issued
from credx.strict import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credx.broker.admission import Visit
    from credx.broker.second_factor import Proven
    from credx.model import AwsCredentials, Grant

# Of this broker at once: half of the front door's threads (``wsgi.THREADS``). While STS answers such a call it
# fetches this broker's key set, so calls that held every thread would make each other fail.
STS_CALLS: Final = 4
STS_CALLS_PERSON: Final = 2  # of them: one person's parallel jobs must not keep everybody else out

_AWS_CODE = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Sts(Protocol):
    """``credx.sts.assume_role_with_web_identity`` with its endpoint chosen beforehand."""

    def __call__(
        self,
        *,
        token: Secret,
        role_arn: str,
        session_name: str,
        duration: int,
        policy: str | None,
        region: str,
    ) -> AwsCredentials: ...


class StsCalls:
    """Bounds how many requests wait for STS."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: Counter[str] = Counter()  # user key -> calls

    @contextlib.contextmanager
    def one(self, grant: Grant, user_key: str) -> Iterator[None]:
        """Room for the call that ``grant`` needs, if it needs one. Taken before a code is counted or a proof used up.

        Raises:
            Refusal: there is none; the same proof is good for another try.
        """
        if grant.sts != BROKER:
            yield
            return
        with self._lock:
            free = self._of.total() < STS_CALLS and self._of[user_key] < STS_CALLS_PERSON
            if free:
                self._of[user_key] += 1
        if not free:
            raise Refusal(
                "temporarily_unavailable", "the broker is busy: try again", "every STS call is taken"
            )
        try:
            yield
        finally:
            with self._lock:
                self._of[user_key] -= 1
                self._of += Counter()  # forgets who has none


@dataclass(frozen=True, kw_only=True)
class Issuance:
    """What was committed: from here on nothing is decided any more."""

    id: str
    jti: str
    grant: Grant
    visit: Visit
    proven: Proven
    session_name: str
    factor_session: Secret | None


def for_client(issuance: Issuance, token: Secret) -> Issued:
    """The web-identity token, and what the client has to ask STS for."""
    grant, remembered = issuance.grant, issuance.factor_session
    return Issued(
        token=token,
        issued_token_type=JWT_TYPE,
        expires_in=TOKEN_LIFE,
        issuance_id=issuance.id,
        role_arn=grant.role_arn,
        region=grant.region,
        session_name=issuance.session_name,
        session_policy=grant.session_policy,
        duration=grant.duration,
        scopes=grant.scopes,
        factor_session=remembered,
        factor_session_expires_in=grant.factor_max_age if remembered else None,
        factor_group=grant.factor_group if remembered else None,
    )


def at_sts(issuance: Issuance, token: Secret, sts: Sts, *, now: float) -> tuple[Issued, str]:
    """The credentials and their access key id; everything is denied once the granted duration is over.

    Raises:
        AwsRefusedError, UnavailableError: there are no credentials.
    """
    grant, ends = issuance.grant, int(now) + issuance.grant.duration
    bounded = with_expiry(grant.session_policy, ends)
    credentials = sts(
        token=token,
        role_arn=grant.role_arn,
        session_name=issuance.session_name,
        duration=grant.duration,
        policy=bounded,
        region=grant.region,
    )
    ends = min(ends, credentials.expiration)
    issued = replace(
        for_client(issuance, token),
        token=_document(credentials, ends),
        issued_token_type=AWS_CREDENTIALS_TYPE,
        expires_in=ends - int(now),
        session_policy=bounded,
    )
    return issued, credentials.access_key_id


def _document(credentials: AwsCredentials, ends: int) -> Secret:
    """The names that AWS uses; ``Expiration`` as in credential_process."""
    document = {
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.reveal(),
        "SessionToken": credentials.session_token.reveal(),
        "Expiration": timestamp(ends),
        "AccountId": credentials.account_id,
    }
    return Secret(json.dumps(document, separators=(",", ":")))


def private_cause(exc: Exception) -> str:
    """For the record ``failed``. Text of unforeseen errors may hold anything, so it is left out."""
    if isinstance(exc, AwsRefusedError):
        return f"{exc.code}: {exc.message}"
    return exc.message if isinstance(exc, UnavailableError) else ""


def public_answer(exc: Exception) -> Exception:
    """What the caller learns of a failure after the commit."""
    match exc:
        case AwsRefusedError():
            code = exc.code if _AWS_CODE.fullmatch(exc.code) else "an unknown code"
            return Refusal(AWS_REFUSED, f"AWS refused the role session: {code}", exc.message)
        case UnavailableError():
            return Refusal("temporarily_unavailable", "AWS STS is out of reach: try again", exc.message)
        case _:
            return exc
