"""Encoding item texts on the cluster: many encoders (Ray Data actors), one committer (the driver).

Several processes that write one table at once leave duplicates in it, so the actors only encode;
their vectors come back in batches and the driver commits them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from item_llm import EncoderConfig
from pipeline.progress import StageProgress
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.launch import Member, run_in_one_worker
from pipeline.workers.progress_board import Reporter

_BATCH_TEXTS = 256


class _EncodingActor:
    """One encoder, loaded once and used for many batches."""

    def __init__(self, encoder: Mapping[str, Any], adapter: str | None, threads: int) -> None:
        import torch

        from item_llm import ItemEncoder

        torch.set_num_threads(threads)
        folder = Path(adapter) if adapter else None
        self._encoder = ItemEncoder.load(EncoderConfig.model_validate(encoder), folder)

    def __call__(self, batch: pa.Table) -> pa.Table:
        vectors = self._encoder.encode(batch["text"].to_pylist())
        flat = pa.array(vectors.reshape(-1), pa.float32())
        fixed = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        return batch.append_column("vector", fixed)


def encode_on_cluster(
    texts: Sequence[str],
    encoder: EncoderConfig,
    adapter: Path | None,
    compute: ComputeConfig,
    progress: StageProgress,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Encode distinct texts in batches as they are finished, in no fixed order.

    Args:
        texts: n normalised texts.
        encoder: which encoder; every actor loads it.
        adapter: folder of its fine-tuned adapter, or None for the frozen encoder.
        compute: how many actors, and of what size.
        progress: told the share of the texts' characters that is encoded.

    Yields:
        (texts, float32 [len(texts), d]).
    """
    if not texts:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Long texts first and like with like: no padding within a batch, no straggler at the end.
    ordered = sorted(texts, key=len, reverse=True)
    total, done = sum(map(len, ordered)), 0
    actors = min(compute.workers, len(ordered))
    blocks = max(actors, -(-len(ordered) // _BATCH_TEXTS))
    encoded = (
        ray.data.from_arrow(pa.table({"text": pa.array(ordered, pa.string())}))
        .repartition(blocks)
        .map_batches(
            _EncodingActor,
            fn_constructor_args=(
                encoder.model_dump(mode="json"),
                str(adapter) if adapter else None,
                compute.cpus_per_worker,
            ),
            batch_size=_BATCH_TEXTS,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=compute.cpus_per_worker,
            num_gpus=compute.gpus_per_worker or None,
        )
    )
    for batch in encoded.iter_batches(batch_size=None, batch_format="pyarrow"):
        names, vectors = batch["text"].to_pylist(), _matrix(batch["vector"])
        done += sum(map(len, names))
        progress.update(done, total, "chars", f"{len(texts):,} texts")
        yield names, vectors


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    combined = column.combine_chunks()
    flat = combined.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(len(combined), -1)


def describe_encoder(
    encoder: EncoderConfig, adapter: Path | None, compute: ComputeConfig, progress: StageProgress
) -> dict[str, Any]:
    """An encoder's `fingerprint` (hex) and `dim`, found by loading it on a worker.

    Raises:
        ValueError: the base or the adapter is absent or damaged, or they do not fit.
    """
    settings = {"encoder": encoder, "adapter": adapter}
    return run_in_one_worker(_describe, settings, compute, progress)


def _describe(settings: Mapping[str, Any], member: Member, report: Reporter) -> dict[str, Any]:
    from item_llm import ItemEncoder

    encoder = ItemEncoder.load(settings["encoder"], settings["adapter"])
    return {"fingerprint": encoder.fingerprint, "dim": encoder.dim}
