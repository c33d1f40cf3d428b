"""The models that race to a quality: named settings, and fields put over them by name.

    sasrec_bce                          SASRec as published: d 64, 2 blocks, 1 head, FFN d
    sasrec_ss                           SASRec with our recipe: cosines, sampled softmax
    hydra                               Hydra on ids with the same recipe
    hydra_text                          the same, its id vectors begun from frozen text vectors
    hydra:dim=24,ffn_dim=24,epochs=12   the same as hydra with other fields, of the model or its
                                        training

The settings of `sasrec_ss` and the Hydras are those that were best for SASRec before the search
(docs/results.md); those of `sasrec_bce` are the defaults, every fourth epoch validated. docs/log.md
tells what else was tried.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.architectures import Architecture
from pipeline.config import (
    HydraModelConfig,
    ModelName,
    SASRecBCEModelConfig,
    SASRecModelConfig,
)
from pipeline.config_mistakes import describe_mistakes, did_you_mean
from user_model import TrainingConfig

TEXT_KIND = "hydra_text"
_RECIPE = {
    "epochs": 60, "patience": 16, "validate_every": 1,
    "lr": 3e-3, "temperature": 0.1, "batch_tokens": 4096,
}  # fmt: skip
_STRONG = {"layers": 1, "dropout": 0.4, "training": _RECIPE}
_FROM_TEXT = {"ids": "from_text", "text": False, "id_std": 0.05}
_AS_PUBLISHED: Mapping[str, Any] = {"training": {}}

_KINDS: dict[str, tuple[ModelName, type[Architecture], Mapping[str, Any]]] = {
    "sasrec_bce": ("sasrec_bce", SASRecBCEModelConfig, _AS_PUBLISHED),
    "sasrec_ss": ("sasrec", SASRecModelConfig, _STRONG),
    "hydra": ("hydra_ids", HydraModelConfig, _STRONG),
    TEXT_KIND: ("hydra_frozen", HydraModelConfig, {**_STRONG, "items": _FROM_TEXT}),
}
DEFAULT_RIVALS = (
    "sasrec_bce",
    "sasrec_ss",
    "hydra:dim=16",
    "hydra:dim=24,ffn_dim=24",
    "hydra:dim=32",
    "hydra:dim=48",
    "hydra:dim=64",
)


@dataclass(frozen=True)
class Rival:
    """One model of the race.

    Attributes:
        name: as it was given.
        kind: sasrec_bce, sasrec_ss, hydra or hydra_text.
        model: its name in the pipeline.
        architecture: the model and its training.
    """

    name: str
    kind: str
    model: ModelName
    architecture: Architecture

    @classmethod
    def parse(cls, name: str) -> Rival:
        """Read `KIND` or `KIND:FIELD=VALUE,FIELD=VALUE`.

        Raises:
            ValueError: an unknown kind or field, or a value that does not fit.
        """
        kind, _, changes = name.partition(":")
        if kind not in _KINDS:
            hint = did_you_mean(kind, list(_KINDS))
            raise ValueError(f"models: {name}: there is no model {kind}; {hint}")
        model, config, settings = _KINDS[kind]
        fields = _with_changes(name, config, settings, changes)
        try:
            return cls(name, kind, model, config.model_validate(fields))
        except ValidationError as error:
            raise ValueError(describe_mistakes(error, config, f"models: {name}")) from error

    @property
    def file_name(self) -> str:
        """The name, fit for a file."""
        return re.sub(r"[^a-z0-9_=.-]", "-", self.name.lower())


def _with_changes(
    name: str, config: type[Architecture], settings: Mapping[str, Any], changes: str
) -> dict[str, Any]:
    """The settings, with each change in the model or, if it has no such field, its training."""
    fields = {**settings, "training": dict(settings["training"])}
    own = set(config.model_fields) - {"training"}
    trained = set(TrainingConfig.model_fields)
    for change in filter(None, changes.split(",")):
        field, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"models: {name}: got `{change}`, expected FIELD=VALUE")
        if field not in own | trained:
            hint = did_you_mean(field, sorted(own | trained))
            raise ValueError(f"models: {name}: {field}: unknown field; {hint}")
        place = fields if field in own else fields["training"]
        # YAML 1.1 takes 1e-3 for a text; pydantic reads it as the number it is.
        place[field] = yaml.safe_load(value)
    return fields
