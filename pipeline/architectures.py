"""From a model's name and its part of the config to the model: what each name is made of."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.config import (
    JOINT_MODELS,
    TIMED_MODELS,
    HSTUModelConfig,
    HydraModelConfig,
    Mamba2RecModelConfig,
    ModelName,
    RunConfig,
    SASRecBCEModelConfig,
    SASRecModelConfig,
)
from user_model import HSTU, Hydra, ItemTable, Mamba2Rec, PublishedSASRec, Recommender, SASRec

Architecture = (
    HydraModelConfig
    | SASRecModelConfig
    | SASRecBCEModelConfig
    | Mamba2RecModelConfig
    | HSTUModelConfig
)


def architecture_of(model: ModelName, config: RunConfig) -> Architecture:
    """The part of the config that describes a trained model, as it counts for this model."""
    parts: dict[str, Architecture] = {
        "sasrec": config.sasrec,
        "sasrec_bce": config.sasrec_bce,
        "mamba2rec": config.mamba2rec,
        "hstu": config.hstu,
        "hstu_time": config.hstu,
    }
    if model in JOINT_MODELS:
        return config.user_model.for_joint()
    return parts.get(model, config.user_model)


def needs_times(model: ModelName, architecture: Architecture) -> bool:
    """Whether the model reads the times of events."""
    if isinstance(architecture, HydraModelConfig):
        return architecture.time_gaps
    return model in TIMED_MODELS


def sequence_model(model: ModelName, architecture: Architecture) -> nn.Module:
    """The model that turns item vectors into user vectors, with fresh weights."""
    if isinstance(architecture, HydraModelConfig):
        return Hydra(architecture)
    if isinstance(architecture, SASRecBCEModelConfig):
        return PublishedSASRec(architecture)
    if isinstance(architecture, Mamba2RecModelConfig):
        return Mamba2Rec(architecture)
    if isinstance(architecture, HSTUModelConfig):
        return HSTU(architecture, time_bias=model in TIMED_MODELS)
    return SASRec(architecture)


def recommender(
    model: ModelName,
    architecture: Architecture,
    n_items: int,
    texts: Tensor | None,
    domain_starts: Tensor | None = None,
) -> Recommender:
    """The whole model with fresh weights.

    Args:
        model: its name.
        architecture: its part of the config.
        n_items: items of its table.
        texts: float32 [n_items, d_text], their text vectors; None: ids alone.
        domain_starts: int64 [D + 1], where each domain's items start; None: one domain.
    """
    items = architecture.items
    if texts is None:
        ids = True if items.ids == "from_text" else items.ids
        alone = {"text": False, "ids": ids, "domain_projections": False, "text_channel": False}
        items = items.model_copy(update=alone)
    table = ItemTable.build(items, n_items, architecture.dim, texts, domain_starts)
    network = sequence_model(model, architecture)
    return Recommender(table, network, normalise=architecture.normalise)
