"""Trials on the cluster: Ray Tune runs them side by side, ASHA stops those that others beat.

What Ray Tune remembers is never read back: the trials' own records and checkpoints are, so a
search that was killed goes on with what they say.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from pipeline.progress import StageProgress
from pipeline.search_space import TrialPlan
from pipeline.search_trial import METRIC, TrialFolder, TrialRecord, run_trial
from pipeline.user_model_task import TaskFolders
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.group import dismiss_group
from pipeline.workers.work import prepare_process

# Ray Tune reads these in the driver. Each result of a trial is a rung, which ASHA must see at once.
_TUNE_DEFAULTS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a box even where it is told to be silent
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
}
# They complain that Ray Tune's own files of results are absent, which are switched off, and print a
# traceback of Ray's own where a worker dies, which is told in a sentence.
_CHATTY = ("ray.tune.analysis.experiment_analysis", "ray.tune.execution.tune_controller")
_EPOCH = "epoch"
_NUMBER = "number"


class SearchOnCluster(NamedTuple):
    """A search that is to be run.

    Attributes:
        plans: all trials, also those that are over.
        rungs: epochs at which they are compared; the last is the end.
        reduction: 1 / reduction of the trials pass a rung.
        folders: the corpus and the vectors, shared by all.
        trials: folder of their records, which all nodes see.
        scratch: a folder for Ray Tune.
    """

    plans: Sequence[TrialPlan]
    rungs: Sequence[int]
    reduction: int
    folders: TaskFolders
    trials: Path
    scratch: Path

    def records(self) -> list[TrialRecord]:
        """What is known of each trial."""
        return [TrialFolder(self.trials, plan).read() for plan in self.plans]


def check_one_node() -> None:
    """See that trials run on the driver's machine, where their records and inputs are.

    Raises:
        ValueError: this Ray has other nodes that they may run on.
    """
    mine = ray.get_runtime_context().get_node_id()
    others = [n for n in ray.nodes() if n["Alive"] and n["NodeID"] != mine]
    if any(node["Resources"].get("CPU") for node in others):
        raise ValueError(
            "store is in an object store, and this Ray has several nodes: the trials of a search "
            "write their records into a folder that all nodes see; give --store such a folder, or "
            "run on one node"
        )


def run_search(
    search: SearchOnCluster, compute: ComputeConfig, progress: StageProgress
) -> list[TrialRecord]:
    """Run the trials that are not over, `compute.workers` at once; returns all records.

    A trial whose worker dies is started again and goes on from its checkpoints, `max_failures`
    times at most; then it has failed, and the search goes on.
    """
    if compute.in_process:
        raise ValueError(
            "compute.in_process: a search runs its trials under Ray Tune; take it away"
        )
    dismiss_group()
    records = search.records()
    waiting = [record.number for record in records if record.status == "running"]
    if waiting:
        for name, value in _TUNE_DEFAULTS.items():
            os.environ.setdefault(name, value)
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        shutil.rmtree(search.scratch, ignore_errors=True)
        _tuner(search, records, waiting, compute, progress).fit()
    return search.records()


def _tuner(
    search: SearchOnCluster,
    records: Sequence[TrialRecord],
    waiting: Sequence[int],
    compute: ComputeConfig,
    progress: StageProgress,
) -> tune.Tuner:
    trainable = tune.with_parameters(_train, search=search, threads=compute.cpus_per_worker)
    resources = {"cpu": compute.cpus_per_worker, "gpu": compute.gpus_per_worker}
    return tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space={_NUMBER: tune.grid_search(list(waiting))},
        tune_config=tune.TuneConfig(
            scheduler=ResumedASHA(search.rungs, search.reduction, records),
            max_concurrent_trials=compute.workers,
            reuse_actors=False,  # a stopped trial may still be computing in its process
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(search.scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=compute.max_failures),
            callbacks=[_Follower(search, progress)],
        ),
    )


def _train(config: Mapping[str, int], search: SearchOnCluster, threads: int) -> None:
    """One trial, in a process of its own."""
    prepare_process(threads)

    def report(rung: int, figure: float) -> None:
        tune.report({_EPOCH: rung, METRIC: figure})

    plan = search.plans[config[_NUMBER]]
    run_trial(plan, search.folders, search.rungs, search.trials, report)


class _Known(NamedTuple):
    """A trial of an earlier search, as far as ASHA looks at one."""

    trial_id: str


class ResumedASHA(ASHAScheduler):
    """ASHA that knows the rungs of trials from before the search was stopped.

    Args:
        rungs: epochs at which trials are compared; the last is the end.
        reduction: 1 / reduction of the trials pass a rung.
        records: what is known of each trial.
    """

    def __init__(
        self, rungs: Sequence[int], reduction: int, records: Sequence[TrialRecord]
    ) -> None:
        super().__init__(
            time_attr=_EPOCH,
            metric=METRIC,
            mode="max",
            max_t=rungs[-1],
            grace_period=rungs[0],
            reduction_factor=reduction,
        )
        self._running = {record.number: record for record in records if record.status == "running"}
        for record in records:
            if record.status != "running":
                known = _Known(f"earlier-{record.number}")
                super().on_trial_add(None, known)
                self._recall(known, record)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take a trial in, with the rungs that it has passed already."""
        super().on_trial_add(tune_controller, trial)
        if record := self._running.get(trial.config[_NUMBER]):
            self._recall(trial, record)

    def _recall(self, trial: Any, record: TrialRecord) -> None:
        for rung, figure in record.rungs.items():
            self.on_trial_result(None, trial, {_EPOCH: rung, METRIC: figure})


