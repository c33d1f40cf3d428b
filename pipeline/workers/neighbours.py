"""The comparison of item neighbours on the cluster: one worker, beside whatever else runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from item_llm import EncoderConfig
from pipeline.neighbours import write_neighbours
from pipeline.prepare import CORPUS
from pipeline.stages import StageContext
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.launch import Member, run_in_one_worker
from pipeline.workers.progress_board import Reporter


def neighbours_on_cluster(
    encoder: EncoderConfig, compute: ComputeConfig, context: StageContext
) -> dict[str, Any]:
    """Write neighbours.json to the stage's output; returns facts for the run card."""
    settings = {
        "output": context.output,
        "corpus": context.inputs["corpus"] / CORPUS,
        "tuned": context.inputs["vectors"],
        "untuned": context.inputs.get("vectors_frozen"),
        "encoder": encoder,
    }
    return run_in_one_worker(_compare, settings, compute, context.progress)


def _compare(settings: Mapping[str, Any], member: Member, report: Reporter) -> None:
    write_neighbours(**settings)
