"""A record of figures, the run that it belongs to, and what a tracker must do with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

# interrupted: by Ctrl-C or SIGTERM; the same command goes on. failed: by an error.
Status = Literal["finished", "failed", "interrupted"]


class Figures(NamedTuple):
    """What a worker measured at one moment of its stage.

    Attributes:
        values: figures by name, such as {"loss": 3.1}; "/" parts a name and a domain.
        step: optimizer steps done, from 1; None for what belongs to the stage as a whole.
        epoch: epochs done, from 1; None where the stage counts none.
    """

    values: Mapping[str, float]
    step: int | None = None
    epoch: int | None = None


@dataclass(frozen=True)
class Record:
    """Figures of one stage (or of `metrics`: the final ones), seconds since 1970 of their time."""

    stage: str
    figures: Figures
    time: float

    def named(self) -> dict[str, float]:
        """The finite values under names that every tracker takes: train.sasrec/ndcg_at_10."""
        return {
            f"{self.stage}/{name.replace('@', '_at_')}": value
            for name, value in self.figures.values.items()
            if math.isfinite(value)
        }

    def to_json(self) -> dict[str, Any]:
        """As it stands in tracking.jsonl; a number that is not finite is null there."""
        values = {n: v if math.isfinite(v) else None for n, v in self.figures.values.items()}
        return {
            "event": "log",
            "time": round(self.time, 3),
            "stage": self.stage,
            "step": self.figures.step,
            "epoch": self.figures.epoch,
            "values": values,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Record:
        """The inverse of `to_json`."""
        values = {n: math.nan if v is None else float(v) for n, v in content["values"].items()}
        figures = Figures(values, content["step"], content["epoch"])
        return cls(content["stage"], figures, content["time"])


@dataclass(frozen=True)
class TrackedRun:
    """The run that is followed.

    Attributes:
        name: of the config.
        folder: the run's folder; trackers that keep files keep them there.
        parameters: what is known of the run before it begins: the run card's config, versions,
            seed and hardware, by dotted name.
    """

    name: str
    folder: Path
    parameters: Mapping[str, str]


class Tracker(Protocol):
    """One way to follow a run. Any of these may raise: the run goes on without it."""

    def start(self, run: TrackedRun) -> None:
        """The run begins."""

    def log(self, record: Record) -> None:
        """Figures, in the order in which they were measured within a stage."""

    def finish(self, status: Status, parameters: Mapping[str, str]) -> None:
        """The run is over; `parameters` is what only its end could tell, by dotted name."""


def flattened(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings and lists of them as one mapping: {"domains.0.name": "books"}."""
    flat: dict[str, str] = {}
    for name, value in content.items():
        path = f"{prefix}{name}"
        if isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
            value = {str(number): part for number, part in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{path}.")
        else:
            flat[path] = str(value)
    return flat
