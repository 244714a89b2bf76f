"""What the broker tells its operators: one line of JSON for each event, whatever the event is.

Four loggers below ``credx``, one writer: ``security`` (requests that show no good ID token), ``requests`` (one
line for each request, which is its metrics too), ``audit`` (a copy of every durable record, word for word) and
``broker`` (which policy holds, and which file is refused).
No line holds a query, a body, a header or a ``Secret``. Metrics are CloudWatch's embedded metric format: a log
line with an ``_aws`` member, read by CloudWatch Logs where there is one and harmless anywhere else. Dimensions
are route templates and error names, so a stranger cannot make new time series.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from credx.model import Secret
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SECURITY: Final = logging.getLogger("credx.security")
REQUESTS: Final = logging.getLogger("credx.requests")
AUDIT: Final = logging.getLogger("credx.audit")
POLICY: Final = logging.getLogger("credx.broker")

NAMESPACE: Final = "credx"
MAX_TEXT: Final = 200  # characters of a value
MAX_FIELDS: Final = 16

OK: Final = "ok"
NO_ROUTE: Final = "-"  # the route of what was turned away before there was one, or where there is none

# the metrics beside Requests and Latency; each counts one request
REFUSALS: Final = "Refusals"  # by error name: the outcome
ISSUED: Final = "Issued"
STORE_ERRORS: Final = "StoreErrors"
LOCKOUTS: Final = "Lockouts"  # a code of somebody whose codes are locked
THROTTLED: Final = "Throttled"  # 429, and 503 because too many were waiting

_REQUEST: Final = {
    "Namespace": NAMESPACE,
    "Dimensions": [["route", "outcome"]],
    "Metrics": [{"Name": "Requests", "Unit": "Count"}, {"Name": "Latency", "Unit": "Milliseconds"}],
}


def event_line(event: str, fields: Mapping[str, object], *, at: float) -> str:
    """One line of JSON in ASCII; texts are cleaned and cut, at most ``MAX_FIELDS`` of them.

    Raises:
        TypeError: a field is a Secret.
    """
    if any(isinstance(value, Secret) for value in fields.values()):
        raise TypeError("a Secret does not belong into a log")
    line: dict[str, object] = {"event": event, "at": int(at)}
    for name, value in list(fields.items())[:MAX_FIELDS]:
        plain = value is None or isinstance(value, bool | int)
        line.setdefault(name, value if plain else clean(value, MAX_TEXT))
    return json.dumps(line)  # \u escapes for all the rest


def request_served(
    *,
    method: str,
    route: str,
    status: int,
    outcome: str,
    seconds: float,
    size: int,
    client: str,
    issuance: str | None = None,
    counts: Iterable[str] = (),
) -> None:
    """The one line of a request, with its metrics.

    ``route``: a template, never the path that was sent. ``outcome``: ``ok``, or why not, in one word of ours.
    ``size``: bytes of the answer's body. ``counts``: names of the above.
    """
    if not REQUESTS.isEnabledFor(logging.INFO):
        return
    counts = tuple(counts)
    metrics: list[dict[str, Any]] = [_REQUEST]
    if counts:
        more = [{"Name": name, "Unit": "Count"} for name in counts]
        metrics.append({"Namespace": NAMESPACE, "Dimensions": [["outcome"]], "Metrics": more})
    now = time.time()
    line: dict[str, Any] = {
        "event": "request",
        "at": int(now),
        "method": method,
        "route": route,
        "status": status,
        "outcome": outcome,
        "bytes": size,
        "client": clean(client, MAX_TEXT),
        "Requests": 1,
        "Latency": round(seconds * 1000, 3),
        **dict.fromkeys(counts, 1),
        "_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": metrics},
    }
    if issuance is not None:
        line["issuance"] = issuance
    REQUESTS.info("%s", json.dumps(line))


def audit_copy(record: Mapping[str, Any]) -> None:
    """``Audit(copy=...)``: a record, once it is durable, as one line; uncut, so that its hash can be checked."""
    AUDIT.info("%s", json.dumps({"event": "audit", "at": record["at"], "record": dict(record)}))


class JsonLines(logging.Formatter):
    """Every line of the process as JSON: what others log is wrapped, and exceptions are named, not printed.

    A traceback or the text of an exception can hold what a request held.
    """

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.name in (SECURITY.name, REQUESTS.name, AUDIT.name, POLICY.name):
            return message
        fields: dict[str, object] = {"logger": record.name, "level": record.levelname, "message": message}
        if record.exc_info and record.exc_info[0] is not None:
            fields["exception"] = record.exc_info[0].__name__
        return event_line("log", fields, at=record.created)
