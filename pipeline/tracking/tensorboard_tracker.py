"""TensorBoard: event files in RUN/tensorboard, by tensorboardX, which needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.tracking.records import Record, Status, TrackedRun


class TensorBoardTracker:
    """A `Tracker`; look at it with `tensorboard --logdir RUN/tensorboard`."""

    def start(self, run: TrackedRun) -> None:
        """Open a new event file and put the run's parameters into it as a table."""
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(logdir=str(run.folder / "tensorboard"), flush_secs=10)
        self._writer.add_text("run", _table(run.parameters))

    def log(self, record: Record) -> None:
        """Each value as a scalar; what has no step is drawn at 0."""
        for name, value in record.named().items():
            self._writer.add_scalar(name, value, record.figures.step or 0, walltime=record.time)

    def finish(self, status: Status, parameters: Mapping[str, str]) -> None:
        """Add what the run's end told, and close the file."""
        self._writer.add_text("end", _table({"status": status, **parameters}))
        self._writer.close()


def _table(parameters: Mapping[str, str]) -> str:
    """A Markdown table; TensorBoard itself removes unsafe HTML from it."""
    rows = [f"| {n} | {v.replace('|', '&#124;')} |" for n, v in parameters.items()]
    return "\n".join(["| parameter | value |", "|---|---|", *rows])
