"""What a search found: tune.json with all trials, and best.yaml, a config that runs as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config import RunConfig
from pipeline.config_command import show
from pipeline.progress import clock
from pipeline.search_config import SearchConfig
from pipeline.search_space import TrialPlan, with_values
from pipeline.search_trial import METRIC, TrialRecord


def trial_results(
    plans: Sequence[TrialPlan], records: Sequence[TrialRecord]
) -> list[dict[str, Any]]:
    """The trials as tune.json has them, in order of their numbers."""
    return [_trial(plan, record) for plan, record in zip(plans, records, strict=True)]


def best_trial(trials: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The one with the highest validation NDCG@10 that did not fail; of equals the first.

    Raises:
        ValueError: all trials failed.
    """
    judged = [trial for trial in trials if trial["status"] != "failed"]
    if not judged:
        raise ValueError(f"all {len(trials)} trials failed, the first with {trials[0]['error']}")
    return max(judged, key=lambda trial: (trial[METRIC], -trial["number"]))


def search_results(
    search: SearchConfig, config: RunConfig, epochs: int, trials: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What tune.json holds.

    Args:
        search: what was searched.
        config: what the values were put over.
        epochs: of a whole trial.
        trials: of `trial_results`.
    """
    compute = config.compute
    return {
        "search": search.model_dump(mode="json", exclude_none=True),
        "domains": [domain.name for domain in config.domains],
        "metric": f"validation {METRIC}",
        "config_hash": config.results_hash(),
        "rungs": search.rungs(epochs),
        "resources": {
            "cpus_per_trial": compute.cpus_per_worker,
            "gpus_per_trial": compute.gpus_per_worker,
            "trials_at_once": compute.workers,
        },
        "budget": _budget(trials),
        "trials": list(trials),
        "best": best_trial(trials),
    }


def best_yaml(search: SearchConfig, config: RunConfig, results: Mapping[str, Any]) -> str:
    """The config with the best values, in a run of its own name.

    Args:
        search: what was searched.
        config: what the values are put over, with all its domains.
        results: of `search_results`.
    """
    best = results["best"]
    tuned = with_values(config, best["values"])
    models = tuned.models if search.model in tuned.models else (*tuned.models, search.model)
    named = tuned.model_copy(update={"name": f"{config.name}-tuned", "models": models})
    values = "".join(f"#   {path}: {value}\n" for path, value in best["values"].items())
    return (
        f"# Found by jobs/tune.py: {search.model}, trial {best['number']} of {search.trials}, "
        f"validation {METRIC} {best[METRIC]:.4f}.\n{values}{show(named)}"
    )


def described(results: Mapping[str, Any]) -> list[str]:
    """The best values and the budget, in lines of 80 columns."""
    best, budget = results["best"], results["budget"]
    counts = Counter(trial["status"] for trial in results["trials"])
    states = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    return [
        f"best: trial {best['number']}, validation {METRIC} {best[METRIC]:.4f}, with",
        *(f"  {path} {value}" for path, value in best["values"].items()),
        f"spent: {budget['trials']} trials ({states}), {budget['epochs']} epochs,",
        f"  {clock(budget['seconds'])} of trials, {clock(budget['cpu_seconds'])} of processors",
    ]


def _trial(plan: TrialPlan, record: TrialRecord) -> dict[str, Any]:
    return {
        "number": record.number,
        "status": record.status,
        "values": record.values,
        METRIC: record.best,
        "epochs": record.epochs,
        "seconds": round(record.seconds, 3),
        "cpu_seconds": round(record.cpu_seconds, 3),
        "weights": plan.weights,
        "rungs": record.rungs,
        "domains": {
            scope: {METRIC: task.best, "best_epoch": task.best_epoch, "epochs": task.epochs}
            for scope, task in record.tasks.items()
        },
        "error": record.error,
    }


def _budget(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all trials took together."""
    times = {
        name: round(sum(trial[name] for trial in trials), 3) for name in ("seconds", "cpu_seconds")
    }
    return {"trials": len(trials), "epochs": sum(trial["epochs"] for trial in trials), **times}
