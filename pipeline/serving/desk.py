"""Where replicas meet: which bundle is wanted, who has it, and what each has counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from pipeline.serving.live import Wanted
from pipeline.serving.server_metrics import Family

# A replica that has not been heard of for so long is gone: its counts leave the metrics.
GONE_SECONDS = 30.0


class Report(NamedTuple):
    """What a replica says of itself.

    Attributes:
        replica: its name.
        process: its id on its machine.
        version: of the bundle that answers.
        tried: version of the last wanted bundle that it has tried to load.
        refused: why that one could not be loaded; empty: it could.
        families: what it has counted.
    """

    replica: str
    process: int
    version: str
    tried: str
    refused: str
    families: list[Family]


class Desk:
    """The meeting point of the replicas of one server.

    Args:
        wanted: the bundle to begin with.
        clock: seconds that only grow.
    """

    def __init__(self, wanted: Wanted, clock: Callable[[], float] = time.monotonic) -> None:
        self._wanted, self._clock = wanted, clock
        self._reports: dict[str, tuple[float, Report]] = {}

    def announce(self, wanted: Wanted) -> None:
        """All replicas are to answer with this bundle from now on."""
        self._wanted = wanted

    def wanted(self) -> Wanted:
        """The bundle that replicas are to answer with."""
        return self._wanted

    def report(self, report: Report) -> Wanted:
        """Take what a replica says of itself; answer with the wanted bundle."""
        self._reports[report.replica] = (self._clock(), report)
        return self._wanted

    def reports(self) -> list[Report]:
        """The last words of every replica that is not gone."""
        oldest = self._clock() - GONE_SECONDS
        self._reports = {r: said for r, said in self._reports.items() if said[0] >= oldest}
        return [report for _, report in self._reports.values()]