class _Follower(tune.Callback):
    """Closes the records of trials that Ray Tune ends, and says how far the search is."""

    def __init__(self, search: SearchOnCluster, progress: StageProgress) -> None:
        self._folders = [TrialFolder(search.trials, plan) for plan in search.plans]
        self._records = search.records()
        self._length, self._progress = search.rungs[-1], progress

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray Tune writes down all that it is given, and progress is of this process."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: Sequence[Any], trial: Any, result: Any, **info: Any
    ) -> None:
        """The trial has come to a rung."""
        number = trial.config[_NUMBER]
        self._records[number] = self._folders[number].read()
        self._say()

    def on_trial_complete(
        self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any
    ) -> None:
        """The trial has returned, or ASHA has stopped it."""
        self._close(trial, lambda folder: folder.end("stopped"))

    def on_trial_recover(
        self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any
    ) -> None:
        """Its worker died, and another one goes on with it."""
        number = trial.config[_NUMBER]
        self._progress.note(f"the worker of trial {number} died; the trial is started again")

    def on_trial_error(
        self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any
    ) -> None:
        """Its worker died once too often."""
        error = "its worker died; see whether its memory was enough"
        self._close(trial, lambda folder: folder.end("failed", error))

    def _close(self, trial: Any, end: Callable[[TrialFolder], TrialRecord]) -> None:
        number = trial.config[_NUMBER]
        record = self._records[number] = end(self._folders[number])
        figure = "" if record.best is None else f", {METRIC} {record.best:.4f}"
        reached = max((task.epochs for task in record.tasks.values()), default=0)
        why = f": {record.error}" if record.error else ""
        self._progress.note(
            f"trial {number} {record.status} at epoch {reached} of {self._length}{figure}{why}"
        )
        self._say()

    def _say(self) -> None:
        """Count a trial that is over as a whole one, whether or not it had all its epochs."""
        length, records = self._length, self._records
        done = sum(length if r.status != "running" else max(r.rungs, default=0) for r in records)
        known = [record.best for record in records if record.best is not None]
        best = f"best {METRIC} {max(known):.4f}" if known else ""
        self._progress.update(done, length * len(records), "epochs", best)
