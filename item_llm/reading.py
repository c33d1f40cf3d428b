"""Which encoder, and how it reads a text: its configuration, and its fingerprint.

The fingerprint needs no weights in memory, so what is in the cache is known before any worker
starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from item_llm.base_models import STATIC, PretrainedModel
from item_llm.folders import sha256_of_json
from item_llm.prompts import DEFAULT_PROMPT, normalise_text

_ENCODING = 1  # raise when the same weights and texts give other vectors


class EncoderConfig(BaseModel):
    """Which model encodes item texts, and how it reads one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str = Field(
        default="smollm2",
        min_length=1,
        description="smollm2, minilm, static (a table of token vectors distilled from minilm, for "
        "CI and laptops; needs lora: null), a model folder, a .gguf file, or a Hugging Face name.",
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
    dtype: Literal["float32", "mixed", "bfloat16"] = Field(
        default="float32",
        description="Of weights and activations; mixed: float32, with products in bfloat16 while "
        "texts are encoded, not while the encoder is fine-tuned; bfloat16: for GPUs, the trained "
        "weights with a float32 copy. Vectors are always float32.",
    )
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens in one forward pass, padding included; null: what suits the device.",
    )

    @model_validator(mode="after")
    def _check_static_base(self) -> EncoderConfig:
        if self.base == STATIC:
            self.check_static()
        return self

    def check_static(self) -> None:
        """Raise ValueError where a field asks what a table of token vectors cannot do."""
        for name, given, able in (
            ("prompt", self.prompt or None, (None,)),
            ("pooling", self.pooling, ("auto", "mean")),
            ("dtype", self.dtype, ("float32",)),
        ):
            if given not in able:
                raise ValueError(
                    f"encoder.{name} is {given!r} and encoder.base {self.base!r} is a table of "
                    f"token vectors, which are averaged in float32: remove `{name}`, or name "
                    "another base"
                )


@dataclass(frozen=True)
class Reading:
    """How an encoder reads a text, with its tokenizer.

    Attributes:
        config: as the user gave it.
        base: the model's files.
        tokenizer: its fast tokenizer.
        tokenizer_sha256: of its vocabulary, merges and rules.
        causal: whether the model reads from left to right.
    """

    config: EncoderConfig
    base: PretrainedModel
    tokenizer: Any
    tokenizer_sha256: str
    causal: bool

    @classmethod
    def of(cls, config: EncoderConfig, base: PretrainedModel) -> Reading:
        """Load the tokenizer.

        Raises:
            ValueError: the base is a table of token vectors and the config asks for a model.
        """
        if base.is_static():
            config.check_static()
        tokenizer = base.load_tokenizer()
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()  # what calls have set is no part of what the tokenizer is
        backend.no_padding()
        return cls(config, base, tokenizer, sha256_of_json(backend.to_str()), base.is_causal())

    @property
    def prompt(self) -> str:
        """What stands before every text."""
        given = self.config.prompt
        return normalise_text(given if given is not None else DEFAULT_PROMPT if self.causal else "")

    @property
    def pooling(self) -> str:
        """`item` or `mean`."""
        given = self.config.pooling
        return given if given != "auto" else ("item" if self.causal else "mean")

    @property
    def facts(self) -> dict[str, Any]:
        """What an adapter is trained for and cannot be used without."""
        return {
            "base_sha256": self.base.sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "prompt": self.prompt,
            "pooling": self.pooling,
        }

    def fingerprint(self, adapter_sha256: str | None) -> str:
        """Hex sha256 over base weights, adapter, prompt, pooling, max_tokens, dtype, tokenizer."""
        return sha256_of_json(
            {
                **self.facts,
                "adapter_sha256": adapter_sha256,
                "max_tokens": self.config.max_tokens,
                "dtype": self.config.dtype,
                "encoding": _ENCODING,
            }
        )


def describe_encoder(config: EncoderConfig, adapter: Path | None = None) -> tuple[str, int]:
    """An encoder's fingerprint and the width of its vectors, without its weights in memory.

    Raises:
        ValueError: the base cannot be found, or the adapter is absent, damaged or of another one.
    """
    from item_llm.adapter import read_adapter_sha256

    base = PretrainedModel.find(config.base)
    reading = Reading.of(config, base)
    sha256 = None if adapter is None else read_adapter_sha256(adapter, reading.facts)
    return reading.fingerprint(sha256), base.dim()
