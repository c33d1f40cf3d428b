"""A run without Ray: what its workers would do is done in the driver's own process.

For debugging (a breakpoint stops where the work is), and to measure what Ray costs.
"""

from __future__ import annotations

from pipeline.progress import StageProgress
from pipeline.tracking.records import Figures
from pipeline.workers.progress_board import Reporter


def report_here(progress: StageProgress) -> Reporter:
    """A reporter for work that runs beside its progress."""

    def report(
        done: float, total: float, unit: str, info: str = "", figures: Figures | None = None
    ) -> None:
        progress.update(done, total, unit, info)
        if figures is not None:
            progress.log(figures)

    return report
