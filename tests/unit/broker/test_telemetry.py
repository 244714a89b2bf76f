"""One line per event, no secrets in it, and metrics that CloudWatch reads."""

from __future__ import annotations

import io
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest

from credx.broker import telemetry
from credx.broker.front.routes import ROUTES
from credx.broker.stores import StoreUnavailableError
from credx.model import Secret
from credx.protocol import ERROR_STATUS, Ask, TokenRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

FORM = {"content-type": "application/x-www-form-urlencoded"}
OUTCOMES = {*ERROR_STATUS, "ok", "step_up", "overloaded", "unready"}


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(record.getMessage()))


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    kept, level = Kept(), telemetry.REQUESTS.level
    telemetry.REQUESTS.addHandler(kept)
    telemetry.REQUESTS.setLevel(logging.INFO)
    yield kept.lines
    telemetry.REQUESTS.removeHandler(kept)
    telemetry.REQUESTS.setLevel(level)


def check_emf(line: dict[str, Any]) -> dict[str, float]:
    """The rules of the embedded metric format's specification, in our words; the metrics that the line carries."""
    assert len(json.dumps(line)) < 256 * 1024  # a CloudWatch Logs event
    meta = line["_aws"]
    assert set(meta) == {"Timestamp", "CloudWatchMetrics"}
    assert (
        type(meta["Timestamp"]) is int
    )  # milliseconds since 1970, not older than 14 days, not 2 hours ahead
    assert abs(meta["Timestamp"] / 1000 - time.time()) < 60
    found: dict[str, float] = {}
    for directive in meta["CloudWatchMetrics"]:
        assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
        assert 1 <= len(directive["Namespace"]) <= 1024
        assert directive["Dimensions"]  # at least one set
        for dimensions in directive["Dimensions"]:
            assert len(set(dimensions)) == len(dimensions) <= 30
            for name in dimensions:
                assert 1 <= len(name) <= 250
                assert isinstance(line[name], str)  # its target is a root member that is a text
                assert 1 <= len(line[name]) <= 1024
                assert line[name].isascii()
        assert 1 <= len(directive["Metrics"]) <= 100
        for metric in directive["Metrics"]:
            assert set(metric) == {"Name", "Unit"}
            assert metric["Unit"] in {"Count", "Milliseconds"}
            value = line[metric["Name"]]
            assert type(value) in (int, float)
            assert metric["Name"] not in found
            found[metric["Name"]] = value
    return found


def form(token: Secret, role: str = "prod") -> bytes:
    return TokenRequest(subject_token=token, ask=Ask(role=role)).to_form()


def test_every_request_is_one_line_with_its_metrics(world: Any, lines: list[dict[str, Any]]) -> None:
    world.http("GET", "/healthz")
    world.http("GET", "/roles")
    world.http("GET", "/nothing?token=secret")
    world.http("BREW", "/roles")
    world.http("DELETE", "/factors/0123456789abcdef", token=world.token())
    told = [(x["method"], x["route"], x["status"], x["outcome"]) for x in lines]
    assert told == [
        ("GET", "/healthz", 200, "ok"),
        ("GET", "/roles", 401, "invalid_token"),
        ("GET", "-", 404, "not_found"),
        ("other", "/roles", 405, "method_not_allowed"),
        ("DELETE", "/factors/{id}", 404, "not_found"),
    ]
    for line in lines:
        metrics = check_emf(line)
        assert metrics["Requests"] == 1
        assert 0 <= metrics["Latency"] < 10_000
        assert line["client"] == "10.0.0.1"
        assert "secret" not in json.dumps(line)
        assert line["route"] in {"-", *(route.template for route in ROUTES)}
        assert line["outcome"] in OUTCOMES


def test_what_counts_is_counted(world: Any, lines: list[dict[str, Any]], monkeypatch: Any) -> None:
    world.http("POST", "/token", form(world.job(), "deploy"), headers=FORM)
    assert check_emf(lines[-1])["Issued"] == 1
    assert lines[-1]["issuance"] == world.records("issued")[-1]["issuance"]
    world.add_app()
    world.http("POST", "/token", form(world.token(), "dev"), headers=FORM)
    assert (lines[-1]["outcome"], "Refusals" in lines[-1]) == ("step_up", False)
    world.http("POST", "/token", form(world.token(), "foreign"), headers=FORM)
    assert (lines[-1]["outcome"], check_emf(lines[-1])["Refusals"]) == ("access_denied", 1)

    def gone(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "get", gone)
        world.http("GET", "/factors", token=world.token())
    assert check_emf(lines[-1])["StoreErrors"] == 1
    monkeypatch.setattr(world.broker.admission._people, "allows", lambda *_, **__: False)
    world.http("GET", "/factors", token=world.token())
    assert (lines[-1]["status"], check_emf(lines[-1])["Throttled"]) == (429, 1)


