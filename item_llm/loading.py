"""A frozen encoder of whatever kind its base is: a model, or a table of token vectors."""

from __future__ import annotations

from pathlib import Path

from item_llm.base_models import PretrainedModel
from item_llm.encoder import ItemEncoder
from item_llm.reading import EncoderConfig
from item_llm.static_encoder import StaticEncoder


def load_encoder(config: EncoderConfig, adapter: Path | None = None) -> ItemEncoder | StaticEncoder:
    """Load a frozen encoder; a model goes onto a GPU where the process has one.

    Args:
        config: the base and how it reads.
        adapter: whose LoRA is merged into the model's weights.

    Raises:
        ValueError: a base that cannot be found, an adapter that is damaged or was trained on
            another base, prompt or pooling, or an adapter for a table of token vectors.
    """
    base = PretrainedModel.find(config.base)
    if not base.is_static():
        return ItemEncoder.load(config, adapter, base)
    if adapter is not None:
        raise ValueError(
            f"adapter is {str(adapter)!r}, but encoder.base {config.base!r} is a table of token "
            "vectors, which no adapter fits: set `adapter: null`, or name the adapter's own base"
        )
    return StaticEncoder(config, base)
