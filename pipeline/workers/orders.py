"""What a group of workers is to do: the driver gives one order at a time, workers look for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import ray

from pipeline.storage.site import Site
from pipeline.workers.driver_actor import on_drivers_node
from pipeline.workers.progress_board import BoardReporter
from pipeline.workers.work import Work


class Order(NamedTuple):
    """One piece of work for all workers of a group, and where to report."""

    work: Work
    settings: Mapping[str, Any]
    site: Site | None
    report: BoardReporter


class Look(NamedTuple):
    """What a worker sees: the number of the last order, the order while it is open, the end.

    The order is a reference in a tuple, which Ray hands on as it is: to keep it imports no work.
    """

    number: int
    order: tuple[ray.ObjectRef] | None
    closed: bool


class _Orders:
    def __init__(self) -> None:
        self._seen, self._starts = Look(0, None, False), 0

    def give(self, order: tuple[ray.ObjectRef]) -> None:
        self._seen = self._seen._replace(number=self._seen.number + 1, order=order)

    def take_back(self) -> None:
        self._seen = self._seen._replace(order=None)

    def close(self) -> None:
        self._seen = self._seen._replace(order=None, closed=True)

    def look(self) -> Look:
        return self._seen

    def start(self) -> None:
        self._starts += 1

    def starts(self) -> int:
        return self._starts


class Orders:
    """The orders of one group."""

    def __init__(self) -> None:
        self._actor = on_drivers_node(_Orders)

    def give(self, order: Order) -> None:
        """Driver: have it done next; the one before is over."""
        ray.get(self._actor.give.remote((ray.put(order),)))

    def take_back(self) -> None:
        """Driver: it is over; workers that start now wait for the next one."""
        ray.get(self._actor.take_back.remote())

    def close(self) -> None:
        """Driver: there are no more; the workers leave."""
        ray.get(self._actor.close.remote())

    def started(self) -> None:
        """Rank 0: the group has been started."""
        ray.get(self._actor.start.remote())

    def starts(self) -> int:
        """How often the group has been started."""
        starts: int = ray.get(self._actor.starts.remote())
        return starts

    def look(self) -> Look:
        """Worker: what there is to do."""
        seen: Look = ray.get(self._actor.look.remote())
        return seen

    @staticmethod
    def read(order: tuple[ray.ObjectRef]) -> Order:
        """Worker: the order itself."""
        content: Order = ray.get(order[0])
        return content
