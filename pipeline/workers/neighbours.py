"""The comparison of item neighbours on the cluster: one worker, beside whatever else runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from item_llm import EncoderConfig
from pipeline.neighbours import write_neighbours
from pipeline.prepare import CORPUS
from pipeline.stages import StageContext
from pipeline.storage.site import StageFolders
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.launch import run_in_one_worker
from pipeline.workers.progress_board import Reporter
from pipeline.workers.work import Member


def neighbours_on_cluster(
    encoder: EncoderConfig, compute: ComputeConfig, context: StageContext
) -> dict[str, Any]:
    """Write neighbours.json to the stage's output; returns facts for the run card."""
    settings, site = {"encoder": encoder}, context.on_workers
    return run_in_one_worker(_compare, settings, compute, context.progress, site)


def _compare(settings: Mapping[str, Any], member: Member, report: Reporter) -> None:
    folders: StageFolders = settings["folders"]
    write_neighbours(
        output=folders.output,
        corpus=folders.inputs["corpus"] / CORPUS,
        tuned=folders.inputs["vectors"],
        untuned=folders.inputs.get("vectors_frozen"),
        encoder=settings["encoder"],
    )
