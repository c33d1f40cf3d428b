"""The item LLM's two stages: fine-tune it on next-item pairs, then encode what is missing."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from item_llm import ItemLLMConfig
from item_llm.adapter import read_adapter_sha256
from item_llm.base_models import PretrainedModel
from item_llm.cache import EmbeddingCache
from pipeline.config import RunConfig
from pipeline.corpus import Corpus
from pipeline.prepare import CORPUS
from pipeline.snapshots import write_encoder
from pipeline.stages import StageContext
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.encode import describe_encoder, encode_on_cluster
from pipeline.workers.item_llm import finetune_in_group

ADAPTER = "adapter"
ADAPTER_RESULT = "finetuning.json"


def finetune_on_cluster(config: RunConfig, context: StageContext) -> dict[str, Any]:
    """Train the adapter on all domains' training pairs; returns facts for the run card."""
    folders = {
        "corpus": context.inputs["corpus"] / CORPUS,
        "adapter": context.output / ADAPTER,
        "scratch": context.scratch / "checkpoints",
        "result": context.output / ADAPTER_RESULT,
    }
    llm = config.item_llm
    seeded = llm.finetuning.model_copy(update={"seed": llm.finetuning.seed + config.seed})
    llm = llm.model_copy(update={"finetuning": seeded})
    return finetune_in_group(
        llm, config.pairs, config.split, folders, config.compute, context.progress
    )


def encode_corpus(
    config: ItemLLMConfig, compute: ComputeConfig, cache_folder: Path, context: StageContext
) -> dict[str, Any]:
    """Encode the texts that the cache lacks and write the corpus's dense snapshot.

    Returns:
        How many distinct texts were encoded and how many reused.
    """
    corpus = Corpus.open(context.inputs["corpus"] / CORPUS)
    adapter = config.adapter
    if "item_llm" in context.inputs:
        adapter = context.inputs["item_llm"] / ADAPTER
    encoder = describe_encoder(config.encoder, adapter, compute, context.progress)
    cache = EmbeddingCache.open(cache_folder, encoder["fingerprint"], encoder["dim"])
    texts = list(dict.fromkeys(corpus.texts))
    missing = cache.missing(texts)
    context.progress.note(f"{len(missing):,} texts to encode, {len(cache):,} in the cache")
    batches = encode_on_cluster(missing, config.encoder, adapter, compute, context.progress)
    encoded = cache.commit(batches)
    counts = {"encoded": encoded, "reused": len(texts) - len(missing), "base": config.encoder.base}
    details = counts | {"version": cache.version, "dim": encoder["dim"]}
    cache.snapshot(corpus.texts, write_encoder(context.output, encoder["fingerprint"], details))
    return counts


def base_sha256(config: ItemLLMConfig) -> str:
    """Hash of the base model's weights, whatever its folder is called.

    Raises:
        ValueError: the base cannot be found; the message names what to install or to correct.
    """
    return _base_sha256(config.encoder.base)


@functools.cache  # several stages ask, and the weights are hundreds of megabytes
def _base_sha256(base: str) -> str:
    return PretrainedModel.find(base).sha256


def pinned_adapter_sha256(config: ItemLLMConfig) -> str | None:
    """Hash of the adapter that the config pins, or None.

    Raises:
        ValueError: the adapter's folder is absent or damaged.
    """
    return None if config.adapter is None else read_adapter_sha256(config.adapter)
