"""The item LLM's two stages: fine-tune it on next-item pairs, then encode what is missing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from item_llm import ItemLLMConfig
from item_llm.adapter import read_adapter_sha256
from item_llm.base_models import PretrainedModel
from item_llm.cache import EmbeddingCache
from item_llm.reading import describe_encoder
from item_llm.refresh import Encoded, in_blocks
from item_llm.snapshot import SnapshotType
from pipeline.config import RunConfig
from pipeline.corpus import Corpus
from pipeline.paths import project_root, resolve_place
from pipeline.prepare import CORPUS
from pipeline.snapshots import write_encoder
from pipeline.stages import StageContext
from pipeline.storage.bucket import is_remote
from pipeline.storage.local_copy import local_copy, on_this_machine
from pipeline.storage.site import Site
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.encode import at, encode_on_cluster, encoder_loader
from pipeline.workers.item_llm import ADAPTER, finetune_in_group


def finetune_on_cluster(config: RunConfig, context: StageContext) -> dict[str, Any]:
    """Train the adapter on all domains' training pairs; returns facts for the run card."""
    llm = config.item_llm
    seeded = llm.finetuning.model_copy(update={"seed": llm.finetuning.seed + config.seed})
    llm = llm.model_copy(update={"finetuning": seeded})
    return finetune_in_group(llm, config.pairs, config.split, config.compute, context)


def encode_corpus(
    config: ItemLLMConfig,
    compute: ComputeConfig,
    cache_folder: str,
    dtype: SnapshotType,
    context: StageContext,
) -> dict[str, Any]:
    """Encode the texts that the cache lacks and write the corpus's dense snapshot.

    Args:
        config: the encoder.
        compute: how many workers encode, and of what size.
        cache_folder: as `cache_place` gives it.
        dtype: how the snapshot stores the vectors.
        context: the stage's folders.

    Returns:
        How many distinct texts were encoded and how many reused.
    """
    corpus = Corpus.open(context.inputs["corpus"] / CORPUS)
    adapter, on_workers = pinned_adapter(config), adapter_on_workers(config)
    if "item_llm" in context.inputs:
        adapter = context.inputs["item_llm"] / ADAPTER
        on_workers = functools.partial(_tuned_adapter, context.on_workers)
    fingerprint, dim = describe_encoder(config.encoder, adapter)
    cache = EmbeddingCache.open(cache_folder, fingerprint, dim)
    texts = list(dict.fromkeys(corpus.texts))
    missing = cache.missing(texts)
    context.progress.note(f"{len(missing):,} texts to encode, {len(cache):,} in the cache")
    load = encoder_loader(config.encoder, on_workers, fingerprint)
    batches = encode_on_cluster(missing, load, compute, context.progress)
    encoded = cache.commit(in_blocks(_none_refused(batches)))
    cache.compact()
    counts = {"encoded": encoded, "reused": len(texts) - len(missing), "base": config.encoder.base}
    # The version that the run trains on stays readable, whatever is deleted later.
    details = counts | {"version": cache.tag(context.output.name), "dim": dim}
    folder = write_encoder(context.output, fingerprint, details)
    cache.snapshot(corpus.texts, folder, dtype=dtype)
    return counts


def _tuned_adapter(site: Site) -> Path:
    """The adapter of the run's own stage, on the machine that calls."""
    return site.input("item_llm") / ADAPTER


def _none_refused(batches: Iterable[Encoded]) -> Iterator[Encoded]:
    for batch in batches:
        for text, reason in batch.refused:
            raise ValueError(
                f"the text {text[:200]!r} cannot be encoded ({reason}); mend or remove it: a run "
                "needs a vector for every item"
            )
        yield batch


def cache_place(given: str | None, store: str | Path) -> str:
    """Where the cache is: an s3:// address or a folder, relative to the project; else the store's.

    Args:
        given: the config's `vectors`.
        store: the run store's folder or address.
    """
    if given is None:
        return f"{store}/vectors"
    return str(resolve_place(given, project_root()))


def base_sha256(config: ItemLLMConfig) -> str:
    """Hash of the base model's weights, whatever its folder is called.

    Raises:
        ValueError: the base cannot be found; the message names what to install or to correct.
    """
    return _base_sha256(config.encoder.base)


@functools.cache  # several stages ask, and the weights are hundreds of megabytes
def _base_sha256(base: str) -> str:
    return PretrainedModel.find(base).sha256


def pinned_adapter(config: ItemLLMConfig) -> Path | None:
    """Folder of the adapter that the config pins, or None; a relative one is the project's.

    Of one in an object store it is this machine's copy.
    """
    return None if config.adapter is None else on_this_machine(config.adapter, project_root())


def adapter_on_workers(config: ItemLLMConfig) -> Callable[[], Path | None]:
    """Where the pinned adapter is on the machine that calls: a folder that all see, or its copy."""
    if config.adapter is not None and is_remote(config.adapter):
        return functools.partial(local_copy, config.adapter)
    return at(pinned_adapter(config))


def pinned_adapter_sha256(config: ItemLLMConfig) -> str | None:
    """Hash of the adapter that the config pins, or None.

    Raises:
        ValueError: the adapter's folder is absent or damaged.
    """
    folder = pinned_adapter(config)
    return None if folder is None else read_adapter_sha256(folder)
