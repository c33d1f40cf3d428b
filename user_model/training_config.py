"""Settings of the training of a recommender."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainingConfig(BaseModel):
    """How a recommender is trained: batches, loss, optimiser, stopping."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    CAME_LATER: ClassVar[Mapping[str, Any]] = {
        "unseen_negatives": True,
        "other_domains_share": 0.0,
        "max_skipped_steps": 0,
    }

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
    in_batch_share: float = Field(
        0.0, ge=0.0, le=1.0,
        description="Share of the negatives drawn from the targets of the batch.",
    )  # fmt: skip
    hard_negatives: int | None = Field(
        None, ge=1,
        description="Of its negatives each position is told only from so many, those with the "
        "highest scores; null: from all.",
    )  # fmt: skip
    other_domains_share: float = Field(
        0.0, ge=0.0, le=1.0,
        description="Share of the negatives drawn from the items of all domains, not of the "
        "target's own.",
    )  # fmt: skip
    unseen_negatives: bool = Field(
        True,
        description="Whether items without training events are negatives too; false: what the "
        "text says of a new item is not learned against.",
    )
    log_q: bool = Field(False, description="Correct the logits by the log probability of the draw.")
    positions: Literal["all", "last"] = Field(
        "all", description="Targets of a window that are learned from: all, or the last alone."
    )
    skip_share: float = Field(
        0.0, ge=0.0, lt=1.0,
        description="Chance that a position learns the item after its target instead, and by the "
        "same chance the one after that: where the order of near events tells little.",
    )  # fmt: skip
    temperature: float = Field(
        0.1, gt=0.0, description="Temperature of the softmax of cosines; measured in docs/log.md."
    )
    lr: float = Field(3e-3, gt=0.0, description="Peak learning rate of AdamW.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the rate falls after the warm-up, over all epochs."
    )
    min_lr_share: float = Field(
        0.05, ge=0.0, le=1.0,
        description="Where a cosine or linear schedule ends, as a share of lr.",
    )  # fmt: skip
    warmup_steps: int = Field(100, ge=0, description="Steps of linear warm-up.")
    weight_decay: float = Field(0.01, ge=0.0, description="Decay of matrices, in AdamW.")
    id_weight_decay: float = Field(
        0.0, ge=0.0, description="Decay of the id rows that a step touches."
    )
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW's two decay rates.")
    ema_decay: float = Field(
        0.0, ge=0.0, lt=1.0,
        description="Decay of the moving average of the weights, which is what is validated and "
        "kept; 0 = the weights themselves.",
    )  # fmt: skip
    clip: float = Field(1.0, gt=0.0, description="Largest norm of the gradient.")
    max_skipped_steps: int = Field(
        0, ge=0,
        description="Steps that are left out at most because their loss or gradient is no number; "
        "one more stops the training.",
    )  # fmt: skip
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

    @model_validator(mode="after")
    def _negatives_fit(self) -> Self:
        shares = self.popularity_share + self.in_batch_share + self.other_domains_share
        if shares > 1.0:
            raise ValueError(
                "popularity_share, in_batch_share, other_domains_share: got "
                f"{self.popularity_share}, {self.in_batch_share} and {self.other_domains_share}, "
                "expected at most 1 together; the rest is uniform"
            )
        if self.log_q and self.other_domains_share > 0.0:
            raise ValueError(
                f"log_q: got true with other_domains_share: {self.other_domains_share}; an item's "
                "chance then depends on the target's domain; leave one of the two out"
            )
        if self.hard_negatives is None:
            return self
        if self.hard_negatives > self.negatives:
            raise ValueError(
                f"hard_negatives: got {self.hard_negatives}, expected at most the "
                f"{self.negatives} of negatives; raise negatives, from which they are chosen"
            )
        if self.log_q or self.loss == "bce":
            other = "log_q: true" if self.log_q else "loss: bce"
            raise ValueError(
                f"hard_negatives: got {self.hard_negatives} with {other}; the chance of being the "
                "hardest is not known, and bce has one negative; leave one of the two out"
            )
        return self
