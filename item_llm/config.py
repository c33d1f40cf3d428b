"""The item LLM's whole configuration, composed of what its parts ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from item_llm.adapter import LoraConfig
from item_llm.base_models import STATIC
from item_llm.finetuning_config import FinetuningConfig
from item_llm.reading import EncoderConfig


def _text_of_path(value: object) -> object:
    """A path as the text that it stands for; an address is no path."""
    return str(value) if isinstance(value, Path) else value


class ItemLLMConfig(BaseModel):
    """Which encoder, and whether it is frozen, fine-tuned here, or fine-tuned before.

    * `lora: null` keeps the encoder frozen;
    * `lora: {...}` fine-tunes it (the default);
    * `adapter: PATH` loads a finished adapter, so that new data alone never retrains the encoder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: EncoderConfig = Field(
        default_factory=EncoderConfig, description="The text encoder and how it reads an item."
    )
    lora: LoraConfig | None = Field(
        default_factory=LoraConfig, description="Low-rank adapter to train; null: frozen encoder."
    )
    adapter: Annotated[str, BeforeValidator(_text_of_path)] | None = Field(
        default=None,
        description="Folder of a finished adapter, or its s3:// address: load it and train none.",
    )
    finetuning: FinetuningConfig = Field(
        default_factory=FinetuningConfig, description="How the adapter is trained."
    )

    @model_validator(mode="after")
    def _static_trains_none(self) -> ItemLLMConfig:
        given = "adapter" if self.adapter is not None else "lora" if self.lora is not None else None
        if self.encoder.base == STATIC and given is not None:
            raise ValueError(
                f"encoder.base is {STATIC!r}, a table of token vectors without layers that an "
                f"adapter could tune, but {given} is {getattr(self, given)}: set `{given}: null`, "
                "or `base: minilm` to tune a small encoder"
            )
        return self

    @model_validator(mode="after")
    def _adapter_needs_lora(self) -> ItemLLMConfig:
        if self.adapter is not None and self.lora is None:
            raise ValueError(
                f"adapter is {self.adapter!r} but lora is null (a frozen encoder): "
                "remove `adapter` to encode with the base model, or `lora: null` to use the adapter"
            )
        return self
