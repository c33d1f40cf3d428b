"""Does training together help? One run a training seed, and one page about all of them.

    runs/NAME/seed-0 ..     each seed's run, as jobs/multidomain.py would leave it
    runs/NAME               metrics.json and report.html over all seeds

The data are the same for every seed, sampled users too; what a seed draws anew are the weights,
batches and negatives of the user models, and the tuning of the item LLM. A user's figures are
averaged over the seeds before anything is compared, so intervals are over users; how far the
seeds lie apart is told beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import report
from pipeline.config import RunConfig
from pipeline.progress import Progress
from pipeline.ranking import metrics_of
from pipeline.report_files import RunFiles
from pipeline.run import RunFolder, RunOutcome, execute, places
from pipeline.stages import StageResult

_RANK = "rank."

# Called with the seed, and the stage rank.MODEL[.DOMAIN] that has just been finished.
OnRanked = Callable[[int, StageResult], None]


@dataclass(frozen=True)
class TransferOutcome:
    """The combined run: its folder, and metrics.json over all seeds."""

    folder: RunFolder
    metrics: dict[str, Any]


def of_seed(config: RunConfig, seed: int) -> RunConfig:
    """The run of one training seed: other draws, but the data of the config's own seed.

    >>> from pipeline.domains import DomainConfig
    >>> shop = {"name": "shop", "source": {"format": "ids", "path": "shop.txt"}}
    >>> config = RunConfig(seed=7, domains=(DomainConfig.model_validate(shop),))
    >>> (of_seed(config, 2).seed, of_seed(config, 2).sampling_seed)
    (2, 7)
    """
    return config.model_copy(update={"seed": seed, "data_seed": config.sampling_seed})


def runs_of(
    config: RunConfig, seeds: Sequence[int], run_dir: Path | None
) -> list[tuple[RunConfig, Path]]:
    """The run of each training seed, and its folder below that of the evaluation.

    Raises:
        ValueError: no seeds, or one given twice.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: got {list(seeds)}, expected one or more, each once")
    _, folder = places(config, run_dir)
    return [(of_seed(config, seed), folder.path / f"seed-{seed}") for seed in seeds]


def evaluate(
    config: RunConfig,
    seeds: Sequence[int],
    run_dir: Path | None,
    progress: Callable[[], Progress],
    on_ranked: OnRanked,
) -> TransferOutcome:
    """Run every seed, then compare over all of them.

    Args:
        config: what to run; its own seed chooses the data.
        seeds: training seeds, all different.
        run_dir: the combined run's folder; None: runs/NAME in the project.
        progress: gives each seed's run a progress of its own.
        on_ranked: told of every ranking as soon as it is there.

    Raises:
        ValueError: no seeds, one given twice, or what `run.execute` raises.
    """
    _, folder = places(config, run_dir)
    outcomes = [
        _run(run, path, progress(), on_ranked) for run, path in runs_of(config, seeds, run_dir)
    ]
    corpus = outcomes[0].stages["corpus"].artifact.path
    metrics = metrics_of(config, corpus, [_ranked(outcome.stages) for outcome in outcomes])
    files = _combined(metrics, config, seeds, [RunFiles.read(o.folder.path) for o in outcomes])
    files.write(folder.path, report.render(files))
    return TransferOutcome(folder, files.metrics)


def _run(config: RunConfig, folder: Path, progress: Progress, on_ranked: OnRanked) -> RunOutcome:
    def on_stage(result: StageResult) -> None:
        if result.name.startswith(_RANK):
            on_ranked(config.seed, result)

    return execute(config, folder, progress, on_stage)


def _ranked(stages: Mapping[str, StageResult]) -> dict[str, Path]:
    """The output of each rank stage, by its name."""
    return {name: r.artifact.path for name, r in stages.items() if name.startswith(_RANK)}


def _combined(
    metrics: dict[str, Any], config: RunConfig, seeds: Sequence[int], runs: Sequence[RunFiles]
) -> RunFiles:
    """The first seed's files with the figures of all: curves and examples are of one training."""
    first = runs[0]
    card = first.run | {
        "name": config.name,
        "config": config.model_dump(mode="json"),
        "config_hash": config.results_hash(),
        "seeds": list(seeds),
        "seconds": round(sum(run.run["seconds"] for run in runs), 2),
    }
    return RunFiles(metrics, card, first.curves, first.data, first.examples)
