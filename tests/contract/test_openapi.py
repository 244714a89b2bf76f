"""The broker held to its own document by another's tool: generated requests, and answers as the document says.

Schemathesis makes requests that fit the document and requests that do not, for every operation. Whatever comes:
no 5xx, no status, type, header or body that the document does not know, no method beside it, no way past the token.
The seed is fixed and in the tests' names, so that a finding can be made again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, seed, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from support.broker_world import World

from credx.broker.front.routes import ROUTES
from credx.broker.front.wsgi import application
from credx.broker.pace import Pace
from credx.protocol import OPENAPI_PATH

if TYPE_CHECKING:
    from credx.model import Secret

SEED = 20260728
EXAMPLES = 25  # random ones of each operation and caller, beside those that go through the document

WORLD = World()
WORLD.add_app()
# how often somebody may be refused has tests of its own
for pace in ("addresses", "_tokens", "_people", "_asks"):
    setattr(WORLD.broker.admission, pace, Pace(10**9, 0.0))
# RFC 6749 5.2 answers 400 also to what is well formed and unknown, such as a handle that has ended
NOT_OURS = [positive_data_acceptance]
SEEN: set[tuple[str, int]] = set()


def served(method: str, route: str, response: Any, client: str, seconds: float) -> None:
    SEEN.add((route, response.status))


WORLD.api.served = served  # type: ignore[method-assign]
SCHEMA = schemathesis.openapi.from_wsgi("/openapi.json", application(WORLD.api))

BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def with_token(case: Any, token: Secret) -> dict[str, str]:
    """The token where this operation takes it; where the case bends it, it stays bent."""
    if isinstance(case.body, dict) and isinstance(case.body.get("subject_token"), str):
        case.body["subject_token"] = token.reveal()
    return {"Authorization": f"Bearer {token.reveal()}"}


@pytest.mark.parametrize("seeded", [SEED])
@SCHEMA.parametrize()
@seed(SEED)
@BOUNDED
def test_somebody_with_a_token(case: Any, seeded: int) -> None:
    case.call_and_validate(headers=with_token(case, WORLD.token()), excluded_checks=NOT_OURS)


@pytest.mark.parametrize("seeded", [SEED])
@SCHEMA.parametrize()
@seed(SEED)
@BOUNDED
def test_a_stranger(case: Any, seeded: int) -> None:
    response = case.call_and_validate(excluded_checks=NOT_OURS)
    bearer = case.operation.definition.raw.get("security")
    assert not bearer or response.status_code in {400, 401, 404, 405}  # never as far as 403


def test_all_that_was_really_asked() -> None:
    """The last of this file: the ones above went through every operation, and met more than refusals."""
    documented = {route.template for route in ROUTES} - {OPENAPI_PATH}  # its own source it asks no more
    assert {(template, 405) for template in documented} <= SEEN
    assert {(route.template, 200) for route in ROUTES if route.public} <= SEEN
    assert {("/factors", 200), ("/roles", 200), ("/factor-sessions", 200), ("/factors", 401)} <= SEEN
    assert {("/token", 400), ("/token", 401), ("/token", 403), ("/factors/{id}", 404)} <= SEEN
    assert not {status for _, status in SEEN if status >= 500}
