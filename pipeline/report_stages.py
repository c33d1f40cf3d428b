"""Where time and memory went: the report's view of the run card's stages and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.model_names import DESCRIPTIONS, in_order, label
from pipeline.report_order import style

_SHORT = 0.01  # of all the stages' time: shorter ones are folded away


@dataclass(frozen=True)
class Stage:
    """One stage: how long it took to make, whenever that was, and its peak memory.

    Widths are shares of the longest and of the largest stage, in percent.
    """

    name: str
    status: str
    seconds: float
    width: float
    peak_mb: float | None
    peak_width: float

    @property
    def is_reused(self) -> bool:
        """Whether an earlier run made it."""
        return self.status == "reused"


@dataclass(frozen=True)
class Stages:
    """The stages of a run, the short ones apart."""

    long: Sequence[Stage]
    short: Sequence[Stage]
    largest: Stage | None  # the one with the highest peak memory

    @property
    def all(self) -> list[Stage]:
        """Long and short ones."""
        return [*self.long, *self.short]

    @property
    def reused(self) -> int:
        """How many an earlier run made."""
        return sum(stage.is_reused for stage in self.all)


def stages(run: Mapping[str, Any]) -> Stages:
    """The stages in the order in which they were done."""
    times = {stage["name"]: _seconds(stage) for stage in run["stages"]}
    longest, total = max(times.values(), default=0.0) or 1.0, sum(times.values())
    peaks = {stage["name"]: stage.get("peak_mb") for stage in run["stages"]}
    highest = max((peak for peak in peaks.values() if peak), default=1.0)
    found = [
        Stage(
            name=stage["name"],
            status=stage["status"],
            seconds=times[stage["name"]],
            width=round(100 * times[stage["name"]] / longest, 3),
            peak_mb=peaks[stage["name"]],
            peak_width=round(100 * (peaks[stage["name"]] or 0.0) / highest, 3),
        )
        for stage in run["stages"]
    ]
    measured = [stage for stage in found if stage.peak_mb]
    return Stages(
        long=[stage for stage in found if stage.seconds >= _SHORT * total],
        short=[stage for stage in found if stage.seconds < _SHORT * total],
        largest=max(measured, key=lambda stage: stage.peak_mb or 0.0, default=None),
    )


def model_rows(metrics: Mapping[str, Any], run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was compared: each model's label, colour, description and parameters."""
    present = in_order({m for domain in metrics["domains"].values() for m in domain["models"]})
    return [
        {
            "label": label(model),
            "colour": style(model)[0],
            "description": DESCRIPTIONS.get(model, ""),
            **{key: _parameters(run, model, key) for key in ("total", "non_embedding")},
        }
        for model in present
    ]


def _seconds(stage: Mapping[str, Any]) -> float:
    """How long the stage took when it was made: of a reused one, not the moment to find it."""
    made = stage.get("made_in_seconds")
    return float(stage["seconds"] if stage["status"] != "reused" or made is None else made)


def _parameters(run: Mapping[str, Any], model: str, key: str) -> int | None:
    found = (run.get("parameters") or {}).get(model) or {}
    return found.get(key)
