"""User models on the cluster: the joint one in a group of workers, the others one worker each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.prepare import CORPUS
from pipeline.stages import StageContext
from pipeline.task_data import TaskData
from pipeline.user_model_task import TaskFolders, UserModelTask
from pipeline.user_models import WEIGHTS, rank_with_user_model, train_user_model
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.launch import Member, run_in_group, run_in_one_worker
from pipeline.workers.progress_board import Reporter
from user_model import Workers


def train_on_cluster(
    task: UserModelTask, compute: ComputeConfig, context: StageContext
) -> dict[str, Any]:
    """Train a task's model: over all workers if it is joint, else in one; returns its facts."""
    settings = _settings(task, context) | {"scratch": context.scratch}
    run = run_in_group if task.domain is None and compute.workers > 1 else run_in_one_worker
    return run(_train, settings, compute, context.progress)


def rank_on_cluster(
    task: UserModelTask, compute: ComputeConfig, context: StageContext
) -> dict[str, Any]:
    """Rank the test targets with the weights that the task's training stage left."""
    scope = task.model if task.domain is None else f"{task.model}.{task.domain}"
    weights = context.inputs[f"train.{scope}"] / WEIGHTS
    settings = _settings(task, context) | {"weights": weights}
    return run_in_one_worker(_rank, settings, compute, context.progress)


def task_folders(context: StageContext) -> TaskFolders:
    """Where a stage that trains finds the corpus and, if it reads text, the item vectors."""
    vectors = [path for name, path in context.inputs.items() if name.startswith("vectors")]
    return TaskFolders(
        corpus=context.inputs["corpus"] / CORPUS, vectors=vectors[0] if vectors else None
    )


def _settings(task: UserModelTask, context: StageContext) -> dict[str, Any]:
    return {"task": task, "folders": task_folders(context), "output": context.output}


def _train(settings: Mapping[str, Any], member: Member, report: Reporter) -> dict[str, Any]:
    data = TaskData(settings["task"], settings["folders"])
    workers = Workers(member.rank, member.size)
    return train_user_model(data, workers, settings["output"], settings["scratch"], report)


def _rank(settings: Mapping[str, Any], member: Member, report: Reporter) -> None:
    data = TaskData(settings["task"], settings["folders"])
    rank_with_user_model(data, settings["weights"], settings["output"])
