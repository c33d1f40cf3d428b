"""The text encoder: item texts in, unit vectors out."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EncoderConfig(BaseModel):
    """Which model encodes item texts, and how it reads one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field(
        default="smollm2",
        min_length=1,
        description="smollm2, minilm, a model folder, a .gguf file, or a Hugging Face name.",
    )
    prompt: str | None = Field(
        default=None,
        description="Text before every item; null: the default for causal LMs, none for encoders.",
    )
    pooling: Literal["auto", "item", "mean"] = Field(
        default="auto",
        description="item: last hidden state at a trained [ITEM] position; mean: over the text; "
        "auto: item for causal LMs, mean for encoders.",
    )
    max_tokens: int = Field(
        default=64, ge=1, description="An item's text is cut to this many tokens."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Weights and activations; vectors are always float32."
    )
    batch_tokens: int = Field(
        default=2048, ge=1, description="Tokens in one forward pass, padding included."
    )


class ItemEncoder:
    """Placeholder until the encoder is written."""
