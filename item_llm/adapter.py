"""LoRA adapters: their configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LoraConfig(BaseModel):
    """Shape of the low-rank adapter (Hu et al. 2021); rank and targets are our choice [D]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: int = Field(default=8, ge=1, description="Rank of each update.")
    alpha: float = Field(
        default=16.0, gt=0, description="Scale of the update: it is multiplied by alpha / r."
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout on the adapter's input while training."
    )
    target_modules: tuple[str, ...] | None = Field(
        default=None,
        description="Names of the linear layers to adapt; null: attention's query and value.",
    )
