"""What a worker of a user model's training holds: counted on a small table, scaled to the real one.

Every item has its id vector, Adam's two moments of it and its text vector; every token of a batch
what the backward pass needs of it. The model itself runs, over few items and one batch, so what its
ops keep is counted as it is. Not in it: what kernels take for a moment, the CUDA context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from user_model.batching import Batches, Int64
from user_model.distributed import Workers
from user_model.ops.linear import LEAST_COMPILED
from user_model.recommender import Recommender
from user_model.step import TrainingStep
from user_model.training_config import TrainingConfig

_LEAST_SAMPLE_TOKENS = 1024
_FLOAT32 = 4
_SPARE = 4  # items for each that a batch names

# Bytes that autograd keeps of what a function computes, without those of the tensors that it names.
CountKept = Callable[[Callable[[], object], Iterable[torch.Tensor]], int]


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of one worker.

    Attributes:
        weights: of all but the item table, with the copy of the best epoch's.
        gradients, optimizer: the same weights'.
        activations: what the backward pass of a batch needs.
        item: of one item of the catalogue: id vector and its copies, its moments, its text.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    item: int

    def total(self, items: int) -> int:
        """All of it for a catalogue of so many items."""
        held = self.weights + self.gradients + self.optimizer
        return held + self.activations + items * self.item


def training_memory(
    build: Callable[[int], Recommender], config: TrainingConfig, workers: int, kept: CountKept
) -> TrainingMemory:
    """Count what a worker needs for its part of a batch of `config.batch_tokens`.

    A batch is taken to name hardly an item twice, which a large catalogue comes near to and a small
    one stays below; histories are of `max_history` items.

    Args:
        build: makes the model over so many items.
        config: of the training.
        workers: that share a batch.
        kept: counts what autograd keeps.
    """
    tokens = -(-config.batch_tokens // workers)
    batches = _batches(min(tokens, _sample_tokens(build(1).items.dim)), config)
    batch = batches.epoch(0)[0]
    model = build(int(batches.domain_starts[-1])).train()
    step = TrainingStep(model, batches, config, seed=0, workers=Workers())
    held = [*model.parameters(), *model.buffers()]
    activations = kept(lambda: step.run(batch, 0, 0, 0.0), held)

    ids, text = model.items.ids, model.items.text_vectors
    dense = _bytes(weight for _, weight in step.dense)
    copies = 3 if config.ema_decay > 0.0 else 2  # the best epoch's, and the average
    item = copies * _bytes([] if ids is None else [ids]) + _bytes([] if text is None else [text])
    item += _bytes(step.rows.state().values() if step.rows is not None else [])
    channel = model.items.channel
    item += _bytes([] if channel is None else [channel.columns, channel.neighbours])
    return TrainingMemory(
        weights=copies * dense,
        gradients=dense,
        optimizer=_bytes(step.optimizer.state().values()),
        activations=activations * tokens // batch.n_tokens,
        item=item // model.items.n_items,
    )


def _sample_tokens(dim: int) -> int:
    """Return as many tokens as have the ops take the form that they take for large batches."""
    return max(_LEAST_SAMPLE_TOKENS, -(-LEAST_COMPILED // (_FLOAT32 * dim)))


def _batches(tokens: int, config: TrainingConfig) -> Batches:
    """One batch of `tokens` targets of items drawn at random, in histories of full length."""
    length = min(config.max_history or tokens, tokens)
    rows = tokens // length
    named = 2 * tokens + -(-tokens // config.negatives_tile) * config.negatives
    n_items = _SPARE * named
    items = np.random.default_rng(0).integers(n_items, size=rows * (length + 1))
    return Batches(
        _Rows(np.arange(rows + 1, dtype=np.int64) * (length + 1), items),
        np.array([0, n_items]),
        batch_tokens=tokens,
        max_history=config.max_history,
        seed=0,
        times=np.sort(items),  # any, for models that read times
    )


@dataclass(frozen=True)
class _Rows:
    """Histories, as `Batches` takes them."""

    offsets: Int64
    items: Int64


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
