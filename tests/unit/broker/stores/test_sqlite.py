"""What only SQLite can get wrong: the file, several processes, a full disk."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from credx.broker.stores import Key, Put, StoreUnavailableError, Write
from credx.broker.stores.sqlite import SWEEP_EVERY, SWEEP_GRACE, SWEEP_LIMIT, SqliteStore
from credx.broker.stores.sqlite_file import APPLICATION_ID
from credx.errors import ConfigError

NOW = 1_800_000_000.0
A = Key("user#a", "profile")
PUT = Put(key=A, value={"v": 1}, expected=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def test_it_is_durable_and_only_ours_whatever_the_umask(path: Path) -> None:
    for mask in (0o000, 0o777):
        old = os.umask(mask)
        try:
            store = SqliteStore(path)
            store.apply([PUT], now=NOW)
            for file in path.parent.iterdir():
                assert file.stat().st_mode & 0o777 == 0o600, file.name
            store.close()
            path.unlink()
        finally:
            os.umask(old)


def test_the_next_process_reads_it(path: Path) -> None:
    first = SqliteStore(path)
    first.apply([PUT], now=NOW)
    first.close()
    second = SqliteStore(path)
    item = second.get(A, now=NOW)
    assert item
    assert item.value == {"v": 1}
    second.close()


def test_wal_and_full_sync(path: Path) -> None:
    store = SqliteStore(path)
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_a_missing_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "data" / "store.db").close()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["CREATE TABLE t (x)"], "not a credx store"),
        (["PRAGMA application_id = 7", "CREATE TABLE t (x)"], "not a credx store"),
        ([f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 2"], "has schema 2"),
        (["PRAGMA user_version = 1"], "not a credx store"),
    ],
)
def test_another_programs_or_a_newer_file_is_refused_and_left_alone(
    path: Path, statements: list[str], says: str
) -> None:
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.close()
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=says):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_garbage_is_unavailable(path: Path) -> None:
    path.write_bytes(b"x" * 4096)
    path.chmod(0o600)
    with pytest.raises(StoreUnavailableError):
        SqliteStore(path)


def test_a_lock_held_too_long_is_unavailable_and_passes(path: Path) -> None:
    store = SqliteStore(path, busy_timeout=0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        store.apply([PUT], now=NOW)
    other.execute("ROLLBACK")
    other.close()
    store.apply([PUT], now=NOW)
    store.close()


def test_a_full_disk_is_unavailable_and_nothing_is_half_written(path: Path) -> None:
    store = SqliteStore(path)
    store.apply([PUT], now=NOW)
    store._db.execute(f"PRAGMA max_page_count = {store._db.execute('PRAGMA page_count').fetchone()[0]}")
    big = [Put(key=Key("p", str(n)), value={"v": "x" * 5000}, expected=0) for n in range(5)]
    with pytest.raises(StoreUnavailableError, match="full"):
        store.apply(big, now=NOW)
    store._db.execute("PRAGMA max_page_count = 100000")
    assert list(store.query("p", now=NOW)) == []
    store.apply(big, now=NOW)
    assert len(store.query("p", now=NOW)) == 5
    store.close()


def test_a_read_only_store_is_unavailable(path: Path) -> None:
    store = SqliteStore(path)
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailableError):
        store.apply([PUT], now=NOW)
    store.close()


def test_a_value_that_is_no_json_is_unavailable(path: Path) -> None:
    store = SqliteStore(path)
    store.apply([PUT], now=NOW)
    for text in ("{", "[]", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"):
        store._db.execute("UPDATE items SET value = ?", (text,))
        with pytest.raises(StoreUnavailableError):
            store.get(A, now=NOW)
    store.close()


def test_a_fork_may_not_use_the_parents_connection(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(path)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(StoreUnavailableError):
        store.get(A, now=NOW)
    monkeypatch.undo()
    store.close()


def test_the_sweep_is_bounded_and_waits_for_the_grace(path: Path) -> None:
    store = SqliteStore(path)
    for part in range(5):
        short = [
            Put(key=Key("p", f"{part} {n}"), value={}, expected=0, expires_at=int(NOW)) for n in range(100)
        ]
        store.apply(short, now=NOW - 1)

    def left() -> int:
        (count,) = store._db.execute("SELECT count(*) FROM items WHERE partition = 'p'").fetchone()
        return int(count)

    def some_applies(now: float) -> None:
        for _ in range(SWEEP_EVERY):
            store.apply([PUT], now=now)

    some_applies(NOW + SWEEP_GRACE - 1)
    assert left() == 500
    for expected in (500 - SWEEP_LIMIT, 0):
        some_applies(NOW + SWEEP_GRACE)
        assert left() == expected
    store.close()


def test_a_process_that_writes_once_sweeps_too(path: Path) -> None:
    """An administrator's command, say: the first apply of a process sweeps."""
    for now in (NOW, NOW + 2 * SWEEP_GRACE):
        store = SqliteStore(path)
        store.apply([Put(key=Key("p", f"{now}"), value={}, expected=0, expires_at=int(now) + 1)], now=now)
        count = store._db.execute("SELECT count(*) FROM items").fetchone()
        store.close()
    assert count == (1,)


