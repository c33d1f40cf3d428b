"""The item LLM's fine-tuning on the cluster: DeepSpeed ZeRO inside a Ray Train group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from item_llm import ItemLLMConfig, ItemPairs
from pipeline.corpus import Corpus
from pipeline.finetuning_curve import FinetuningCurve
from pipeline.history_model import HistoryModel
from pipeline.pairs import PairsConfig, next_item_pairs
from pipeline.prepare import CORPUS
from pipeline.splits import SplitConfig, assign_roles
from pipeline.stages import StageContext
from pipeline.storage.site import StageFolders
from pipeline.tracking.records import Figures
from pipeline.whole_files import write_json
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.launch import run_in_group
from pipeline.workers.progress_board import Reporter
from pipeline.workers.work import Member

ADAPTER = "adapter"
ADAPTER_RESULT = "finetuning.json"


def finetune_in_group(
    config: ItemLLMConfig,
    pairs: PairsConfig,
    split: SplitConfig,
    compute: ComputeConfig,
    context: StageContext,
) -> dict[str, Any]:
    """Fine-tune over all workers; worker 0 writes the adapter and the curve.

    Args:
        config: base, LoRA and schedule.
        pairs: how many pairs of each domain, and whose are held out.
        split: decides which events may train.
        compute: the group's size.
        context: the stage's folders.

    Returns:
        The adapter's hash, and the elements of optimizer state on each worker.
    """
    settings = {"config": config, "pairs": pairs, "split": split}
    return run_in_group(_finetune, settings, compute, context.progress, context.on_workers)


def _finetune(settings: Mapping[str, Any], member: Member, report: Reporter) -> dict[str, Any]:
    from item_llm.finetuning_config import total_steps
    from item_llm.training import finetune

    config: ItemLLMConfig = settings["config"]
    folders: StageFolders = settings["folders"]
    scratch = folders.scratch / "checkpoints"
    corpus = Corpus.open(folders.inputs["corpus"] / CORPUS)
    pairs, held_out = _corpus_pairs(corpus, settings)
    total = total_steps(config.finetuning, len(pairs))
    curve = FinetuningCurve(scratch / "steps.jsonl")

    def on_step(step: int, loss: float, rate: float) -> None:
        if member.rank == 0:
            curve.append(step, loss, rate)
            figures = Figures({"loss": loss, "lr": rate}, step)
            report(step, total, "steps", f"loss {loss:.3f}", figures)

    result = finetune(
        config,
        pairs,
        held_out,
        corpus.texts,
        folders.output / ADAPTER,
        workers=member.size,
        on_step=on_step,
        checkpoint_dir=scratch,
        on_checkpoint=folders.keep,
        sequence_model=HistoryModel,
        domain_names=[domain.name for domain in corpus.domains],
        should_stop=report.stopping,
    )
    if member.rank == 0:
        write_json(folders.output / ADAPTER_RESULT, _for_report(result.to_json(), curve.read()))
    facts = {
        "adapter_sha256": result.adapter_sha256,
        "optimizer_elements": result.optimizer_elements,
        "optimizer_elements_unsharded": result.optimizer_elements_unsharded,
    }
    return facts | ({"skipped_steps": result.skipped_steps} if result.skipped_steps else {})


def _corpus_pairs(corpus: Corpus, settings: Mapping[str, Any]) -> tuple[ItemPairs, ItemPairs]:
    """The corpus's training and held-out pairs, as the item LLM takes them."""
    roles = assign_roles(corpus, settings["split"])
    seed = settings["config"].finetuning.seed
    whole = settings["config"].finetuning.objective == "histories"
    sides = next_item_pairs(corpus, roles, settings["pairs"], seed=seed, whole_histories=whole)
    train, held_out = (
        ItemPairs(side.first, side.second, side.domains.astype(np.int64), side.users)
        for side in sides
    )
    return train, held_out


def _for_report(result: dict[str, Any], curve: list[dict[str, float]]) -> dict[str, Any]:
    """The result as the report reads it: without paths and times."""
    held_out = {
        "pairs": result["held_out_pairs"],
        "before": result["before"],
        "after": result["after"],
    }
    kept = ("base", "adapter_sha256", "mean_cosine", "zero_stage", "workers", "pairs")
    sharding = ("optimizer_elements", "optimizer_elements_unsharded", "weight_elements")
    facts = {name: result[name] for name in (*kept, *sharding, "temperature")}
    return facts | {"steps": curve, "held_out": held_out}
