"""Which of the tried settings is best on validation, and what is kept of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import MANIFEST
from pipeline.candidates import Settings, with_fields
from pipeline.user_model_task import UserModelTask
from pipeline.user_models import CURVE, WEIGHTS
from pipeline.whole_files import read_json, write_json

CHOICE = "choice.json"
_FIGURE = "validation_ndcg@10"


@dataclass(frozen=True)
class Tried:
    """One candidate after its training.

    Attributes:
        settings: its values, by dotted field; empty: as the config says.
        folder: its weights and its curve.
        facts: what its training found out: epochs, best epoch, validation figure, parameters.
    """

    settings: Settings
    folder: Path
    facts: dict[str, Any]

    @classmethod
    def open(cls, settings: Settings, folder: Path) -> Tried:
        """Read what a finished stage of the run store says of its making."""
        return cls(settings, folder, read_json(folder / MANIFEST)["recipe"]["made"])

    @property
    def validation(self) -> float:
        """NDCG@10 on the validation targets at the best epoch."""
        return float(self.facts[_FIGURE])


def best_of(tried: Sequence[Tried]) -> Tried:
    """The highest validation figure; of equal ones the first."""
    return max(tried, key=lambda candidate: candidate.validation)


def keep(best: Tried, tried: Sequence[Tried], output: Path, *, weights: bool) -> dict[str, Any]:
    """Write the choice and the best one's curve, and its weights unless it is trained anew.

    Returns:
        Facts for the run card: the best one's, and every candidate's settings and figure.
    """
    if weights:
        shutil.copytree(best.folder / WEIGHTS, output / WEIGHTS, dirs_exist_ok=True)
    shutil.copyfile(best.folder / CURVE, output / CURVE)
    write_json(output / CHOICE, best.settings)
    # Time and memory are those of the candidate's own stage.
    facts = {name: fact for name, fact in best.facts.items() if name not in ("seconds", "peak_mb")}
    return facts | {"candidates": [_told(candidate, best) for candidate in tried]}


def as_chosen(task: UserModelTask, trained: Path) -> UserModelTask:
    """The task with the settings that were chosen for it, if there was a choice.

    Args:
        task: as the config has it.
        trained: the output of its stage train.MODEL[.DOMAIN].
    """
    if not (trained / CHOICE).is_file():
        return task
    settings = {**read_json(trained / CHOICE), "candidates": {}}
    architecture = with_fields(task.architecture, settings, CHOICE)
    return task.model_copy(update={"architecture": architecture})


def _told(candidate: Tried, best: Tried) -> dict[str, Any]:
    return {
        "settings": candidate.settings,
        _FIGURE: candidate.validation,
        "best_epoch": candidate.facts["best_epoch"],
        "epochs": candidate.facts["epochs"],
        "chosen": candidate is best,
    }
