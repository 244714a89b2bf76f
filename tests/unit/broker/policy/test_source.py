"""A policy that follows its file while the broker serves."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from credx.broker.policy import source as policy_source
from credx.broker.policy.source import PolicySource
from credx.errors import ConfigError

GOOD = (Path(__file__).parents[1] / "data" / "policy.toml").read_text("utf-8")
OTHER = GOOD.replace('description = "Shells on production"', 'description = "Shells"')


class Bench:
    """A policy file, a clock, and what was logged."""

    def __init__(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.path = path
        self.time = 1000.0
        self._caplog = caplog
        path.write_text(GOOD, "utf-8")
        self.source = PolicySource(path, now=lambda: 1_800_000_000.5, clock=lambda: self.time)

    def put(self, text: str | bytes) -> None:
        """Replaced by a rename, as it should be."""
        new = self.path.with_suffix(".new")
        new.write_bytes(text if isinstance(text, bytes) else text.encode())
        new.replace(self.path)

    def later(self, seconds: float = 1.0) -> str:
        """What holds then: the description of a role."""
        self.time += seconds
        return self.source().roles["prod-ops"].description

    def settled(self) -> str:
        self.later()
        return self.later()

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(r.getMessage()) for r in self._caplog.records if r.name == "credx.broker"]


@pytest.fixture
def bench(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO, "credx.broker")
    return Bench(tmp_path / "policy.toml", caplog)


def test_a_changed_file_holds_after_two_looks(bench: Bench) -> None:
    before = bench.source.state()
    assert (before.version, before.loaded_at, before.error) == (bench.source().version, 1_800_000_000, None)
    bench.put(OTHER)
    assert bench.later(0.9) == "Shells on production"  # nobody has looked yet
    assert bench.later(0.1) == "Shells on production"  # seen once: it may be half written
    assert bench.later(0.9) == "Shells on production"
    assert bench.later(0.1) == "Shells"
    version = bench.source().version
    assert version != before.version
    assert bench.source.state() == (version, 1_800_000_000, None)
    assert bench.told == [{"event": "policy_loaded", "at": 1_800_000_000, "version": version}]


def test_an_unchanged_file_is_looked_at_and_not_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_source, "read_policy", None)
    monkeypatch.setattr(os, "open", None)
    for _ in range(5):
        bench.later()
    os.utime(bench.path)
    monkeypatch.undo()
    bench.settled()
    assert bench.told == []  # touched, and as it was


def test_a_file_that_is_looked_at_at_most_once_a_second(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **more: looks.append(1) or stat(self, **more))
    for _ in range(100):
        bench.source()
    assert not looks
    bench.later()
    for _ in range(100):
        bench.source()
    assert len(looks) == 1


def test_a_file_that_is_still_being_written_is_not_read(bench: Bench) -> None:
    """Cut before a Deny it would be a policy as well."""
    for cut in range(600, 1600, 100):
        bench.path.write_text(OTHER[:cut], "utf-8")
        assert bench.later() == "Shells on production"
    bench.path.write_text(OTHER, "utf-8")
    assert bench.later() == "Shells on production"
    assert bench.later() == "Shells"
    assert [line["event"] for line in bench.told] == ["policy_loaded"]


def test_a_broken_file_keeps_the_policy_and_is_told_once(bench: Bench) -> None:
    version = bench.source().version
    bench.put(GOOD.replace("[broker]", "[broker"))
    assert bench.settled() == "Shells on production"
    for _ in range(5):
        bench.later()
    (line,) = bench.told
    assert line["event"] == "policy_refused"
    assert line["version"] == version
    assert line["error"].startswith(f"{bench.path}:3: no TOML: ")
    state = bench.source.state()
    assert (state.version, state.error) == (version, line["error"])
    bench.put(GOOD.replace('factors = ["totp"]', 'factors = ["sms"]'))
    bench.settled()
    assert [line["event"] for line in bench.told] == ["policy_refused"] * 2
    assert "roles.buckets.factors" in str(bench.source.state().error)
    bench.put(GOOD)  # as it was: the same policy, and the error is over
    bench.settled()
    assert bench.source.state() == (version, 1_800_000_000, None)
    assert bench.told[-1]["event"] == "policy_loaded"


def test_a_copy_that_keeps_size_and_times_is_a_change(bench: Bench) -> None:
    old = bench.path.stat()
    text = GOOD.replace('description = "Shells on production"', 'description = "Shells in production"')
    bench.path.write_text(text, "utf-8")  # in place: the same inode
    os.utime(bench.path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert bench.path.stat().st_size == old.st_size
    assert bench.settled() == "Shells in production"


def test_a_file_that_changes_under_the_reader_is_not_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    fstat, calls = os.fstat, []

    def changed_between(handle: int) -> os.stat_result:
        calls.append(handle)
        if len(calls) == 2:
            with bench.path.open("a", encoding="utf-8") as file:
                file.write("# more\n")
        return fstat(handle)

    bench.put(OTHER)
    monkeypatch.setattr(os, "fstat", changed_between)
    bench.source.look_now()
    assert bench.source.state().error == f"{bench.path}: was changed while it was read"
    assert bench.settled() == "Shells"


def test_a_hangup_reads_at_once(bench: Bench) -> None:
    bench.put(OTHER)
    bench.source.look_now()
    assert bench.source().roles["prod-ops"].description == "Shells"


def test_what_a_restart_is_needed_for_is_refused(bench: Bench) -> None:
    for name, value in (("issuer", "https://other.example.com"), ("url", "https://x.credx.example.com"), ("rp_id", "example.com")):  # fmt: skip
        text = GOOD.replace("[broker]\n", f'[broker]\n{name} = "{value}"\n')
        if name == "issuer":
            text = text.replace('\nissuer = "https://credx.example.com"', "", 1)
            text = text.replace("[broker]\n", '[broker]\nurl = "https://credx.example.com"\n')
        bench.put(text)
        bench.source.look_now()
        error = bench.source.state().error
        assert f"broker.{name}: a change takes a restart" in str(error)
        assert bench.source().broker.issuer == "https://credx.example.com"
    bench.put(GOOD.replace('max_token_age = "1h"', 'max_token_age = "2h"'))
    bench.source.look_now()
    assert bench.source().broker.max_token_age == 7200


def test_at_the_start_a_broken_file_is_an_error(tmp_path: Path) -> None:
    for text in (b"x = 1", b"\xff"):
        (tmp_path / "p.toml").write_bytes(text)
        with pytest.raises(ConfigError):
            PolicySource(tmp_path / "p.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        PolicySource(tmp_path / "none.toml")


def test_nobody_waits_while_somebody_reads(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = threading.Event(), threading.Event()
    read = policy_source.read_policy
    readers: list[str] = []

    def slow(text: str, name: str) -> Any:
        readers.append(threading.current_thread().name)
        reading.set()
        assert go_on.wait(10)
        return read(text, name)

    bench.put(OTHER)
    bench.later()
    monkeypatch.setattr(policy_source, "read_policy", slow)
    bench.time += 1
    reader = threading.Thread(target=bench.source)
    reader.start()
    assert reading.wait(10)
    for _ in range(10):
        assert bench.later() == "Shells on production"
    go_on.set()
    reader.join(10)
    assert bench.source().roles["prod-ops"].description == "Shells"
    assert len(readers) == 1


def test_a_fault_of_the_reader_itself_ends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str, name: str) -> Any:
        raise RuntimeError("password")

    monkeypatch.setattr(policy_source, "read_policy", fail)
    bench.put(OTHER)
    assert bench.settled() == "Shells on production"
    assert bench.source.state().error == "unexpected RuntimeError"


@pytest.mark.parametrize("count", [8])
def test_many_threads_over_many_changes_see_whole_policies(bench: Bench, count: int) -> None:
    stop, seen, wrong = threading.Event(), set(), []
    versions = {bench.source().version}

    def ask() -> None:
        while not stop.is_set():
            policy = bench.source()
            seen.add((policy.version, policy.roles["prod-ops"].description))
            if policy.version not in versions:
                wrong.append(policy.version)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for n in range(20):
        text = GOOD.replace("Shells on production", f"Shells {n}")
        versions.add(policy_source.read_policy(text, "x")[0].version)
        bench.put(text)
        bench.time += 1
        bench.source()
        bench.time += 1
        bench.source.look_now()
    stop.set()
    for thread in threads:
        thread.join(10)
    assert not wrong
    assert bench.source().roles["prod-ops"].description == "Shells 19"
    assert len({version for version, _ in seen}) == len(seen)
