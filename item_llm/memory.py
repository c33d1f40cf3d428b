"""What a worker of the fine-tuning will hold, known before it starts: arithmetic on shapes.

The encoder is built on the meta device and runs one part of a step there; what autograd would keep
is counted and not allocated. Every text counts as `max_tokens` long, so a figure is an upper bound
for texts that are shorter. Not in it: what DeepSpeed and the kernels take for a moment, the CUDA
context, the text tables.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from item_llm.adapter import attach_lora
from item_llm.base_models import PretrainedModel
from item_llm.batching import TokenBatch, by_parts
from item_llm.contrastive import ContrastiveModel
from item_llm.encoder import ItemEncoder
from item_llm.zero import GATHERED_ELEMENTS

if TYPE_CHECKING:
    from item_llm.config import ItemLLMConfig
    from item_llm.finetuning_config import FinetuningConfig

_FLOAT = 4

# Bytes that autograd keeps of what a function computes, without those of the tensors that it names.
CountKept = Callable[[Callable[[], object], Iterable[torch.Tensor]], int]


@dataclass(frozen=True)
class FinetuningMemory:
    """Bytes of one worker.

    Attributes:
        weights: what it holds between passes; at ZeRO stage 3 its shard.
        gathered: at stage 3, weights of other workers' shards that it holds during a pass, at most.
        gradients, optimizer: of the trainable weights, by stage.
        activations: what the backward pass of a part needs.
    """

    weights: int
    gathered: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it at once, which is the peak: the start of the backward pass."""
        held = self.weights + self.gathered + self.gradients + self.optimizer
        return held + self.activations


def finetuning_memory(config: ItemLLMConfig, workers: int, kept: CountKept) -> FinetuningMemory:
    """Count what a worker needs; nothing is allocated, and no weights are read.

    Args:
        config: `lora` must be set.
        workers: of the fine-tuning.
        kept: counts what autograd keeps.

    Raises:
        ValueError: a base that is not there, or pairs that the workers cannot share equally.
    """
    config.finetuning.check_shares(workers)
    model = _shape_of(config)
    width = 2 if config.encoder.dtype == "bfloat16" else _FLOAT
    shares = _Shares(config.finetuning, workers)
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    weights = [p.numel() for p in model.parameters()]
    sharded = config.finetuning.zero_stage == 3
    own = sum(map(shares.of_weight, weights)) if sharded else sum(weights)
    return FinetuningMemory(
        weights=width * own,
        gathered=width * min(sum(weights) - own, GATHERED_ELEMENTS),
        gradients=width * shares.of(sum(trained), from_stage=2),
        optimizer=_FLOAT * shares.optimizer(sum(trained)),
        activations=_activations(model, config, workers, kept),
    )


@dataclass(frozen=True)
class _Shares:
    """How many elements of a whole are one worker's, by ZeRO stage."""

    config: FinetuningConfig
    workers: int

    def of(self, elements: int, from_stage: int) -> int:
        """Of what is sharded from that stage on."""
        split = self.config.zero_stage >= from_stage
        return math.ceil(elements / self.workers) if split else elements

    def of_weight(self, elements: int) -> int:
        """Of one weight at stage 3, where small ones stay whole."""
        small = elements < self.config.stage3_persistence_threshold
        return elements if small else math.ceil(elements / self.workers)

    def optimizer(self, elements: int) -> int:
        """Adam's two moments and, under ZeRO, the float32 copy of the weights that they are for."""
        copies = 2 if self.config.zero_stage == 0 else 3
        return copies * self.of(elements, from_stage=1)


def _shape_of(config: ItemLLMConfig) -> ContrastiveModel:
    assert config.lora is not None, "a frozen encoder is not fine-tuned"
    base = PretrainedModel.find(config.encoder.base)
    encoder = ItemEncoder(config.encoder, base, shape_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft calls transformers by an old name
        attach_lora(encoder, config.lora)
    model = ContrastiveModel(encoder, config.finetuning.temperature, learn=True)
    model.to("meta").train_adapter_only()
    return model.bfloat16() if config.encoder.dtype == "bfloat16" else model


def _activations(
    model: ContrastiveModel, config: ItemLLMConfig, workers: int, kept: CountKept
) -> int:
    finetuning = config.finetuning
    texts = 2 * finetuning.pairs_per_step // (workers * finetuning.gradient_accumulation)
    batches = _batches(model.encoder, texts, finetuning.chunk_texts)
    if finetuning.gradient_checkpointing:  # one chunk is run again at a time
        batches = batches[:1]
    return kept(lambda: model(batches), [*model.parameters(), *model.buffers()])


def _batches(encoder: ItemEncoder, texts: int, chunk: int) -> list[TokenBatch]:
    """Texts of the most tokens, in chunks as a step has them."""
    lengths = [encoder.config.max_tokens] * texts
    groups = by_parts(lengths, -(-texts // chunk))
    return [encoder.collate([[0] * lengths[i] for i in group]) for group in groups]
