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
from pipeline.kept_ranks import KeptRanks, SeedRanks
from pipeline.progress import Progress
from pipeline.ranking import metrics_of
from pipeline.report_files import RunFiles
from pipeline.run import RunFolder, RunOutcome, execute, places, prepared
from pipeline.stage_names import is_ranking
from pipeline.stages import StageResult

# Called with the seed, and the stage rank.MODEL[.DOMAIN] that has just been finished.
OnRanked = Callable[[int, StageResult], None]


@dataclass(frozen=True)
class TransferOutcome:
    """What came of all seeds.

    Attributes:
        folder: of the combined run; None where no seed was run here, and so there is no report.
        metrics: metrics.json over all seeds.
        seconds: of each seed's stages, one after the other.
    """

    folder: RunFolder | None
    metrics: dict[str, Any]
    seconds: dict[int, float]


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
    kept: KeptRanks | None = None,
) -> TransferOutcome:
    """Run every seed, then compare over all of them.

    Args:
        config: what to run; its own seed chooses the data.
        seeds: training seeds, all different.
        run_dir: the combined run's folder; None: runs/NAME in the project.
        progress: gives each seed's run a progress of its own.
        on_ranked: told of every ranking as soon as it is there.
        kept: where the ranks of a finished seed go; a seed found there is not run. None: nowhere.

    Raises:
        ValueError: no seeds, one given twice, kept ranks that are damaged or of other data, or what
            `run.execute` raises.
    """
    _, folder = places(config, run_dir)
    found: dict[int, SeedRanks] = {}
    outcomes: list[RunOutcome] = []
    for run, path in runs_of(config, seeds, run_dir):
        ranks = kept.find(run) if kept is not None else None
        if ranks is None:
            outcomes.append(_run(run, path, progress(), on_ranked))
            ranks = SeedRanks.of(outcomes[-1].stages, outcomes[-1].metrics["data_fingerprint"])
            if kept is not None:
                kept.keep(run, ranks)
        found[run.seed] = ranks
    if outcomes:
        corpus = outcomes[-1].stages["corpus"].artifact.path
    else:
        corpus = prepared(config, progress())
    metrics = metrics_of(config, corpus, [ranks.ranked for ranks in found.values()])
    _check_data(found, metrics["data_fingerprint"])
    if outcomes:
        runs = [RunFiles.read(outcome.folder.path) for outcome in outcomes]
        files = _combined(metrics, config, found, runs)
        files.write(folder.path, report.render(files))
    seconds = {seed: ranks.seconds for seed, ranks in found.items()}
    return TransferOutcome(folder if outcomes else None, metrics, seconds)


def _check_data(found: Mapping[int, SeedRanks], data_fingerprint: str) -> None:
    for seed, ranks in found.items():
        if ranks.data_fingerprint != data_fingerprint:
            raise ValueError(
                f"the kept ranks of seed {seed} are of data {ranks.data_fingerprint[:12]}, these "
                f"are {data_fingerprint[:12]}: the sources have changed; remove the folder of the "
                "kept ranks, and every seed is run again"
            )


def _run(config: RunConfig, folder: Path, progress: Progress, on_ranked: OnRanked) -> RunOutcome:
    def on_stage(result: StageResult) -> None:
        if is_ranking(result.name):
            on_ranked(config.seed, result)

    return execute(config, folder, progress, on_stage)


def _combined(
    metrics: dict[str, Any],
    config: RunConfig,
    found: Mapping[int, SeedRanks],
    runs: Sequence[RunFiles],
) -> RunFiles:
    """The files of a seed run here with the figures of all: curves are of one training."""
    first = runs[0]
    card = first.run | {
        "name": config.name,
        "config": config.model_dump(mode="json"),
        "config_hash": config.results_hash(),
        "seeds": list(found),
        "seconds": round(sum(ranks.seconds for ranks in found.values()), 2),
    }
    return RunFiles(metrics, card, first.curves, first.data, first.examples)
