"""Fine-tuning of the item LLM: next-item InfoNCE through LoRA, with accelerate and DeepSpeed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class FinetuningConfig(BaseModel):
    """Schedule, objective and ZeRO stage of the item LLM's fine-tuning; defaults are ours [D]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(default=1.0, gt=0, description="Passes over the training pairs.")
    max_steps: int | None = Field(
        default=400, ge=1, description="Stop after this many optimizer steps; null: epochs alone."
    )
    pairs_per_step: int = Field(
        default=64, ge=2, description="Pairs in one micro-batch, over all workers together."
    )
    gradient_accumulation: int = Field(
        default=1, ge=1, description="Micro-batches in one optimizer step."
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Peak learning rate.")
    warmup_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="Share of the steps that warm up; cosine after it."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay.")
    gradient_clip: float = Field(default=1.0, gt=0, description="Largest global gradient norm.")
    temperature: float = Field(
        default=0.05, gt=0, description="InfoNCE temperature (the first one, if it is learned)."
    )
    learn_temperature: bool = Field(default=True, description="Train the temperature too.")
    symmetric: bool = Field(
        default=True, description="Average next-given-item with item-given-next."
    )
    gather_negatives: bool = Field(
        default=True, description="Use all workers' items as negatives, not only one's own."
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


class FinetuneResult:
    """Placeholder until the training is written."""


def finetune() -> None:
    """Placeholder until the training is written."""
