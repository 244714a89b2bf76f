"""An identity provider that answers slowly, or not at all, against the people of the other ones."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from support.broker_world import CI
from support.front import published

from credx.broker.front.wsgi import THREADS
from credx.errors import UnavailableError
from credx.jose import RemoteKeys
from credx.jose.keys import ROOM, ROOM_ALTOGETHER

if TYPE_CHECKING:
    from support.front import Front

SLOW = 1.0  # seconds; a real one is given up after five


def test_who_signs_in_elsewhere_is_served_while_a_provider_is_silent(front: Front) -> None:
    """HCSEC-2026-08, CVE-2026-5807: one slot that everybody needs, held by whoever comes first."""
    asked: list[str] = []
    silent = threading.Event()

    def fetch(url: str, *, deadline: float) -> bytes:
        asked.append(url)
        if url.startswith(CI):
            return published(url).replace(b"https://idp.example.com", CI.encode())
        silent.wait(SLOW)
        raise UnavailableError("silence")

    world = front.world
    world.broker.admission._keys = RemoteKeys(fetch)
    token, job = world.token(), world.job()
    with ThreadPoolExecutor(24) as threads:
        flood = [threads.submit(front.send, "GET", "/roles", token=token) for _ in range(20)]
        end = time.monotonic() + 5
        while not asked:
            assert time.monotonic() < end
            time.sleep(0.01)
        start = time.monotonic()
        served = [front.send("GET", "/roles", token=job) for _ in range(3)]
        took = time.monotonic() - start
        refused = [one.result(10) for one in flood]
        silent.set()
    assert [answer.status for answer in served] == [200, 200, 200]
    assert took < SLOW / 2
    assert {answer.status for answer in refused} == {503}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
    assert len([url for url in asked if not url.startswith(CI)]) == 1  # one fetch for all of them
    assert front.world.records() == []  # nobody was known yet


def test_some_threads_are_left_whatever_providers_do() -> None:
    assert ROOM <= THREADS // 2
    assert ROOM_ALTOGETHER < THREADS
