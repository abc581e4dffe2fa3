"""Clients of `benchmarks.serving`: a closed loop finds what a service can do, an open one what load does to it."""

import asyncio
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

_TIMEOUT = aiohttp.ClientTimeout(total=120)


@dataclass
class Outcome:
    """What a run of requests came to.

    Attributes:
        seconds: it took.
        statuses: answers by status; 0 where there was none.
        accepted_s: from the time a request was due to its answer, of those answered with 200.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    accepted_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Maps a second."""
        return self.statuses[200] / self.seconds

    def percentile_ms(self, share: float) -> float:
        """Of the time of what was accepted; 0 where nothing was."""
        if len(self.accepted_s) < 2:
            return 0.0
        return 1000 * statistics.quantiles(self.accepted_s, n=1000, method="inclusive")[round(share * 1000) - 1]


def closed_loop(url: str, picture: bytes, clients: int, seconds: float) -> Outcome:
    """So many clients, each of which asks again as soon as it is answered."""

    async def run() -> Outcome:
        outcome = Outcome()
        async with _session() as session:
            start = time.monotonic()

            async def client() -> None:
                while time.monotonic() - start < seconds:
                    await _ask(session, url, picture, time.monotonic(), outcome)

            await asyncio.gather(*(client() for _ in range(clients)))
            outcome.seconds = time.monotonic() - start
        return outcome

    return asyncio.run(run())


def open_loop(url: str, picture: bytes, rate: float, seconds: float, seed: int = 0) -> Outcome:
    """Requests at random times, `rate` a second on average, whether the ones before are answered or not."""

    async def run() -> Outcome:
        outcome, chance = Outcome(), random.Random(seed)  # noqa: S311
        asked: set[asyncio.Task[None]] = set()
        async with _session() as session:
            start = due = time.monotonic()
            while due - start < seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                task = asyncio.create_task(_ask(session, url, picture, due, outcome))
                asked.add(task)
                task.add_done_callback(asked.discard)
                due += chance.expovariate(rate)
            await asyncio.gather(*asked)
            outcome.seconds = time.monotonic() - start
        return outcome

    return asyncio.run(run())


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=_TIMEOUT, connector=aiohttp.TCPConnector(limit=0))


async def _ask(session: aiohttp.ClientSession, url: str, picture: bytes, due: float, outcome: Outcome) -> None:
    try:
        async with session.post(url, data=picture, headers={"Content-Type": "image/jpeg"}) as answer:
            await answer.read()
            status = answer.status
    except (aiohttp.ClientError, TimeoutError):
        status = 0
    outcome.statuses[status] += 1
    if status == 200:
        outcome.accepted_s.append(time.monotonic() - due)
