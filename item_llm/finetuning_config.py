"""Schedule, objective and sharding of the item LLM's fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

# Where a training is computed and what it puts up with, not what it learns: a resumed one may
# differ in these.
SHARDING_FIELDS = frozenset(
    {
        "zero_stage",
        "stage3_persistence_threshold",
        "checkpoint_every",
        "gradient_accumulation",
        "gradient_checkpointing",
        "max_skipped_steps",
    }
)


class FinetuningConfig(BaseModel):
    """Schedule, objective and ZeRO stage of the item LLM's fine-tuning; defaults are ours [D]."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    CAME_LATER: ClassVar[Mapping[str, Any]] = {"max_skipped_steps": 0}

    objective: Literal["pairs", "histories"] = Field(
        default="pairs",
        description="pairs: an item's vector finds the item taken next; histories: a small user "
        "model over the items' vectors does, and is thrown away at the end.",
    )
    history_length: int = Field(
        default=8, ge=2, description="Items of a history at most, for the objective histories."
    )
    epochs: float = Field(default=1.0, gt=0, description="Passes over the training pairs.")
    max_steps: int | None = Field(
        default=400, ge=1, description="Stop after this many optimizer steps; null: epochs alone."
    )
    pairs_per_step: int = Field(
        default=64,
        ge=2,
        description="Pairs in one optimizer step, over all workers together; histories hold as "
        "many texts as these.",
    )
    gradient_accumulation: int = Field(
        default=1,
        ge=1,
        description="Parts that a worker runs its pairs in, one after another, for less memory; "
        "what is learned stays the same. More than 1 costs a second forward pass.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Keep no activations of the encoder, but compute them again, a chunk at a "
        "time, in the backward pass.",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate.")
    warmup_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the steps that warm up; cosine after it."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay.")
    gradient_clip: float = Field(default=1.0, gt=0, description="Largest global gradient norm.")
    max_skipped_steps: int = Field(
        default=0,
        ge=0,
        description="Steps that are left out at most, since the start or a resume, because their "
        "gradient is no number; one more stops the training.",
    )
    temperature: float = Field(
        default=0.05, gt=0, description="InfoNCE temperature (the first one, if it is learned)."
    )
    learn_temperature: bool = Field(default=True, description="Train the temperature too.")
    symmetric: bool = Field(
        default=True,
        description="Average next-given-item with item-given-next, for the objective pairs.",
    )
    gather_negatives: bool = Field(
        default=True, description="Use all workers' items as negatives, not only one's own."
    )
    cached_negatives: int = Field(
        default=0,
        ge=0,
        description="Texts of the batch's domain drawn as further negatives in each step, with "
        "their vectors of before the fine-tuning.",
    )
    domain_temperature: float = Field(
        default=2.0,
        ge=1,
        description="A batch's domain is drawn in proportion to pairs ** (1 / this).",
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        default=2, description="DeepSpeed ZeRO: 1 shards optimizer states, 2 gradients, 3 weights."
    )
    stage3_persistence_threshold: int = Field(
        default=10_000, ge=0, description="At stage 3, weights smaller than this stay whole."
    )
    chunk_texts: int = Field(
        default=16, ge=1, description="Texts in one forward pass, sorted by length."
    )
    checkpoint_every: int = Field(
        default=100, ge=1, description="Optimizer steps between two checkpoints."
    )
    seed: int = Field(default=0, ge=0, description="Seeds batches and initial weights.")

    @property
    def histories_per_step(self) -> int:
        """Histories in one step over all workers: as many as fill the texts of its pairs."""
        return 2 * self.pairs_per_step // self.history_length

    def check_shares(self, workers: int) -> None:
        """Raise ValueError unless each worker gets equal parts of a step."""
        parts = workers * self.gradient_accumulation
        if self.pairs_per_step % parts:
            raise ValueError(
                f"finetuning.pairs_per_step is {self.pairs_per_step}, which {workers} workers "
                f"cannot share equally in {self.gradient_accumulation} parts each: choose a "
                "multiple"
            )
        if self.objective == "histories" and self.histories_per_step % parts:
            raise ValueError(
                f"finetuning.pairs_per_step is {self.pairs_per_step}, so {self.histories_per_step} "
                f"histories of {self.history_length} items, which {workers} workers cannot share "
                f"equally in {self.gradient_accumulation} parts each: choose a multiple"
            )


def total_steps(config: FinetuningConfig, pairs: int) -> int:
    """Optimizer steps for this many training pairs."""
    steps = max(1, math.ceil(config.epochs * pairs / config.pairs_per_step))
    return min(steps, config.max_steps) if config.max_steps is not None else steps


def learning_rate(config: FinetuningConfig, step: int, steps: int) -> float:
    """Linear warm-up to the peak, then a cosine to zero; `step` counts from 0."""
    warmup = math.ceil(config.warmup_fraction * steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2
