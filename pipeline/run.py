"""One run from its config to its report: build the stages, run them, write the run's folder."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import report
from pipeline.artifacts import RunStore, exclusive_lock, read_json, write_json, write_text
from pipeline.config import RunConfig
from pipeline.paths import data_root, project_root, resolve
from pipeline.prepare import DATA
from pipeline.progress import Progress
from pipeline.ranking import METRICS
from pipeline.recipe import Recipe, RecipeBuilder
from pipeline.results import to_json
from pipeline.run_card import run_card
from pipeline.run_details import curves, details
from pipeline.stages import Runner, StageResult, in_order
from pipeline.workers.cluster import connected

_LOCK = ".lock"


@dataclass(frozen=True)
class RunFolder:
    """Where a run leaves its results."""

    path: Path

    @property
    def report(self) -> Path:
        """The page that people open."""
        return self.path / "report.html"

    @property
    def metrics(self) -> Path:
        """The figures: equal bytes for equal inputs."""
        return self.path / "metrics.json"


@dataclass(frozen=True)
class RunOutcome:
    """A finished run."""

    folder: RunFolder
    metrics: dict[str, Any]
    stages: dict[str, StageResult]


def execute(config: RunConfig, run_dir: Path | None, progress: Progress) -> RunOutcome:
    """Run all stages that are not finished yet and write the run's folder.

    Args:
        config: what to run.
        run_dir: the run's folder; None: runs/NAME in the project.
        progress: where to say how far it is.

    Raises:
        ValueError: something for the user to mend: one clear sentence.
        BusyError: another process is writing to the same run folder.
    """
    store = RunStore(resolve(config.store, project_root()))
    folder = RunFolder(resolve(run_dir or Path("runs") / config.name, project_root()))
    # Built before any folder is made: an absent file or a wrong name leaves nothing behind.
    recipe = RecipeBuilder(config, data_root(), store.root).build()
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    with exclusive_lock(folder.path / _LOCK, wait=False), progress.running():
        targets = [*recipe.vectors.values(), recipe.metrics]
        progress.expect([stage.name for stage in in_order(targets)])
        runner = Runner(store, progress, slots=config.compute.workers)
        # The data before Ray: what is wrong with them is said at once.
        runner.run([recipe.corpus])
        with connected(config.compute):
            stages = runner.run(targets)
        seconds = time.monotonic() - clock
        found = details(recipe, stages)
        card = run_card(config, stages, started=started, seconds=seconds, details=found)
        metrics = write_results(folder, recipe, stages, card)
    return RunOutcome(folder, metrics, stages)


def write_results(
    folder: RunFolder, recipe: Recipe, stages: dict[str, StageResult], card: dict[str, Any]
) -> dict[str, Any]:
    """Write metrics.json, run.json, curves.json, data.json and report.html; returns the metrics."""
    metrics: dict[str, Any] = read_json(stages["metrics"].artifact.path / METRICS)
    data = read_json(stages["corpus"].artifact.path / DATA)
    data["split"] = card["config"]["split"]
    for name, domain in data["domains"].items():
        domain["size_group"] = metrics["domains"][name]["size_group"]
    learning = curves(recipe, stages)
    write_json(folder.path / "run.json", card)
    write_json(folder.path / "curves.json", learning)
    write_json(folder.path / DATA, data)
    write_text(folder.report, report.render(metrics, card, learning, data))
    write_text(folder.metrics, to_json(metrics))
    return metrics
