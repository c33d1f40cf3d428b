"""A run without Ray: what its workers would do is done in the driver's own process.

For debugging (a breakpoint stops where the work is), and to measure what Ray costs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.progress import StageProgress
from pipeline.tracking.records import Figures
from pipeline.workers.progress_board import Reporter
from pipeline.workers.stopping_here import listened_here, stopping_here


class _Here:
    def __init__(self, progress: StageProgress) -> None:
        self._progress = progress

    def __call__(
        self, done: float, total: float, unit: str, info: str = "", figures: Figures | None = None
    ) -> None:
        self._progress.update(done, total, unit, info)
        if figures is not None:
            self._progress.log(figures)

    def stopping(self) -> bool:
        return stopping_here()


@contextmanager
def reporting_here(progress: StageProgress) -> Iterator[Reporter]:
    """A reporter for work that runs beside its progress."""
    with listened_here():
        yield _Here(progress)
