"""An open-loop client: requests go out when they are due, whether or not answers have come.

A latency counts from the moment at which the request was due, so that a server (or a client) that
falls behind is not flattered by sending less.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np

_PATIENCE = 60.0
Body = dict[str, Any]


@dataclass
class Answers:
    """What came of a stretch of load.

    Attributes:
        seconds: latency of each answer of status 200, from when the request was due.
        late: how long after it was due each request went out: the client's own delay.
        failures: how often each kind of failure came.
        failed_at: seconds since the start at which failures came.
        versions: answers by the bundle's version.
    """

    seconds: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    failed_at: list[float] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)

    def quantile(self, share: float) -> float:
        """A quantile of the latencies, in milliseconds; NaN without answers."""
        return 1e3 * float(np.quantile(self.seconds, share)) if self.seconds else float("nan")

    @property
    def errors(self) -> int:
        """Requests that did not get status 200."""
        return self.failures.total()


Meanwhile = Callable[[], Awaitable[None]]


def under_load(
    address: str, bodies: Iterator[Body], rate: float, seconds: float, meanwhile: Meanwhile | None
) -> Answers:
    """Ask /recommend `rate` times a second, for `seconds` and until `meanwhile` has ended.

    Args:
        address: of the server.
        bodies: what is asked.
        rate: requests a second, evenly spaced.
        seconds: at least.
        meanwhile: what happens to the server in the meantime.
    """
    return asyncio.run(_load(address, bodies, rate, seconds, meanwhile))


async def _load(
    address: str, bodies: Iterator[Body], rate: float, seconds: float, meanwhile: Meanwhile | None
) -> Answers:
    answers, asked = Answers(), set()
    connector = aiohttp.TCPConnector(limit=0)
    patience = aiohttp.ClientTimeout(total=_PATIENCE)
    async with aiohttp.ClientSession(address, connector=connector, timeout=patience) as session:
        other = asyncio.create_task(_nothing() if meanwhile is None else _do(meanwhile))
        began = time.perf_counter()
        for number in itertools.count():
            due = began + number / rate
            if due > began + seconds and other.done():
                break
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            task = asyncio.create_task(_ask(session, next(bodies), due, began, answers))
            asked.add(task)
            task.add_done_callback(asked.discard)
        await asyncio.gather(other, *asked)
    return answers


async def _ask(
    session: aiohttp.ClientSession, body: Body, due: float, began: float, answers: Answers
) -> None:
    answers.late.append(time.perf_counter() - due)
    try:
        async with session.post("/recommend", json=body) as response:
            content = await response.json(content_type=None)
            failure = "" if response.status == 200 else f"status {response.status}"
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        failure = type(error).__name__
    if failure:
        answers.failures[failure] += 1
        answers.failed_at.append(time.perf_counter() - began)
        return
    answers.seconds.append(time.perf_counter() - due)
    answers.versions[content["bundle"]] += 1


async def _do(meanwhile: Meanwhile) -> None:
    await meanwhile()


async def _nothing() -> None:
    """Nothing happens to the server."""
