"""One run from its config to its report: build the stages, run them, write the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import report
from pipeline.artifacts import RunStore
from pipeline.config import RunConfig
from pipeline.locks import exclusive_lock
from pipeline.paths import data_root, project_root, resolve
from pipeline.progress import Progress
from pipeline.recipe import Recipe, RecipeBuilder
from pipeline.report_files import METRICS, REPORT
from pipeline.run_card import run_card
from pipeline.run_details import details, gather
from pipeline.stages import Runner, StageResult, in_order
from pipeline.storage.bucket import Bucket, is_remote
from pipeline.storage.mirror import mirror_of
from pipeline.storage.results_copy import put_results
from pipeline.storage.stores import open_store
from pipeline.tracked_run import tell_results, tracked_run
from pipeline.tracking.registry import wanted
from pipeline.tracking.tracking import Tracking
from pipeline.whole_files import sweep
from pipeline.workers.cluster import connected

_LOCK = ".lock"

OnFinished = Callable[[StageResult], None]


@dataclass(frozen=True)
class RunFolder:
    """Where a run leaves its results.

    Attributes:
        path: on this machine.
        bucket: where they are copied to at the end; None: nowhere.
    """

    path: Path
    bucket: Bucket | None = None

    @classmethod
    def at(cls, place: str | Path) -> RunFolder:
        """The folder of a path (a relative one is the project's), or of an s3:// address.

        Raises:
            ValueError: an address of another kind.
        """
        if is_remote(place):
            return cls(mirror_of(str(place)), Bucket(str(place)))
        return cls(resolve(place, project_root()))

    @property
    def place(self) -> str:
        """Where people find the results."""
        return self.bucket.address if self.bucket else str(self.path)

    @property
    def report(self) -> str:
        """The page that people open."""
        return f"{self.place}/{REPORT}"

    @property
    def metrics(self) -> Path:
        """The figures: equal bytes for equal inputs."""
        return self.path / METRICS


@dataclass(frozen=True)
class RunOutcome:
    """A finished run: its folder, metrics.json, the run card's `choices`, what became of stages."""

    folder: RunFolder
    metrics: dict[str, Any]
    choices: dict[str, Any]
    stages: dict[str, StageResult]


def execute(
    config: RunConfig,
    run_dir: str | Path | None,
    progress: Progress,
    on_finished: OnFinished | None = None,
) -> RunOutcome:
    """Run all stages that are not finished yet and write the run's folder.

    Args:
        config: what to run.
        run_dir: the run's folder or s3:// address; None: runs/NAME in the project.
        progress: where to say how far it is.
        on_finished: told of each stage as its output is there, in the stage's own thread.

    Raises:
        ValueError: something for the user to mend: one clear sentence.
        BusyError: another process is writing to the same run folder.
        Interrupted: the process was told to stop; the same call goes on.
    """
    store, folder = places(config, run_dir)
    # Built before any folder is made: an absent file or a wrong name leaves nothing behind.
    recipe = RecipeBuilder(config, data_root(), store.address).build()
    tracking = Tracking(config.tracking, wanted(config.tracking), progress.warn)
    progress.follow(tracking.log)
    with (
        exclusive_lock(folder.path / _LOCK, wait=False),
        progress.running(),
        tracking.following(tracked_run(config, folder.path)),
    ):
        sweep(folder.path)
        stages, card = _run_stages(config, recipe, store, progress, on_finished)
        files = gather(recipe, stages, card)
        tell_results(tracking, files)
        files.write(folder.path, report.render(files))
    if folder.bucket is not None:
        put_results(folder.path, folder.bucket, last=METRICS)
    return RunOutcome(folder, files.metrics, files.run["choices"], stages)


def places(config: RunConfig, run_dir: str | Path | None) -> tuple[RunStore, RunFolder]:
    """Where a run keeps its stages' outputs and its results; makes neither."""
    store = open_store(config.store)
    return store, RunFolder.at(run_dir or Path("runs") / config.name)


def prepared(config: RunConfig, progress: Progress) -> Path:
    """The output of the stage corpus, made if it is not there; no Ray is started.

    Raises:
        ValueError: something in the config or the data for the user to mend.
    """
    store, _ = places(config, None)
    recipe = RecipeBuilder(config, data_root(), store.address).build()
    with progress.running():
        progress.expect([recipe.corpus.name])
        done = Runner(store, progress, slots=1).run([recipe.corpus])
    return done[recipe.corpus.name].artifact.path


def _run_stages(
    config: RunConfig,
    recipe: Recipe,
    store: RunStore,
    progress: Progress,
    on_finished: OnFinished | None,
) -> tuple[dict[str, StageResult], dict[str, Any]]:
    """Run what is not finished; returns the stages' results and the run card."""
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    progress.expect([stage.name for stage in in_order(recipe.targets)])
    runner = Runner(store, progress, slots=config.compute.workers, on_finished=on_finished)
    # The data before Ray: what is wrong with them is said at once.
    runner.run([recipe.corpus])
    with connected(config.compute):
        stages = runner.run(recipe.targets)
    found = details(recipe, stages)
    seconds = time.monotonic() - clock
    return stages, run_card(config, stages, started=started, seconds=seconds, details=found)
