"""Sends issuances and counts what comes back: as many as are answered (``closed``), or so many a second,
answered or not (``arriving``). One thread, kept connections, nothing parsed that is not needed.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from credx.protocol import FACTORS_BEGIN_PATH, TOKEN_PATH
from support.crowd import KEPT_ROLE, ROLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from support.crowd import Somebody

    Flow = Callable[["Channel", "Somebody"], Awaitable[object]]

PATIENCE: Final = 10.0  # seconds that anybody waits for one answer
KEPT: Final = 64  # idle connections
JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"


class RefusedError(Exception):
    """An answer that ends a flow. ``told``: 429 or 503 with Retry-After."""

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        super().__init__(f"{status}: {body[:200]!r}")
        self.status = status
        self.told = status in (429, 503) and b"retry-after:" in head.lower()


class Channel(asyncio.Protocol):
    """A kept connection that carries one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None
        self._transport: asyncio.Transport | None = None
        self.closed = False

    @classmethod
    async def open(cls, port: int) -> Self:
        loop = asyncio.get_running_loop()
        _, channel = await asyncio.wait_for(loop.create_connection(cls, "127.0.0.1", port), PATIENCE)
        return channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, gap, body = bytes(self._received).partition(b"\r\n\r\n")
        if not gap or self._answer is None:
            return
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        if len(body) >= int(length or 0):
            self._received.clear()
            self._answer.set_result((int(head[9:12]), head, body))
            self._answer = None
            if b"\r\nconnection: close" in head.lower():
                self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError())

    def close(self) -> None:
        self.closed = True
        assert self._transport is not None
        self._transport.close()

    async def post(self, path: str, kind: str, body: bytes, bearer: str = "", *, expect: int = 200) -> bytes:
        """The body of the answer. Raises ``RefusedError`` for any other status than ``expect``."""
        allowed = f"authorization: Bearer {bearer}\r\n" if bearer else ""
        head = (
            f"POST {path} HTTP/1.1\r\nhost: b\r\ncontent-type: {kind}\r\n{allowed}content-length: {len(body)}"
        )
        loop = asyncio.get_running_loop()
        answer = self._answer = loop.create_future()
        late = loop.call_later(PATIENCE, self.close)
        assert self._transport is not None
        self._transport.write(head.encode("ascii") + b"\r\n\r\n" + body)
        try:
            status, head_of_answer, found = await answer
        finally:
            late.cancel()
        if status != expect:
            raise RefusedError(status, head_of_answer, found)
        return found


async def touched(channel: Channel, who: Somebody, role: str = ROLE) -> bytes:
    """Ask, begin, prove: three requests, one touch, one token."""
    step_up = json.loads(await channel.post(TOKEN_PATH, FORM, who.ask(role), expect=403))
    session = step_up["auth_session"]
    begin = b'{"purpose":"prove","auth_session":"%s"}' % session.encode()
    begun = await channel.post(FACTORS_BEGIN_PATH, JSON, begin, who.id_token)
    challenge = json.loads(begun)["public_key"]["challenge"]
    proof = b"&auth_session=%s&webauthn=%s" % (session.encode(), quote(who.touch(challenge), "").encode())
    return await channel.post(TOKEN_PATH, FORM, who.ask(role) + proof)


async def kept(channel: Channel, who: Somebody) -> None:
    """One request: an earlier touch serves."""
    if not who.factor_session:
        who.factor_session = json.loads(await touched(channel, who, KEPT_ROLE))["factor_session"]
    await channel.post(TOKEN_PATH, FORM, who.ask(KEPT_ROLE, factor_session=who.factor_session))


@dataclass
class Result:
    """``latencies`` in seconds, of whole flows that came to their end by ``until``; everything else is counted
    by its kind.
    """

    seconds: float = 0.0
    until: float = math.inf
    latencies: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    told: int = 0  # refused with 429 or 503 and Retry-After

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Milliseconds."""
        return statistics.quantiles(self.latencies, n=1000)[round(share * 1000) - 1] * 1000

    async def one(self, flow: Flow, channel: Channel, who: Somebody, since: float) -> None:
        try:
            await flow(channel, who)
        except RefusedError as refused:
            self.told += refused.told
            self.others[str(refused.status)] += 1
        except (OSError, TimeoutError) as exc:
            self.others[type(exc).__name__] += 1
        else:
            if (now := time.perf_counter()) <= self.until:
                self.latencies.append(now - since)
            else:
                self.others["after the end"] += 1


def closed(port: int, flow: Flow, people: Sequence[Somebody], *, workers: int, seconds: float) -> Result:
    """As many as ``workers`` connections get, one issuance after the other on each."""
    result = Result()

    async def work(mine: list[Somebody], end: float) -> None:
        channel = await Channel.open(port)
        while (now := time.perf_counter()) < end and not channel.closed:
            who = mine.pop(0)
            mine.append(who)
            await result.one(flow, channel, who, now)
        channel.close()

    async def run() -> None:
        started = time.perf_counter()
        end = started + seconds
        await asyncio.gather(*(work(list(people[number::workers]), end) for number in range(workers)))
        result.seconds = time.perf_counter() - started

    asyncio.run(run())
    return result


class Pool:
    """Connections as a proxy has them: as many as are needed at once, of which some are kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Channel] = []

    async def take(self) -> Channel:
        while self._idle:
            channel = self._idle.pop()
            if not channel.closed:
                return channel
        return await Channel.open(self._port)

    def give(self, channel: Channel) -> None:
        if len(self._idle) >= KEPT:
            channel.close()
        elif not channel.closed:
            self._idle.append(channel)

    def close(self) -> None:
        for channel in self._idle:
            channel.close()


def arriving(
    port: int, flow: Flow, people: Sequence[Somebody], *, rate: float, seconds: float, seed: int = 1
) -> Result:
    """``rate`` arrivals a second on average (Poisson), whatever becomes of those before. The time of each
    counts from when it was due, so that a generator that falls behind does not flatter the server.
    """
    result, pool, free = Result(), Pool(port), list(people)
    gaps = random.Random(seed)  # noqa: S311 -- the same arrivals in each run

    async def one(who: Somebody, due: float) -> None:
        try:
            channel = await pool.take()
        except (OSError, TimeoutError) as exc:
            result.others[type(exc).__name__] += 1
        else:
            await result.one(flow, channel, who, due)
            pool.give(channel)
        free.append(who)

    async def run() -> None:
        due = time.perf_counter()
        result.seconds, result.until, running = seconds, due + seconds, set()
        while due < result.until:
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            if free:
                running.add(task := asyncio.ensure_future(one(free.pop(0), due)))
                task.add_done_callback(running.discard)
            else:
                result.others["everybody is waiting already"] += 1
            due += gaps.expovariate(rate)
        await asyncio.gather(*running)
        pool.close()

    asyncio.run(run())
    return result
