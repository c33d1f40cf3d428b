"""One trial of a search: trained from rung to rung, judged by validation NDCG@10; no word of Ray.

    TRIALS/0003/trial.json    the trial's record, written after each epoch
    TRIALS/0003/DOMAIN/       checkpoints, until the trial is over

A trial that was killed goes on from its checkpoints. Test targets are never ranked.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipeline.search_space import TrialPlan
from pipeline.task_data import TaskData
from pipeline.tracking.records import Figures
from pipeline.user_model_task import TaskFolders, UserModelTask
from pipeline.user_models import train_user_model
from pipeline.whole_files import read_json, write_json
from user_model import Workers

METRIC = "ndcg@10"
_RECORD = "trial.json"


class TaskRecord(BaseModel):
    """How far one training of a trial is: epochs done, its best figure so far, and when."""

    model_config = ConfigDict(extra="forbid")

    epochs: int = 0
    best: float | None = None
    best_epoch: int = 0
    done: bool = False


class TrialRecord(BaseModel):
    """What became of a trial.

    Attributes:
        status: running; stopped: others were better at a rung; complete: trained to its end, by
            its epochs or by its patience; failed: see `error`.
        tasks: by domain; `all` where the model is joint.
        rungs: epoch -> mean over the tasks of the best validation NDCG@10 until then.
        seconds, cpu_seconds: training and validation, of the trial's process.
    """

    model_config = ConfigDict(extra="forbid")

    number: int
    values: dict[str, Any]
    status: Literal["running", "stopped", "complete", "failed"] = "running"
    error: str | None = None
    tasks: dict[str, TaskRecord] = {}
    rungs: dict[int, float] = {}
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def best(self) -> float | None:
        """Mean over the tasks of the best NDCG@10; None until each has one."""
        found = [task.best for task in self.tasks.values()]
        known = [figure for figure in found if figure is not None]
        return fmean(known) if known and len(known) == len(found) else None

    @property
    def epochs(self) -> int:
        """Epochs trained, over all tasks."""
        return sum(task.epochs for task in self.tasks.values())


class TrialFolder:
    """Where a trial's record and checkpoints stand."""

    def __init__(self, trials: Path, plan: TrialPlan) -> None:
        self.path, self._plan = trials / f"{plan.number:04d}", plan

    def read(self) -> TrialRecord:
        """The record; a fresh one where the trial has not begun."""
        if (self.path / _RECORD).is_file():
            return TrialRecord.model_validate(read_json(self.path / _RECORD))
        tasks = {scope_of(task): TaskRecord() for task in self._plan.tasks}
        return TrialRecord(number=self._plan.number, values=dict(self._plan.values), tasks=tasks)

    def write(self, record: TrialRecord) -> None:
        """Put the record in the place of the one before."""
        write_json(self.path / _RECORD, record.model_dump(mode="json"))

    def end(self, status: Literal["stopped", "failed"], error: str | None = None) -> TrialRecord:
        """Close a trial that has not closed itself, and drop its checkpoints."""
        record = self.read()
        if record.status == "running":
            record.status, record.error = status, error
            self.write(record)
        for task in self._plan.tasks:
            shutil.rmtree(self.path / scope_of(task), ignore_errors=True)
        return record


def scope_of(task: UserModelTask) -> str:
    """What a task's record goes by."""
    return task.domain or "all"


def run_trial(
    plan: TrialPlan,
    folders: TaskFolders,
    rungs: Sequence[int],
    trials: Path,
    report: Callable[[int, float], None],
) -> None:
    """Train all tasks of a trial from rung to rung; a second call goes on where it stood.

    Several domains are trained in turn, each to the rung, and then judged together. What goes
    wrong is the trial's result and stands in its record: a rate that is too high is no error.

    Args:
        plan: its values and trainings.
        folders: the corpus and the vectors.
        rungs: epochs at which it is judged, ascending; the last is the end.
        trials: the folder of all trials.
        report: told of each rung and the NDCG@10 there; it may not return, if others were better.
    """
    folder = TrialFolder(trials, plan)
    trial = _Trial(folder, folders)
    if trial.record.status != "running":
        return
    for rung in (rung for rung in rungs if rung not in trial.record.rungs):
        try:
            figure = trial.advance(plan.tasks, rung)
        except Exception as error:
            trial.record.error = f"{type(error).__name__}: {error}"
            trial.record.status = "failed"
            trial.save()
            return
        report(rung, figure)


class _PauseTraining(Exception):  # noqa: N818 - no error: the training goes on from its checkpoint
    pass


class _Trial:
    """A trial in this process."""

    def __init__(self, folder: TrialFolder, folders: TaskFolders) -> None:
        self.folder, self.folders = folder, folders
        self.record = folder.read()
        self._clock, self._cpu = time.perf_counter(), time.process_time()

    def advance(self, tasks: Sequence[UserModelTask], rung: int) -> float:
        """Train each task to the rung; returns the mean of their best figures."""
        for task in tasks:
            self._train(task, rung)
        figure = self.record.best
        assert figure is not None, "the first rung is not before the first validation"
        self.record.rungs[rung] = figure
        if all(task.done for task in self.record.tasks.values()):
            self.record.status = "complete"
        self.save()
        return figure

    def save(self) -> None:
        """Write the record, with the time since it was written last."""
        clock, cpu = time.perf_counter(), time.process_time()
        self.record.seconds += clock - self._clock
        self.record.cpu_seconds += cpu - self._cpu
        self._clock, self._cpu = clock, cpu
        self.folder.write(self.record)

    def _train(self, task: UserModelTask, rung: int) -> None:
        mine = self.record.tasks[scope_of(task)]
        if mine.done or mine.epochs >= rung:
            return

        def on_epoch(done: float, total: float, unit: str, remark: str, figures: Figures) -> None:
            mine.epochs = int(done)
            _keep_best(mine, figures.values.get(METRIC))
            self.save()
            if rung <= done < total:
                raise _PauseTraining  # its checkpoint is written before this is called

        output = self.folder.path / scope_of(task)
        data = TaskData(task, self.folders)
        with suppress(_PauseTraining):
            facts = train_user_model(data, Workers(), output, output / "scratch", on_epoch)
            mine.epochs, mine.best_epoch = facts["epochs"], facts["best_epoch"]
            mine.best, mine.done = facts[f"validation_{METRIC}"], True


def _keep_best(record: TaskRecord, figure: float | None) -> None:
    if figure is None:
        return
    if not math.isfinite(figure):
        raise ValueError(f"validation: got {METRIC} {figure}, expected users with such events")
    if record.best is None or figure > record.best:
        record.best, record.best_epoch = figure, record.epochs
