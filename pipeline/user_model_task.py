"""What one user model's training and ranking are asked for: names, settings and folders.

A task names the model (hydra_joint, sasrec ...), the domains it sees, and the folders it reads.
A model trained alone sees one domain, and its items count from 0; the joint model sees all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from pipeline.architectures import Architecture, architecture_of
from pipeline.config import HydraModelConfig, ModelName, RunConfig
from pipeline.evaluation import EvaluationConfig
from pipeline.splits import SplitConfig
from user_model import TrainingConfig
from user_model.config_keys import key_fields


class UserModelTask(BaseModel):
    """One model to train and to rank with.

    Attributes:
        model: Its name in the results.
        domain: The one domain it is trained on, or None for all of them together.
        split: Which events train, choose and test.
        architecture: The model and its training, with nothing left to choose.
        evaluation: How it is ranked.
        seed: Of weights, batches and negatives.
        text_multiples: What the texts of each domain are to count after training, by the domain's
            name, where that was chosen before (a refit has no validation); None: it was not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName
    domain: str | None
    split: SplitConfig
    architecture: Architecture
    evaluation: EvaluationConfig
    seed: int
    text_multiples: Mapping[str, float] | None = None

    @classmethod
    def of(cls, model: ModelName, domain: str | None, config: RunConfig) -> Self:
        """What a run's config asks of one of its models."""
        return cls(
            model=model,
            domain=domain,
            split=config.split.for_domains(
                [one.name for one in config.domains] if domain is None else [domain]
            ),
            architecture=architecture_of(model, config),
            evaluation=config.evaluation,
            seed=config.seed,
        )

    def choosing(self) -> Self:
        """The task that settings are chosen by: never one that learns from validation events."""
        if self.split.kind != "refit":
            return self
        strict = self.split.model_copy(update={"kind": "strict"})
        return self.model_copy(update={"split": strict})

    def refitting(self, epochs: int, text_multiples: Mapping[str, float] | None = None) -> Self:
        """The task that learns from validation events too, for so many epochs in its schedule."""
        split = self.split.model_copy(update={"kind": "refit"})
        training = self.training.model_copy(update={"epochs": epochs})
        architecture = self.architecture.model_copy(update={"training": training})
        chosen = {"architecture": architecture, "text_multiples": text_multiples}
        return self.model_copy(update={"split": split} | chosen)

    @property
    def training(self) -> TrainingConfig:
        """How it is trained; what the split keeps from training is no negative either."""
        training = self.architecture.training
        if not self.split.cold_items and not self.split.train_people:
            return training
        return training.model_copy(update={"unseen_negatives": False})

    @property
    def interleaved(self) -> bool:
        """Whether a history holds events of several domains."""
        architecture = self.architecture
        return (
            self.domain is None
            and isinstance(architecture, HydraModelConfig)
            and architecture.interleave
        )

    def training_recipe(self) -> dict[str, Any]:
        """What decides the trained weights, beside the corpus and the vectors."""
        left_out = {"training", "joint", "candidates", "backend", "interleave"}
        return {
            "model": self.model,
            "domain": self.domain,
            "interleaved": self.interleaved,
            "split": key_fields(self.split),
            "architecture": key_fields(self.architecture, exclude=left_out),
            "training": key_fields(self.training, exclude={"checkpoint_steps"}),
            "mask_seen": self.evaluation.mask_seen,
            "seed": self.seed,
        } | ({"text_multiples": self.text_multiples} if self.text_multiples else {})

    def ranking_recipe(self) -> dict[str, Any]:
        """What decides the ranks, beside the weights: not the cut-offs, not the block size."""
        return {"model": self.model, "mask_seen": self.evaluation.mask_seen}


class TaskFolders(BaseModel):
    """Where a task's inputs stand: the corpus and, for models with text, the item vectors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: Path
    vectors: Path | None