def test_a_lockout_is_counted(world: Any, lines: list[dict[str, Any]]) -> None:
    from credx.protocol import TotpProof

    world.add_app()
    token = world.token()
    for _ in range(12):
        step_up = world.step_up(token, "dev")
        wrong = TotpProof(auth_session=step_up.auth_session, otp=Secret("000000"))
        body = TokenRequest(subject_token=token, ask=Ask(role="dev"), proof=wrong).to_form()
        world.http("POST", "/token", body, headers=FORM)
        if "Lockouts" in lines[-1]:
            break
    assert check_emf(lines[-1])["Lockouts"] == 1
    assert "000000" not in json.dumps(lines)


def test_nothing_secret_of_a_request_is_in_any_line(
    world: Any, lines: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    token = world.token()
    with caplog.at_level(logging.DEBUG):
        world.http("POST", "/token", form(token) + b"&otp=123456&otp=123456", headers=FORM)
        world.http("GET", f"/roles?access_token={token.reveal()}")
        world.http("GET", "/roles", token=token, headers={"cookie": "hidden"})
    for word in (token.reveal()[:40], token.reveal()[-40:], "123456", "hidden"):
        assert word not in json.dumps(lines) + caplog.text
    with pytest.raises(TypeError):
        telemetry.event_line("x", {"token": Secret("x")}, at=0)


def test_a_line_is_a_line_whatever_it_tells(lines: list[dict[str, Any]]) -> None:
    told = telemetry.event_line("x", {"path": '/a\r\n{"event":"granted"}\x1b[2J\u202e' + "y" * 9999}, at=1)
    assert told.isascii()
    assert told.isprintable()
    assert len(told) < 400
    telemetry.request_served(
        method="GET", route="-", status=200, outcome="ok", seconds=0.0, size=0, client="\n" * 300
    )
    assert "\n" not in lines[-1]["client"]


def test_an_audit_record_is_copied_word_for_word(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    world.audit._copy = telemetry.audit_copy
    with caplog.at_level(logging.INFO, "credx.audit"):
        world.http("POST", "/token", form(world.job(), "deploy"), headers=FORM)
    copies = [json.loads(r.getMessage()) for r in caplog.records if r.name == "credx.audit"]
    assert {line["event"] for line in copies} == {"audit"}
    kept = {record["hash"]: record for record in world.records()}
    assert [line["record"]["event"] for line in copies][-2:] == ["granted", "issued"]
    for line in copies[-2:]:
        assert line["record"] == kept[line["record"]["hash"]]


def test_what_others_log_is_json_and_its_exceptions_are_named_only() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(telemetry.JsonLines())
    logger = logging.getLogger("credx.test-of-others")
    logger.propagate = False
    logger.addHandler(handler)
    logger.error("serving\n%s", "/x", exc_info=ValueError("hunter2"))
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["exception"] == "ValueError"
    assert "hunter2" not in line
    telemetry.SECURITY.addHandler(handler)
    telemetry.SECURITY.warning("%s", '{"event": "x"}')
    telemetry.SECURITY.removeHandler(handler)
    assert stream.getvalue().splitlines()[1] == '{"event": "x"}'


def test_a_line_costs_next_to_nothing(lines: list[dict[str, Any]]) -> None:
    """Below 50 microseconds on an idle machine; the bound here is one that a busy machine keeps."""

    def hundred() -> float:
        started = time.process_time()
        for _ in range(100):
            telemetry.request_served(
                method="POST", route="/token", status=403, outcome="access_denied", seconds=0.01, size=100,
                client="192.0.2.1", counts=("Refusals",),
            )  # fmt: skip
        return (time.process_time() - started) / 100

    assert min(hundred() for _ in range(10)) < 200e-6
    telemetry.REQUESTS.setLevel(logging.WARNING)
    assert min(hundred() for _ in range(10)) < 20e-6  # and nothing where nobody listens
