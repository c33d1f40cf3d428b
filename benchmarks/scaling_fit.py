"""Time and memory of each stage as sums of terms, fitted on measured runs by least squares.

A term is a size of the run, or a product of sizes; coefficients are not negative, and each run
counts by its relative error, so that the small ones count as much as the large ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import nnls

from benchmarks.scaling_sizes import Sizes

Figure = Literal["cpu_seconds", "extra_mib"]
Term = Callable[[Sizes], float]
TERMS: dict[str, Term] = {
    "1": lambda s: 1,
    "interactions read": lambda s: s.read,
    "interactions": lambda s: s.interactions,
    "items": lambda s: s.items,
    "users": lambda s: s.users,
    "texts": lambda s: s.texts,
    "characters": lambda s: s.characters,
    "characters fine-tuned on": lambda s: s.finetuning_texts * s.text_length,
    "characters of a step": lambda s: s.finetuning_batch * s.text_length,
    "steps": lambda s: s.steps,
    "epochs x interactions": lambda s: s.epochs * s.interactions,
    "epochs x interactions x width": lambda s: s.epochs * s.interactions * s.width,
    "epochs x users x items": lambda s: s.epochs * s.pairs,
    "users x items": lambda s: s.pairs,
    "items x width": lambda s: s.items * s.width,
    "interactions x width": lambda s: s.interactions * s.width,
}
# By the first words of a stage's name: the terms of its CPU time, and those of its memory.
STAGES: dict[str, dict[Figure, tuple[str, ...]]] = {
    "corpus": {
        "cpu_seconds": ("1", "interactions read", "items"),
        "extra_mib": ("1", "interactions read", "items"),
    },
    "item_llm": {
        "cpu_seconds": ("1", "characters fine-tuned on"),
        "extra_mib": ("1", "characters of a step"),
    },
    "vectors": {"cpu_seconds": ("1", "characters"), "extra_mib": ("1", "characters")},
    "train.hydra_joint": {
        "cpu_seconds": (
            "steps",
            "epochs x interactions",
            "epochs x interactions x width",
            "epochs x users x items",
        ),
        "extra_mib": ("1", "items", "items x width", "interactions"),
    },
    "rank.hydra_joint": {
        "cpu_seconds": ("1", "interactions", "users x items"),
        "extra_mib": ("1", "items x width", "interactions x width"),
    },
    "rank.popularity": {
        "cpu_seconds": ("1", "users", "users x items"),
        "extra_mib": ("1", "users x items"),
    },
    "rank.oracle": {
        "cpu_seconds": ("1", "interactions", "users x items"),
        "extra_mib": ("1", "users x items"),
    },
    "metrics": {"cpu_seconds": ("1", "users"), "extra_mib": ("1", "users")},
    "neighbours": {"cpu_seconds": ("1", "items"), "extra_mib": ("1", "items")},
}


@dataclass(frozen=True)
class Formula:
    """One figure of one stage: the sum of coefficient x term."""

    stage: str
    figure: Figure
    coefficients: Mapping[str, float]

    def __call__(self, sizes: Sizes) -> float:
        """What it predicts."""
        return sum(value * TERMS[term](sizes) for term, value in self.coefficients.items())


@dataclass(frozen=True)
class MeasuredRun:
    """Sizes of a run and the figures of its stages."""

    sizes: Sizes
    stages: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> MeasuredRun:
        """From a worker's answer."""
        return cls(Sizes(**answer["sizes"]), answer["stages"])

    def total(self) -> float:
        """CPU seconds of all stages."""
        return sum(stage["cpu_seconds"] for stage in self.stages.values())


def fit(runs: Sequence[MeasuredRun]) -> list[Formula]:
    """The formulas of all stages.

    Raises:
        ValueError: a stage that no formula is known for.
    """
    if unknown := {stage for run in runs for stage in run.stages} - set(STAGES):
        raise ValueError(f"no formula for the stages {', '.join(sorted(unknown))}: add them here")
    return [
        Formula(stage, figure, _coefficients(runs, stage, figure, terms))
        for stage, figures in STAGES.items()
        for figure, terms in figures.items()
    ]


def _coefficients(
    runs: Sequence[MeasuredRun], stage: str, figure: Figure, terms: Sequence[str]
) -> dict[str, float]:
    measured_R = np.array([run.stages[stage][figure] for run in runs])
    terms_RT = np.array([[TERMS[term](run.sizes) for term in terms] for run in runs], dtype=float)
    weight_R = 1 / np.maximum(measured_R, 1e-3)
    scale_T = terms_RT.max(0)  # else numbers of ten digits and of one stand in one matrix
    found_T, _ = nnls(terms_RT / scale_T * weight_R[:, None], measured_R * weight_R)
    return dict(zip(terms, (found_T / scale_T).tolist(), strict=True))


def predicted(formulas: Sequence[Formula], sizes: Sizes, figure: Figure) -> dict[str, float]:
    """The figure of each stage."""
    return {f.stage: f(sizes) for f in formulas if f.figure == figure}
