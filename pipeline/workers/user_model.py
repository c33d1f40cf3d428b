"""User models on the cluster: the joint one in a group of workers, the others one worker each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.prepare import CORPUS
from pipeline.stage_names import train_stage
from pipeline.stages import StageContext
from pipeline.storage.site import StageFolders
from pipeline.task_data import TaskData
from pipeline.user_model_task import TaskFolders, UserModelTask
from pipeline.user_models import WEIGHTS, rank_with_user_model, train_user_model
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.launch import run_in_group, run_in_one_worker
from pipeline.workers.progress_board import Reporter
from pipeline.workers.work import Member
from user_model import Workers


def train_on_cluster(
    task: UserModelTask, compute: ComputeConfig, context: StageContext
) -> dict[str, Any]:
    """Train a task's model: over all workers if it is joint, else in one; returns its facts."""
    run = run_in_group if task.domain is None else run_in_one_worker
    return run(_train, {"task": task}, compute, context.progress, context.on_workers)


def rank_on_cluster(
    task: UserModelTask, compute: ComputeConfig, context: StageContext
) -> dict[str, Any]:
    """Rank the test targets with the weights that the task's training stage left."""
    return run_in_one_worker(_rank, {"task": task}, compute, context.progress, context.on_workers)


def task_folders(inputs: Mapping[str, Path]) -> TaskFolders:
    """Where a stage that trains finds the corpus and, if it reads text, the item vectors."""
    vectors = [path for name, path in inputs.items() if name.startswith("vectors")]
    return TaskFolders(corpus=inputs["corpus"] / CORPUS, vectors=vectors[0] if vectors else None)


def _train(settings: Mapping[str, Any], member: Member, report: Reporter) -> dict[str, Any]:
    folders: StageFolders = settings["folders"]
    data = TaskData(settings["task"], task_folders(folders.inputs))
    workers = Workers(member.rank, member.size)
    return train_user_model(
        *(data, workers, folders.output, folders.scratch, report),
        on_checkpoint=folders.keep,
        should_stop=report.stopping,
    )


def _rank(settings: Mapping[str, Any], member: Member, report: Reporter) -> None:
    task, folders = settings["task"], settings["folders"]
    weights = folders.inputs[train_stage(task.model, task.domain)] / WEIGHTS
    data = TaskData(task, task_folders(folders.inputs))
    rank_with_user_model(data, weights, folders.output)