class TestBatches:
    """Who comes while a commit waits for the disk shares the next one."""

    def together(self, store: SqliteStore, jobs: list[list[Write]]) -> list[str]:
        """What came of each: all of them joined one batch, which was held back until then."""
        told = [""] * len(jobs)

        def one(n: int) -> None:
            try:
                store.apply(jobs[n], now=NOW)
                told[n] = "written"
            except Exception as exc:  # noqa: BLE001 -- it is told
                told[n] = type(exc).__name__

        with store._lock:
            threads = []
            for n in range(len(jobs)):
                threads.append(threading.Thread(target=one, args=(n,)))
                threads[n].start()
                while len(store._batch.jobs) <= n:
                    time.sleep(0.001)
        for thread in threads:
            thread.join()
        return told

    def test_share_a_commit_and_nothing_else(self, path: Path) -> None:
        store = SqliteStore(path)
        done: list[str] = []
        store._db.set_trace_callback(done.append)
        claim = Put(key=Key("once", "x"), value={}, expected=0)
        jobs: list[list[Write]] = [
            [Put(key=Key("w", str(n)), value={"n": n}, expected=0), claim] for n in range(8)
        ]
        assert self.together(store, jobs) == ["written", *["ConflictError"] * 7]
        assert [item.value["n"] for item in store.query("w", now=NOW)] == [0]
        assert done.count("COMMIT") == 1
        versions = {item.version for part in ("w", "once") for item in store.query(part, now=NOW)}
        assert len(versions) == 2
        store.close()

    def test_fail_together(self, path: Path) -> None:
        store = SqliteStore(path)
        store.apply([PUT], now=NOW)
        store._db.execute(f"PRAGMA max_page_count = {store._db.execute('PRAGMA page_count').fetchone()[0]}")
        small: list[Write] = [Put(key=Key("p", "small"), value={}, expected=0)]
        clash: list[Write] = [Put(key=A, value={}, expected=0)]
        big: list[Write] = [Put(key=Key("p", str(n)), value={"v": "x" * 5000}, expected=0) for n in range(5)]
        assert self.together(store, [small, clash, big]) == ["StoreUnavailableError"] * 3
        store._db.execute("PRAGMA max_page_count = 100000")
        assert list(store.query("p", now=NOW)) == []
        assert self.together(store, [small, clash, big]) == ["written", "ConflictError", "written"]
        store.close()

    def test_nobody_waits_for_a_leader_who_was_interrupted(self, path: Path) -> None:
        store = SqliteStore(path)
        commit = threading.Event()

        class Interrupted:
            def __enter__(self) -> None:
                commit.wait()
                raise KeyboardInterrupt

            def __exit__(self, *_: object) -> None:
                pass

        lock, store._lock = store._lock, Interrupted()  # type: ignore[assignment]
        told: list[BaseException] = []

        def one() -> None:
            try:
                store.apply([PUT], now=NOW)
            except BaseException as exc:  # noqa: BLE001 -- it is told
                told.append(exc)

        threads = [threading.Thread(target=one) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(store._batch.jobs) < 3:
            time.sleep(0.001)
        commit.set()
        for thread in threads:
            thread.join()
        assert sorted(type(exc).__name__ for exc in told) == [
            "KeyboardInterrupt", "StoreUnavailableError", "StoreUnavailableError"
        ]  # fmt: skip
        store._lock = lock
        store.apply([PUT], now=NOW)
        store.close()


TOO_LONG = """
import resource, sys
from credx.broker.stores import Key, Put, StoreUnavailableError
from credx.broker.stores.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
put = lambda n: store.apply([Put(key=Key("p", str(n)), value={"v": "x" * 9000}, expected=0)], now=0)
put(0)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # EFBIG instead of SIGXFSZ, which Python ignores
try:
    for n in range(1, 9):
        put(n)
except StoreUnavailableError as exc:
    print(exc)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
print(n, len(store.query("p", now=0)))
put(n)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_an_input_output_error_is_unavailable_and_passes(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOO_LONG, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    said, counts = done.stdout.splitlines()
    assert said in ("sqlite: disk I/O error", "sqlite: database or disk is full")
    failed, stored = counts.split()
    assert failed == stored  # what was told to be written, and no more


TAKE = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from credx.broker.stores import ConflictError, Delete, Key, Put
from credx.broker.stores.sqlite import SqliteStore
path, version, at = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
store = SqliteStore(path)
time.sleep(max(0, at - time.time()))
def take(n: int) -> bool:
    try:
        store.apply([Delete(key=Key("once", "x"), expected=version), Put(key=Key("w", f"{n}"), value={}, expected=None)], now=0)
    except ConflictError:
        return 0
    return 1
with ThreadPoolExecutor(16) as pool:
    print(sum(pool.map(take, range(16))))
"""


def test_of_four_processes_with_16_threads_each_exactly_one_wins(path: Path) -> None:
    store = SqliteStore(path)
    store.apply([Put(key=Key("once", "x"), value={}, expected=0)], now=NOW)
    (once,) = store.query("once", now=NOW)
    argv = [sys.executable, "-c", TAKE, str(path), str(once.version), str(time.time() + 1.5)]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    won = [int(process.communicate(timeout=60)[0]) for process in running]
    assert [process.returncode for process in running] == [0] * 4
    assert sum(won) == 1
    assert len(store.query("w", now=NOW)) == 1
    store.close()


def test_four_processes_may_start_on_nothing_at_once(path: Path) -> None:
    code = (
        "import sys; from credx.broker.stores.sqlite import *\n"
        "s = SqliteStore(sys.argv[1])\n"
        "for n in range(10): s.apply([Put(key=Key(sys.argv[2], str(n)), value={}, expected=0)], now=0)"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    store = SqliteStore(path)
    versions = [item.version for n in range(4) for item in store.query(str(n), now=0)]
    assert len(versions) == len(set(versions)) == 40
    store.close()
