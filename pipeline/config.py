"""RunConfig: everything that a user can say about a run, and how a mistake in it is answered.

Each part stands beside what it builds; here they are only put together. Whatever the config does
not know it refuses, with the name of the field that was probably meant.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from item_llm import ItemLLMConfig
from item_llm.snapshot import SnapshotType
from pipeline.candidates import check_candidates, with_fields
from pipeline.config_mistakes import describe_mistakes, did_you_mean
from pipeline.config_overrides import with_overrides
from pipeline.domains import DomainConfig
from pipeline.evaluation import EvaluationConfig
from pipeline.pairs import PairsConfig
from pipeline.poor_texts import PoorTextConfig
from pipeline.sources.options import checked_name
from pipeline.splits import SplitConfig
from pipeline.strict_yaml import load_mapping
from pipeline.tracking.config import TrackingConfig
from pipeline.whole_files import content_hash
from pipeline.workers.cluster import ComputeConfig
from user_model import (
    HSTUConfig,
    HydraConfig,
    ItemTableConfig,
    Mamba2RecConfig,
    PublishedSASRecConfig,
    PublishedSASRecTraining,
    SASRecConfig,
    TrainingConfig,
)
from user_model.config_keys import key_fields

ModelName = Literal[
    "popularity",
    "popularity_7d",
    "item_knn",
    "sasrec_bce",
    "sasrec",
    "mamba2rec",
    "hstu",
    "hstu_time",
    "hydra_ids",
    "hydra_frozen",
    "hydra_single",
    "hydra_joint",
]
BASELINES: tuple[ModelName, ...] = ("popularity", "popularity_7d", "item_knn")
JOINT_MODELS: tuple[ModelName, ...] = ("hydra_joint",)
TIMED_MODELS: tuple[ModelName, ...] = ("hstu_time",)
TEXT_MODELS: tuple[ModelName, ...] = ("hydra_frozen", "hydra_single", "hydra_joint")


class _TrainedModel(BaseModel):
    """What every trained user model has beside its architecture."""

    items: ItemTableConfig = Field(
        default_factory=ItemTableConfig, description="how an item becomes a vector"
    )
    normalise: bool = Field(
        True,
        description="scores are cosines of user and item; false: plain inner products, for which "
        "training.temperature should be near 1",
    )
    training: TrainingConfig = Field(
        default_factory=TrainingConfig, description="how the model is trained"
    )
    validation_users: int | None = Field(
        5000, ge=1, description="users of a domain that early stopping looks at; null: all"
    )
    candidates: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict,
        description="values to try, by field, such as {dropout: [0.3, 0.5], training.lr: [1e-3]}; "
        "each trained model keeps what is best on its validation",
    )

    @model_validator(mode="after")
    def _candidates_can_be_tried(self) -> Self:
        if self.candidates:
            check_candidates(self, self.candidates)
        return self


class HydraModelConfig(HydraConfig, _TrainedModel):
    """The Hydra user model, what it is fed with, and how it is trained."""

    joint: dict[str, Any] = Field(
        default_factory=dict,
        description="`dropout` and fields of `training` that differ where all domains are trained "
        "together",
    )
    interleave: bool = Field(
        False,
        description="joint training: a person's events in all domains make one history, in time; "
        "false: one history for each (person, domain), which measures better (docs/log.md)",
    )

    @model_validator(mode="after")
    def _joint_fields_fit(self) -> Self:
        self.for_joint()
        for name in ("text_channel", "neighbours"):
            if self.interleave and getattr(self.items, name):
                raise ValueError(
                    f"interleave: got true with items.{name}: true, which compares items within "
                    "one domain; leave one of the two out"
                )
        if both := sorted(self._joint_paths().keys() & self.candidates.keys()):
            raise ValueError(f"{both[0]}: is set by joint and tried by candidates; take one away")
        return self

    def for_joint(self) -> Self:
        """What the joint model is made of: the fields of `joint` put over the others."""
        if not self.joint:
            return self
        return with_fields(self, {**self._joint_paths(), "joint": {}}, "joint")

    def _joint_paths(self) -> dict[str, Any]:
        """The fields of `joint`, by dotted name."""
        return {
            name if name == "dropout" else f"training.{name}": value
            for name, value in self.joint.items()
        }


class SASRecModelConfig(SASRecConfig, _TrainedModel):
    """The SASRec baseline (ids alone, sampled softmax) and how it is trained."""


class SASRecBCEModelConfig(PublishedSASRecConfig, _TrainedModel):
    """SASRec as published (ids alone, inner products, binary cross-entropy) and its training."""

    items: ItemTableConfig = Field(
        default_factory=lambda: ItemTableConfig(id_std=None),
        description="how an item becomes a vector",
    )
    normalise: bool = Field(False, description="scores are cosines; false, as published: products")
    training: PublishedSASRecTraining = Field(
        default_factory=PublishedSASRecTraining, description="how the model is trained"
    )


class Mamba2RecModelConfig(Mamba2RecConfig, _TrainedModel):
    """The Mamba-2 baseline (ids alone, sampled softmax) and how it is trained."""


class HSTUModelConfig(HSTUConfig, _TrainedModel):
    """The HSTU baselines (ids alone, sampled softmax) and how they are trained."""


class RunConfig(BaseModel):
    """One run: N domains in, a report for every domain out."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    CAME_LATER: ClassVar[Mapping[str, Any]] = {"poor_text": None, "data_seed": None}

    name: str = Field("run", description="the run's name, and its folder below runs/")
    seed: int = Field(0, ge=0, description="seed of everything that is drawn at random")
    data_seed: int | None = Field(
        None, ge=0, description="seed of the choice of users under max_users; null: seed"
    )
    store: str = Field(
        "runs/.store",
        description="folder of finished outputs, shared by runs (~ is the home), or "
        "s3://BUCKET/PREFIX",
    )
    vectors: str | None = Field(
        None,
        description="folder of the item vectors' cache, shared by runs, or s3://BUCKET/PREFIX; "
        "null: vectors/ in the store",
    )
    vectors_dtype: SnapshotType = Field(
        "float32",
        description="how a run stores its item vectors; models read them as float32. int8 has a "
        "scale an item",
    )
    domains: tuple[DomainConfig, ...] = Field(
        description="the catalogues: a name, a source and how it is cleaned", min_length=1
    )
    large_domains: tuple[str, ...] | None = Field(
        None,
        description="domains that count as large; null: those with interactions >= total / number",
    )
    poor_text: PoorTextConfig | None = Field(
        None,
        description="make item texts worse, to see what is lost; null: as they are",
    )
    split: SplitConfig = Field(
        default_factory=SplitConfig, description="which events train, choose and test"
    )
    models: tuple[ModelName, ...] = Field(
        ("popularity", "sasrec", "hydra_single", "hydra_joint"),
        min_length=1,
        description="what is trained and compared",
    )
    item_llm: ItemLLMConfig = Field(
        default_factory=ItemLLMConfig, description="the text encoder shared by all domains"
    )
    pairs: PairsConfig = Field(
        default_factory=PairsConfig, description="what the text encoder is fine-tuned on"
    )
    user_model: HydraModelConfig = Field(
        default_factory=HydraModelConfig, description="the Hydra user model"
    )
    sasrec: SASRecModelConfig = Field(
        default_factory=SASRecModelConfig, description="the SASRec baseline"
    )
    sasrec_bce: SASRecBCEModelConfig = Field(
        default_factory=SASRecBCEModelConfig, description="SASRec as published"
    )
    mamba2rec: Mamba2RecModelConfig = Field(
        default_factory=Mamba2RecModelConfig, description="the Mamba-2 baseline"
    )
    hstu: HSTUModelConfig = Field(
        default_factory=HSTUModelConfig, description="HSTU, of models hstu and hstu_time"
    )
    evaluation: EvaluationConfig = Field(
        default_factory=EvaluationConfig, description="how the models are compared"
    )
    compute: ComputeConfig = Field(
        default_factory=ComputeConfig, description="what the run may use of its Ray"
    )
    tracking: TrackingConfig = Field(
        default_factory=TrackingConfig, description="who follows the run while it goes on"
    )

    @model_validator(mode="after")
    def _names_are_sound(self) -> RunConfig:
        checked_name(self.name, "the run name")
        names = [domain.name for domain in self.domains]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the domain name {name!r} is given twice; names must differ")
        for name in self.large_domains or ():
            if name not in names:
                raise ValueError(f"large_domains names {name!r}; {did_you_mean(name, names)}")
        poor = (self.poor_text and self.poor_text.domains) or ()
        told = {
            "split.train_people": self.split.train_people,
            "poor_text.domains": poor,
            "pairs.domains": self.pairs.domains or (),
        }
        for field, found in told.items():
            for name in found:
                if name not in names:
                    raise ValueError(f"{field} names {name!r}; {did_you_mean(name, names)}")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"models lists a model twice: {', '.join(self.models)}")
        return self

    @property
    def sampling_seed(self) -> int:
        """Of the choice of users where a source has more than `max_users`."""
        return self.seed if self.data_seed is None else self.data_seed

    def results_hash(self) -> str:
        """SHA-256 (hex) of what decides metrics.json: not names, folders, workers or trackers."""
        ignored = {"name", "store", "vectors", "compute", "tracking"}
        return content_hash(key_fields(self, exclude=ignored))


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file and put command-line overrides (`--user-model.layers 4`) over it.

    Raises:
        ValueError: one sentence a mistake: where it is, what was got, what was expected.
    """
    content = with_overrides(load_mapping(path), overrides, RunConfig)
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        where = f"{path} with {' '.join(overrides)}" if overrides else str(path)
        raise ValueError(describe_mistakes(error, RunConfig, where)) from error


if __name__ == "__main__":
    from pipeline.config_command import main

    sys.exit(main())
