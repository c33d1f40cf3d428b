"""MLflow: a run in an experiment, in files of the run's folder or on a server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pipeline.tracking.records import Record, Status, TrackedRun

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_PARAMETER_CHARS = 500  # what older servers take
_BATCH = 100  # parameters in one request, by MLflow's limit


class MLflowTracker:
    """A `Tracker`.

    Args:
        uri: where MLflow keeps runs; None: files in RUN/mlruns.
        experiment: made if absent.
    """

    def __init__(self, uri: str | None, experiment: str) -> None:
        self._uri, self._experiment = uri, experiment

    def start(self, run: TrackedRun) -> None:
        """Make a run and write its parameters."""
        # MLflow 3 asks whether one means it before it writes plain files, which need no database.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(self._uri or (run.folder / "mlruns").as_uri())
        known = self._client.get_experiment_by_name(self._experiment)
        number = known.experiment_id if known else self._client.create_experiment(self._experiment)
        self._run = self._client.create_run(number, run_name=run.name).info.run_id
        self._describe(run.parameters)

    def log(self, record: Record) -> None:
        """Each value as a metric."""
        from mlflow.entities import Metric

        milliseconds, step = int(record.time * 1000), record.figures.step or 0
        metrics = [Metric(n, v, milliseconds, step) for n, v in record.named().items()]
        self._client.log_batch(self._run, metrics=metrics)

    def finish(self, status: Status, parameters: Mapping[str, str]) -> None:
        """Write what the run's end told, and end the run."""
        self._describe(parameters)
        self._client.set_terminated(self._run, _STATUS[status])

    def _describe(self, parameters: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        params: list[Any] = [Param(n, v[:_PARAMETER_CHARS]) for n, v in parameters.items()]
        for first in range(0, len(params), _BATCH):
            self._client.log_batch(self._run, params=params[first : first + _BATCH])
