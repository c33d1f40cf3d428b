"""A search from its files to its results: prepare the data once, run the trials, write OUT.

    OUT/tune.json    all trials, the best, and what the search took
    OUT/best.yaml    the config with the best values, for jobs/multidomain.py

The search is a stage of the run store: done, it is reused; killed, its trials go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import RunStore
from pipeline.config import RunConfig
from pipeline.locks import exclusive_lock
from pipeline.paths import data_root, project_root, resolve
from pipeline.progress import Progress
from pipeline.recipe import Recipe, RecipeBuilder
from pipeline.run import places
from pipeline.search_config import SearchConfig, load_search
from pipeline.search_results import best_trial, best_yaml, search_results, trial_results
from pipeline.search_space import TrialPlan, plan_trials, search_domains
from pipeline.stages import Runner, Stage, StageContext, in_order
from pipeline.storage.site import SharedSite
from pipeline.whole_files import read_json, write_json, write_text
from pipeline.workers.cluster import ComputeConfig, connected
from pipeline.workers.search import SearchOnCluster, check_one_node, run_search
from pipeline.workers.user_model import task_folders

TUNE = "tune.json"
BEST = "best.yaml"
_TRIALS = "trials.json"
_LOCK = ".lock"


@dataclass(frozen=True)
class SearchOutcome:
    """A finished search: its folder, and what its tune.json holds."""

    folder: Path
    results: Mapping[str, Any]


def run_tuning(
    config: RunConfig, space: Path, out: Path | None, progress: Progress
) -> SearchOutcome:
    """Run the trials that are not over, and write the results.

    Args:
        config: what the values are put over; its domains, split, seed, store and workers count.
        space: the search's file.
        out: folder of the results; None: runs/NAME/tune/MODEL in the project.
        progress: where to say how far it is.

    Raises:
        ValueError: something for the user to mend, in the search's file, the config or the data.
        BusyError: another process writes to the same folder.
        Interrupted: the process was told to stop; the same call goes on.
    """
    search = load_search(space)
    plans = plan_trials(search, config, str(space))
    searched = _searched(search, config, str(space))
    store, run = places(config, None)
    folder = resolve(out, project_root()) if out else run.path / "tune" / search.model
    recipe = RecipeBuilder(searched, data_root(), store.address).build()
    stage = search_stage(search, plans, recipe, config.compute)
    with exclusive_lock(folder / _LOCK, wait=False), progress.running():
        trials = _run(stage, recipe, store, config.compute, progress)
    results = search_results(search, searched, plans[0].tasks[0].training.epochs, trials)
    write_json(folder / TUNE, results)
    write_text(folder / BEST, best_yaml(search, config, results))
    return SearchOutcome(folder, results)


def search_stage(
    search: SearchConfig, plans: Sequence[TrialPlan], recipe: Recipe, compute: ComputeConfig
) -> Stage:
    """The search as a stage: its trials' values and trainings decide it, not how many run at once.

    Args:
        search: when trials are compared.
        plans: the trials.
        recipe: the stages of a run of the one model: corpus and vectors are read.
        compute: how many trials at once, and of what size.
    """
    rungs = search.rungs(plans[0].tasks[0].training.epochs)

    def make(context: StageContext) -> Mapping[str, Any]:
        if not isinstance(context.on_workers, SharedSite):
            check_one_node()
        on_cluster = SearchOnCluster(
            plans,
            rungs,
            search.reduction,
            task_folders(context.inputs),
            context.scratch / "trials",
            context.scratch / "ray",
        )
        trials = trial_results(plans, run_search(on_cluster, compute, context.progress))
        best = best_trial(trials)
        write_json(context.output / _TRIALS, trials)
        return {"trials": len(trials), "best": best["number"]}

    decides = {
        "rungs": rungs,
        "reduction": search.reduction,
        "values": [plan.values for plan in plans],
        "trials": [[task.training_recipe() for task in plan.tasks] for plan in plans],
    }
    inputs = (recipe.corpus, *recipe.vectors.values())
    return Stage(f"tune.{search.model}", decides, make, inputs, slots=compute.workers)


def _searched(search: SearchConfig, config: RunConfig, file: str) -> RunConfig:
    """The config with the search's model and domains alone."""
    names = search_domains(search, config, file)
    domains = tuple(domain for domain in config.domains if domain.name in names)
    return config.model_copy(update={"models": (search.model,), "domains": domains})


def _run(
    stage: Stage, recipe: Recipe, store: RunStore, compute: ComputeConfig, progress: Progress
) -> list[dict[str, Any]]:
    progress.expect([each.name for each in in_order([stage])])
    runner = Runner(store, progress, slots=compute.workers)
    # The data before Ray: what is wrong with them is said at once.
    runner.run([recipe.corpus])
    with connected(compute):
        done = runner.run([stage])
    trials: list[dict[str, Any]] = read_json(done[stage.name].artifact.path / _TRIALS)
    return trials
