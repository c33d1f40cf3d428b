"""Encoding item texts on the cluster: many encoders (Ray Data actors), one committer (the driver).

Several processes that write one table at once leave duplicates in it, so the actors only encode;
their vectors come back in batches and the driver commits them. A driver that commits slower than
they encode holds them up: Ray Data lets only so many finished batches wait.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import ray.data

from item_llm import EncoderConfig
from item_llm.refresh import Encoded
from pipeline.progress import StageProgress
from pipeline.workers.cluster import ComputeConfig
from pipeline.workers.group import dismiss_group
from pipeline.workers.poison import Attempts, encode_or_refuse

_BATCH_TEXTS = 256


class TextEncoder(Protocol):
    """What an actor asks of its encoder."""

    @property
    def dim(self) -> int:
        """The width of a vector."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, dim], in the order of `texts`."""


Load = Callable[[], TextEncoder]
LocateAdapter = Callable[[], Path | None]


class _EncodingActor:
    """One encoder, loaded once and used for many batches."""

    def __init__(self, load: Load, threads: int, attempts: Attempts | None) -> None:
        import torch

        torch.set_num_threads(threads)
        self._encoder, self._attempts = load(), attempts

    def __call__(self, batch: pa.Table) -> pa.Table:
        encoder = self._encoder
        vectors, reasons = encode_or_refuse(
            encoder.encode, batch["text"].to_pylist(), encoder.dim, self._attempts
        )
        flat = pa.array(vectors.reshape(-1), pa.float32())
        fixed = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        told = pa.array(reasons, pa.string())
        return batch.append_column("vector", fixed).append_column("reason", told)


def encode_on_cluster(
    texts: Sequence[str], load: Load, compute: ComputeConfig, progress: StageProgress
) -> Iterator[Encoded]:
    """Encode distinct texts in batches as they are finished, in no fixed order.

    A text that no encoder can make a vector of, or at which workers die, is refused; the others
    of its batch are encoded.

    Args:
        texts: n normalised texts.
        load: gives the encoder; every actor calls it once. See `encoder_loader`.
        compute: how many actors, and of what size.
        progress: told the share of the texts' characters that is encoded.

    Yields:
        Texts with their vectors, and refused texts with the reason.
    """
    if not texts:
        return
    # Long texts first and like with like: no padding within a batch, no straggler at the end.
    ordered = sorted(texts, key=len, reverse=True)
    total, done = sum(map(len, ordered)), 0
    encode = _encoded_here if compute.in_process else _encoded
    for batch in encode(ordered, load, compute):
        done += sum(map(len, batch["text"].to_pylist()))
        progress.update(done, total, "chars", f"{len(texts):,} texts")
        yield _split(batch)


def at(folder: Path | None) -> LocateAdapter:
    """Where an adapter is that all nodes see under one path; None: there is none."""
    return partial(_same, folder)


def _same(folder: Path | None) -> Path | None:
    return folder


def encoder_loader(encoder: EncoderConfig, adapter: LocateAdapter, fingerprint: str) -> Load:
    """What an actor loads: the encoder, with its adapter merged where it has one.

    Args:
        encoder: which encoder.
        adapter: gives the folder of the finished adapter on the actor's machine, or None.
        fingerprint: that the vectors are to be kept under; an actor with another raises.
    """
    return partial(_load, encoder.model_dump(mode="json"), adapter, fingerprint)


def _load(encoder: dict[str, Any], adapter: LocateAdapter, fingerprint: str) -> TextEncoder:
    from item_llm import load_encoder

    loaded = load_encoder(EncoderConfig.model_validate(encoder), adapter())
    if loaded.fingerprint != fingerprint:
        raise ValueError(
            f"the encoder on node {socket.gethostname()} has the fingerprint {loaded.fingerprint}, "
            f"the driver's has {fingerprint}: give all nodes the same files (a shared folder as "
            "encoder.base, or as HYDRAREC_MODELS)"
        )
    return loaded


def _encoded_here(ordered: list[str], load: Load, compute: ComputeConfig) -> Iterator[pa.Table]:
    encoder = _EncodingActor(load, compute.cpus_per_worker, attempts=None)
    for first in range(0, len(ordered), _BATCH_TEXTS):
        yield encoder(_table(ordered[first : first + _BATCH_TEXTS]))


def _encoded(ordered: list[str], load: Load, compute: ComputeConfig) -> Iterator[pa.Table]:
    dismiss_group()  # Ray Data wants all workers, and some for tasks of its own
    ray.data.DataContext.get_current().enable_progress_bars = False
    actors = min(compute.workers, len(ordered))
    size = min(_BATCH_TEXTS, -(-len(ordered) // actors))
    # Blocks, and no table to be split: that would be a task, for which the actors may leave no CPU.
    blocks = [_table(ordered[start : start + size]) for start in range(0, len(ordered), size)]
    attempts = Attempts()
    dataset = ray.data.from_arrow(blocks).map_batches(
        _EncodingActor,
        fn_constructor_args=(load, compute.cpus_per_worker, attempts),
        batch_size=_BATCH_TEXTS,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=compute.cpus_per_worker,
        num_gpus=compute.gpus_per_worker or None,
    )
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")
    finally:
        attempts.close()


def _table(texts: list[str]) -> pa.Table:
    return pa.table({"text": pa.array(texts, pa.string())})


def _split(batch: pa.Table) -> Encoded:
    """The texts that were encoded, with float32 [n, d], and those that were refused."""
    column = batch["vector"].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
    texts, reasons = batch["text"].to_pylist(), batch["reason"].to_pylist()
    good = [place for place, reason in enumerate(reasons) if reason is None]
    refused = [(text, why) for text, why in zip(texts, reasons, strict=True) if why is not None]
    return Encoded([texts[place] for place in good], vectors[good], refused)
