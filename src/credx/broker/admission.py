"""Steps 1 and 2, the same for every route: whose ID token is this, and may that person come in at all.

A request whose token is not verified leaves a line in the security log, and so does one of a person who was
refused too often of late. Everything after that happens inside ``visit``, and each refusal there leaves exactly
one audit record, written in this one place.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from credx.broker.pace import ADDRESS_BURST, ADDRESS_RATE, ASK_BURST, ASK_RATE, PERSON_BURST, Pace
from credx.broker.person import person_of
from credx.broker.stores import ConflictError, StoreUnavailableError
from credx.broker.users import Profile, load_profile
from credx.errors import Refusal, UnavailableError
from credx.jose import TokenError, verify_id_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from credx.broker.audit import Audit
    from credx.broker.person import Person
    from credx.broker.policy.rules import Policy
    from credx.broker.stores import Store
    from credx.jose import KeySource
    from credx.model import Secret, VerifiedClaims

LOGGER = logging.getLogger("credx.broker")

MAX_REFUSED: Final = 2048  # bytes of targets in the record of a refusal; nobody has looked at them yet


@dataclass(kw_only=True)
class Visit:
    """One request after its ID token was verified.

    Attributes:
        now: the one time of every decision in this request.
        about: what audit records of this request say; grows as more is known.
    """

    now: float
    claims: VerifiedClaims
    policy: Policy
    person: Person
    profile: Profile
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def user_key(self) -> str:
        return self.person.user_key


@contextmanager
def durable() -> Iterator[None]:
    """What cannot be remembered did not happen: a failing store is an answer, and nothing leaves."""
    try:
        yield
    except (StoreUnavailableError, ConflictError) as exc:
        LOGGER.error("not recorded: %s: %s", type(exc).__name__, exc)  # noqa: TRY400 -- a trace can hold secrets
        raise Refusal(
            "temporarily_unavailable", "the broker cannot record this now: try again", type(exc).__name__
        ) from exc


class Admission:
    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        store: Store,
        audit: Audit,
        keys: KeySource,
        now: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._store = store
        self._audit = audit
        self._keys = keys
        self._now = now
        self._tokens = Pace()
        self._people = Pace(PERSON_BURST)
        self._asks = Pace(ASK_BURST, ASK_RATE)
        self.addresses = Pace(ADDRESS_BURST, ADDRESS_RATE)  # those that show no good ID token

    @contextmanager
    def visit(self, id_token: Secret, client: str, **about: Any) -> Iterator[Visit]:
        """Steps 1 and 2; then whatever is refused inside is recorded.

        ``client`` is the address that the request came from, ``about`` what is recorded of it beforehand.

        Raises:
            Refusal: of the ID token, of the person, or whatever is refused inside.
        """
        now, policy = self._now(), self._policy()
        claims = self._verified(id_token, policy, client, now)
        self._not_too_often(claims, client, now)
        known: dict[str, Any] = {
            "issuer": claims.issuer,
            "subject": claims.subject,
            "token_hash": claims.token_hash,
            "client": client,
            **about,
        }
        with durable():
            try:
                person = person_of(policy, claims)
                visit = Visit(
                    now=now, claims=claims, policy=policy, person=person, profile=Profile({}, 0), about=known
                )
                self.look_again(visit)
                yield visit
            except ConflictError as exc:
                refusal = Refusal(
                    "temporarily_unavailable",
                    "another request of yours came in between: try again",
                    "conflict",
                )
                self._refused(known, refusal, now)
                raise refusal from exc
            except Refusal as refusal:
                self._refused(known, refusal, now)
                raise
            except StoreUnavailableError:
                raise
            except Exception as exc:  # a fault of the program: it is an answer too, and leaves its record
                self._refused(known, Refusal("server_error", "", f"unexpected {type(exc).__name__}"), now)
                raise

    def _refused(self, known: Mapping[str, Any], refusal: Refusal, now: float) -> None:
        record = {**known, "event": "refused", "error": refusal.code, "detail": refusal.detail}
        if "resources" in known:
            record["resources"] = _first(known["resources"])
        self._count(known["token_hash"], (known["issuer"], known["subject"]), now)
        self._audit.append(record, now=now)

    def _count(self, token_hash: str, person: tuple[str, str], now: float) -> None:
        self._tokens.count(token_hash, now=now)
        self._people.count(person, now=now)

    def count_idle(self, visit: Visit) -> None:
        """A record of nothing, which an ID token alone can cause, counts as a refusal does."""
        self._count(visit.claims.token_hash, (visit.claims.issuer, visit.claims.subject), visit.now)

    def count_ask(self, visit: Visit) -> None:
        """A step-up or a challenge, which an ID token alone can cause too: a write without a record.

        Raises:
            Refusal: too many of them.
        """
        if not self._asks.allows(visit.claims.token_hash, now=visit.now):
            raise Refusal("slow_down", "you ask too often without proving anything: wait a minute", "asks")
        self._asks.count(visit.claims.token_hash, now=visit.now)

    def _not_too_often(self, claims: VerifiedClaims, client: str, now: float) -> None:
        person = (claims.issuer, claims.subject)
        if not (self._tokens.allows(claims.token_hash, now=now) and self._people.allows(person, now=now)):
            self._audit.security_log(
                "slowed_down", issuer=claims.issuer, subject=claims.subject, client=client
            )
            raise Refusal("slow_down", "too many of your requests were refused: wait a minute", "pace")

    def look_again(self, visit: Visit) -> None:
        """Policy, person and profile as they are at this moment.

        Raises:
            Refusal: the person is disabled, or is nobody by the policy that holds now.
        """
        visit.policy = self._policy()
        visit.person = person_of(visit.policy, visit.claims)
        visit.about.update(
            user=visit.person.user, user_key=visit.user_key, policy_version=visit.policy.version
        )
        visit.profile = load_profile(self._store, visit.user_key, now=visit.now)
        if visit.profile.disabled:
            raise Refusal("access_denied", "your access is disabled: ask an administrator", "user disabled")

    def _verified(self, id_token: Secret, policy: Policy, client: str, now: float) -> VerifiedClaims:
        try:
            return verify_id_token(
                id_token,
                issuers={name: rule.trusted for name, rule in policy.issuers.items()},
                keys=self._keys,
                now=now,
                max_age=policy.broker.max_token_age,
            )
        except TokenError as exc:
            self._audit.security_log("token_refused", reason=exc.reason, client=client)
            if exc.reason == "too-old":
                raise Refusal(
                    "insufficient_user_authentication", "the sign-in is too old: sign in again", exc.reason
                ) from exc
            raise Refusal(
                "invalid_token", f"the ID token was not accepted: {exc.message}", exc.reason
            ) from exc
        except UnavailableError as exc:
            self._audit.security_log("identity_provider_unavailable", client=client, reason=exc.message)
            raise Refusal(
                "temporarily_unavailable", "the identity provider's keys are out of reach", exc.message
            ) from exc


def _first(resources: Sequence[str]) -> list[str]:
    """Whole names as long as there is room, and how many there were besides: a cut name would be another."""
    kept: list[str] = []
    room = MAX_REFUSED
    for resource in resources:
        room -= len(json.dumps(resource))
        if room < 0:
            return [*kept, f"and {len(resources) - len(kept)} more"]
        kept.append(resource)
    return kept
