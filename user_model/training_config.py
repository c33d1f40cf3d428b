"""Settings of the training of a recommender."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """How a recommender is trained: batches, loss, optimiser, stopping."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(60, ge=1, description="Largest number of passes over the histories.")
    batch_tokens: int = Field(
        4096, ge=1, description="Items of a global batch, over all workers, in whole histories."
    )
    min_epoch_steps: int = Field(
        16, ge=1,
        description="Least steps of an epoch: where there are few histories, batches are smaller, "
        "so that a small domain alone is not left untrained for want of steps (docs/log.md).",
    )  # fmt: skip
    max_history: int | None = Field(
        50, ge=1, description="Items that the model sees at once; longer histories are cut into "
        "windows. Null: whole histories.",
    )  # fmt: skip
    domain_temperature: float = Field(
        1.0, ge=0.0, le=1.0,
        description="Share of a domain in the batches ~ size ^ temperature: 1 = proportional to "
        "size, 0 = the same for every domain.",
    )  # fmt: skip
    negatives: int = Field(
        512, ge=1, description="Sampled items that each target is told from, of its own domain."
    )
    negatives_tile: int = Field(
        128, ge=1, description="Positions that share one draw of negatives."
    )
    popularity_share: float = Field(
        0.0, ge=0.0, le=1.0,
        description="Share of the negatives drawn by popularity; the rest are uniform.",
    )  # fmt: skip
    log_q: bool = Field(False, description="Correct the logits by the log probability of the draw.")
    temperature: float = Field(
        0.1, gt=0.0, description="Temperature of the softmax of cosines; measured in docs/log.md."
    )
    lr: float = Field(3e-3, gt=0.0, description="Peak learning rate of AdamW.")
    min_lr_share: float = Field(
        0.05, ge=0.0, le=1.0, description="Where the cosine schedule ends, as a share of lr."
    )
    warmup_steps: int = Field(100, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.01, ge=0.0, description="Decay of matrices, in AdamW.")
    id_weight_decay: float = Field(
        0.0, ge=0.0, description="Decay of the id rows that a step touches."
    )
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW's two decay rates.")
    clip: float = Field(1.0, gt=0.0, description="Largest norm of the gradient.")
    loss: Literal["infonce", "bce"] = Field(
        "infonce", description="infonce: sampled softmax; bce: binary cross-entropy, one negative."
    )
    validate_every: int = Field(1, ge=1, description="Epochs between two validations.")
    patience: int = Field(
        8, ge=1, description="Validations without a better one after which training stops."
    )
    checkpoint_steps: int | None = Field(
        None, ge=1, description="Steps between two checkpoints; null = at the end of each epoch."
    )
