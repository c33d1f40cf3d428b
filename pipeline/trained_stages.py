"""The stages of one trained model: what is tried on validation, what is kept, how it ranks.

    train.MODEL.DOMAIN                            nothing to choose: trained once
    try.MODEL.DOMAIN.SETTINGS ── train.MODEL.DOMAIN   the best of what was tried is kept

Each candidate is a stage of its own, so one that is finished is never trained again, whichever
others stand beside it. Under the split `refit` the number of epochs is a choice too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.candidates import Settings, setting_name, variants
from pipeline.choice import Tried, as_chosen, best_of, keep
from pipeline.config import ModelName, RunConfig
from pipeline.stage_names import rank_stage, scope, train_stage
from pipeline.stages import Stage, StageContext
from pipeline.user_model_task import UserModelTask
from pipeline.user_models import TEXT_MULTIPLES
from pipeline.workers.user_model import rank_on_cluster, train_on_cluster

RANKS = 2  # version of what a rank stage writes: 2 added the examples
_NO_SETTINGS = "strict"  # of a refit, which chooses its epochs on the strict split


def trained_stage(
    model: ModelName, domain: str | None, inputs: tuple[Stage, ...], config: RunConfig
) -> Stage:
    """The stage train.MODEL[.DOMAIN], which leaves the weights to rank with.

    Args:
        model: its name.
        domain: the domain that it is trained on; None: all of them together.
        inputs: the corpus and, for models with text, the item vectors.
        config: of the run.
    """
    task = UserModelTask.of(model, domain, config)
    architecture = task.architecture
    if not architecture.candidates and config.split.kind != "refit":
        return _training(train_stage(model, domain), task, inputs, config)
    tasks = [
        (settings, task.model_copy(update={"architecture": variant}))
        for settings, variant in variants(architecture, architecture.candidates)
    ]
    return _choosing(tasks, inputs, config)


def ranking_stage(
    model: ModelName, domain: str | None, inputs: tuple[Stage, ...], config: RunConfig
) -> Stage:
    """The stage rank.MODEL[.DOMAIN]; its inputs are those of training and the trained model."""
    task = UserModelTask.of(model, domain, config)

    def make(context: StageContext) -> Mapping[str, Any]:
        trained = context.inputs[train_stage(model, domain)]
        return rank_on_cluster(as_chosen(task, trained), config.compute, context)

    name = rank_stage(model, domain)
    return Stage(name, task.ranking_recipe(), make, inputs, version=RANKS)


def _choosing(
    tasks: Sequence[tuple[Settings, UserModelTask]], inputs: tuple[Stage, ...], config: RunConfig
) -> Stage:
    """The stage that keeps the best of the tried ones, which are its inputs."""
    task, is_refit = tasks[0][1], config.split.kind == "refit"
    tries = [_trying(settings, one, inputs, config) for settings, one in tasks]

    def make(context: StageContext) -> Mapping[str, Any]:
        tried = [
            Tried.open(settings, context.inputs[stage.name])
            for (settings, _), stage in zip(tasks, tries, strict=True)
        ]
        best = best_of(tried)
        if not is_refit:
            return keep(best, tried, context.output, weights=True)
        again = tasks[tried.index(best)][1].refitting(
            best.facts["best_epoch"], best.facts.get(TEXT_MULTIPLES)
        )
        made = train_on_cluster(again, config.compute, context)
        return keep(best, tried, context.output, weights=False) | made

    recipe = {"candidates": [settings for settings, _ in tasks], "split": config.split.kind}
    slots = _slots(task, config) if is_refit else 1
    name = train_stage(task.model, task.domain)
    return Stage(name, recipe, make, (*inputs, *tries), slots=slots)


def _trying(
    settings: Settings, task: UserModelTask, inputs: tuple[Stage, ...], config: RunConfig
) -> Stage:
    name = f"try.{scope(task.model, task.domain)}.{setting_name(settings) or _NO_SETTINGS}"
    return _training(name, task.choosing(), inputs, config)


def _training(
    name: str, task: UserModelTask, inputs: tuple[Stage, ...], config: RunConfig
) -> Stage:
    def make(context: StageContext) -> Mapping[str, Any]:
        return train_on_cluster(task, config.compute, context)

    return Stage(name, task.training_recipe(), make, inputs, slots=_slots(task, config))


def _slots(task: UserModelTask, config: RunConfig) -> int:
    return config.compute.workers if task.domain is None else 1
