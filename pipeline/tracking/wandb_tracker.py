"""Weights & Biases: online, or as files in RUN/wandb for `wandb sync` later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.tracking.records import Record, Status, TrackedRun


class WandbTracker:
    """A `Tracker`.

    Args:
        mode: "online" or "offline".
        project: the project there.
    """

    def __init__(self, mode: Literal["online", "offline"], project: str) -> None:
        self._mode, self._project = mode, project
        self._stages: set[str] = set()

    def start(self, run: TrackedRun) -> None:
        """Begin a run with the run's parameters as its config."""
        import wandb

        self._run = wandb.init(
            mode=self._mode,
            project=self._project,
            name=run.name,
            dir=str(run.folder),
            config=dict(run.parameters),
            settings=wandb.Settings(console="off", disable_code=True, x_disable_stats=True),
        )

    def log(self, record: Record) -> None:
        """Each value against its own stage's steps; what has no step goes to the summary."""
        stage, step = record.stage, record.figures.step
        if step is None:
            self._run.summary.update(record.named())
            return
        axis = f"{stage}/step"
        if stage not in self._stages:  # stages run side by side: no step counts for all of them
            self._run.define_metric(axis)
            self._run.define_metric(f"{stage}/*", step_metric=axis)
            self._stages.add(stage)
        self._run.log({**record.named(), axis: step})

    def finish(self, status: Status, parameters: Mapping[str, str]) -> None:
        """Add what the run's end told, and end the run."""
        self._run.config.update(dict(parameters), allow_val_change=True)
        self._run.finish(exit_code=0 if status == "finished" else 1)
