"""The front desk, whatever carries it: a ``Request`` in, a ``Response`` out, never an exception, one log line.

A request that shows no good ID token costs its address something, and once too many came from there the answer
is 429. A good ID token is never held up by that: one machine behind a company's NAT must not lock out the others.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Final

from credx.broker import telemetry
from credx.broker.attempts import LOCKED
from credx.broker.front import answers
from credx.broker.front.readiness import Readiness
from credx.broker.front.routes import ROUTES, Behind, NoTokenError
from credx.broker.pace import neighbourhood
from credx.broker.stores import StoreUnavailableError
from credx.errors import Refusal

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping

    from credx.broker.front.answers import Request, Response
    from credx.broker.front.routes import Route
    from credx.broker.service import Broker

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class Api:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._behind = Behind(broker, Readiness(broker))

    def handle(self, request: Request) -> Response:
        """Answer a request."""
        started = time.perf_counter()
        route, call = self._found(request)
        try:
            response = call()
        except Exception as exc:  # noqa: BLE001 -- whatever it was, it says nothing to the outside
            # by its class alone: a message or a traceback can hold a secret
            self._log("unexpected_error", error=type(exc).__name__, where=_where(exc))
            response = self._refused(Refusal("server_error", "the broker failed: see its log"))
        self.served(request.method, route, response, request.client, time.perf_counter() - started)
        return response

    def served(self, method: str, route: str, response: Response, client: str, seconds: float) -> None:
        """The log line of a request, also of one that was turned away before it got here."""
        telemetry.request_served(
            method=method if method in _METHODS else "other",
            route=route,
            status=response.status,
            outcome=response.outcome,
            seconds=seconds,
            size=len(response.body),
            client=client,
            issuance=response.issuance,
            counts=response.counts,
        )

    def _found(self, request: Request) -> tuple[str, Callable[[], Response]]:
        """The template of the route, and what answers."""
        here = [(route, m) for route in ROUTES if (m := route.path.fullmatch(request.path))]
        for route, match in here:
            if route.method == request.method:
                return route.template, functools.partial(self._called, route, match, request)
        # an event of its own: whoever tries addresses must not use up the lines of other refusals
        if not here:
            nothing = Refusal("not_found", "there is nothing here")
            return telemetry.NO_ROUTE, functools.partial(self._stranger, request, nothing, "no_route")
        allow = {"allow": ", ".join(sorted(route.method for route, _ in here))}
        method = Refusal("method_not_allowed", "not with this method")
        return here[0][0].template, functools.partial(self._stranger, request, method, "no_route", allow)

    def _called(self, route: Route, match: re.Match[str], request: Request) -> Response:
        try:
            call = route.read(self._behind, request, match)
        except Refusal as refusal:
            return self._stranger(request, refusal, "request_refused")
        try:
            return call()
        except Refusal as refusal:
            if refusal.code == "invalid_token":  # the admission has logged why
                return self._stranger(request, refusal)
            return self._refused(refusal)

    def _stranger(
        self,
        request: Request,
        refusal: Refusal,
        event: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """A refusal without a good ID token: told and counted, until there were too many."""
        pace, who, now = self._broker.admission.addresses, neighbourhood(request.client), self._broker.now()
        if not pace.allows(who, now=now):
            return self._refused(
                Refusal("slow_down", "too many requests from your address were refused: wait a minute")
            )
        pace.count(who, now=now)
        if event is not None:
            # a query is what a misled client puts tokens and codes into: it is no route, and no text for a log
            path = request.path.partition("?")[0]
            self._log(event, error=refusal.code, path=path, client=request.client)
        return self._refused(refusal, headers)

    def _refused(self, refusal: Refusal, headers: Mapping[str, str] | None = None) -> Response:
        more = dict(headers or {})
        if answers.status_of(refusal.code) == 401:
            more["www-authenticate"] = self._challenge(refusal)
        return answers.error(refusal.code, refusal.public, more, counts=_counts(refusal))

    def _challenge(self, refusal: Refusal) -> str:
        """RFC 6750 3: no error code for a request without a token. RFC 9470 3: how fresh a sign-in must be."""
        if refusal.code == "insufficient_user_authentication":
            return f'Bearer error="{refusal.code}", max_age="{self._broker.policy().broker.max_token_age}"'
        return "Bearer" if isinstance(refusal, NoTokenError) else f'Bearer error="{refusal.code}"'

    def _log(self, event: str, **fields: object) -> None:
        self._broker.audit.security_log(event, **fields)


def _counts(refusal: Refusal) -> tuple[str, ...]:
    counts = [telemetry.REFUSALS]
    if isinstance(refusal.__cause__, StoreUnavailableError):
        counts.append(telemetry.STORE_ERRORS)
    if refusal.detail.startswith(LOCKED):
        counts.append(telemetry.LOCKOUTS)
    if refusal.code == "slow_down":
        counts.append(telemetry.THROTTLED)
    return tuple(counts)


def _where(exc: BaseException) -> str:
    """File and line that raised, without any value."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
