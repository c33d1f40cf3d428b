"""A cell's file of results, and the tables of docs/results.md that are made of such files."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from pipeline.results_page import markdown_table
from pipeline.whole_files import read_json, write_json


class SeedResult(BaseModel):
    """What one training gave.

    Attributes:
        seed: of weights, batches and negatives.
        test: the test metrics by name, mean over users.
        validation: NDCG@10 of the best epoch on the validation targets; None for a refit.
        epochs: epochs trained; best_epoch: the one whose weights were ranked.
        seconds: time in training steps, wall clock.
        cpu_seconds: of this process's CPU time in them, which other programs and pauses disturb
            less; None in older results.
        parameters: weights outside the id table.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    test: dict[str, float]
    validation: float | None
    epochs: int
    best_epoch: int
    seconds: float
    parameters: int
    cpu_seconds: float | None = None

    @classmethod
    def of(
        cls,
        seed: int,
        test: dict[str, float],
        facts: dict[str, Any],
        curve: Sequence[dict[str, Any]],
    ) -> Self:
        """Take what the training says of itself, and of each epoch in its curve."""
        cpu = [epoch.get("cpu_seconds") for epoch in curve]
        return cls(
            seed=seed,
            test=test,
            validation=facts.get("validation_ndcg@10"),
            epochs=facts["epochs"],
            best_epoch=facts["best_epoch"],
            seconds=sum(epoch["seconds"] for epoch in curve),
            cpu_seconds=None if None in cpu else sum(cpu),
            parameters=facts["parameters"]["non_embedding"],
        )

    @classmethod
    def counted(cls, seed: int, test: dict[str, float]) -> Self:
        """Of a baseline: no epochs, and no weights."""
        return cls(
            seed=seed, test=test, validation=None, epochs=0, best_epoch=0, seconds=0.0, parameters=0
        )


class CellResult(BaseModel):
    """What a cell gave: a line of the table; its fields are the study's Cell's, and its seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    cell: str
    about: str
    change: dict[str, Any]
    model: str
    config_hash: str
    command: str
    refit: str | None = None
    against: str | None = None
    seeds: tuple[SeedResult, ...] = ()

    @classmethod
    def read(cls, path: Path, config_hash: str | None = None) -> Self | None:
        """The results in a file; None if there is none, or it is of another config."""
        if not path.is_file():
            return None
        content = read_json(path)
        content.pop("summary", None)
        found = cls.model_validate(content)
        return found if config_hash in (None, found.config_hash) else None

    def with_seed(self, figures: SeedResult, command: str) -> Self:
        """The results with those of one more seed, in the order of seeds.

        Args:
            figures: of the seed.
            command: what trains the cell; the seeds are put to it.
        """
        seeds = tuple(sorted((*self.seeds, figures), key=lambda result: result.seed))
        numbers = " ".join(str(result.seed) for result in seeds)
        update = {"seeds": seeds, "command": f"{command} --seeds {numbers}"}
        return self.model_copy(update=update)

    def mean(self, metric: str) -> float:
        """Mean of a test metric over the seeds."""
        return statistics.fmean(result.test[metric] for result in self.seeds)

    def deviation(self, metric: str) -> float | None:
        """Standard deviation of a test metric over the seeds; None for one seed."""
        values = [result.test[metric] for result in self.seeds]
        return statistics.stdev(values) if len(values) > 1 else None

    def write(self, path: Path) -> None:
        """Write the file, with mean and deviation of every metric beside the seeds' own."""
        names = list(self.seeds[0].test) if self.seeds else []
        summary = {n: {"mean": self.mean(n), "sd": self.deviation(n)} for n in names}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.model_dump(mode="json") | {"summary": summary})


def study_table(results: Sequence[CellResult], metrics: Sequence[str]) -> str:
    """A Markdown table, a line for each cell, and by how much it differs from another cell's."""
    heads = [
        "cell", *metrics, f"difference, {metrics[0]}", "weights beside ids", "seeds",
        "best epoch", "s, CPU", "config",
    ]  # fmt: skip
    lines = []
    named = {result.cell: result for result in results}
    for result in results:
        other = named.get(result.against or results[0].cell)
        lines.append(_line(result, other, metrics, first=results[0]))
    return markdown_table(heads, lines) + "\n"


def _line(
    result: CellResult, other: CellResult | None, metrics: Sequence[str], *, first: CellResult
) -> list[str]:
    training = [
        f"{result.seeds[0].parameters:,}",
        " ".join(str(r.seed) for r in result.seeds),
        ", ".join(_epochs(result, r) for r in result.seeds),
        _seconds(result),
    ]
    return [
        result.about,
        *(_figure(result, metric) for metric in metrics),
        _difference(result, other, metrics[0], first),
        *(training if result.seeds[0].epochs else [""] * len(training)),
        f"`{result.config_hash[:8]}`",
    ]


def _difference(
    result: CellResult, other: CellResult | None, metric: str, first: CellResult
) -> str:
    """Relative difference of the means, and to whom where that is not the first cell."""
    if other is None or other is result or not other.mean(metric):
        return ""
    share = result.mean(metric) / other.mean(metric) - 1.0
    return f"{share:+.1%}" + ("" if other is first else f" to {other.about}")


def _seconds(result: CellResult) -> str:
    """Mean CPU seconds of a training; by the wall where a seed is from before they were kept."""
    cpu = [seed.cpu_seconds for seed in result.seeds if seed.cpu_seconds is not None]
    if len(cpu) == len(result.seeds):
        return f"{statistics.fmean(cpu):.0f}"
    return f"{statistics.fmean(seed.seconds for seed in result.seeds):.0f} (wall)"


def _epochs(result: CellResult, seed: SeedResult) -> str:
    return str(seed.epochs) if result.refit else f"{seed.best_epoch}/{seed.epochs}"


def _figure(result: CellResult, metric: str) -> str:
    deviation = result.deviation(metric)
    return f"{result.mean(metric):.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
