"""A study of whole runs: the same run with a few fields changed at a time, one run a cell and seed.

Other studies train one model of ids alone (study_config.py); here each cell goes through all
stages of a run, item LLM, vectors, joint training and ranking, and what cells have in common is
taken from the run store.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from pipeline.config import RunConfig
from pipeline.estimates import COMPARED_BY
from pipeline.locks import exclusive_lock
from pipeline.progress import Progress
from pipeline.run import RunOutcome, execute
from pipeline.stage_names import is_training, parsed
from pipeline.study_base import CellBase, StudyBase
from pipeline.transfer import of_seed
from pipeline.whole_files import read_json, write_json

_VALIDATION = "validation_ndcg@10"


class RunCell(CellBase):
    """One run of the study: a name, what it is about, what differs, and its place in the plot."""

    line: str | None = Field(None, description="the line of the plot that it is a point of")
    x: float | None = Field(
        None, description="where on that line; of a cell with x and no line: on every line"
    )


class RunStudyConfig(StudyBase[RunCell]):
    """A run, and cells that each change a few of its fields."""

    kind: Literal["runs"] = Field(description="tells it from other studies")
    shown: tuple[str, ...] = Field(min_length=1, description="models of the tables and the plot")
    bucket: str | None = Field(
        None, description="GROUP/BUCKET whose users are shown, such as item/cold; null: all users"
    )
    x_title: str | None = Field(None, description="what x is; null: there is no plot")

    def run_of(self, cell: RunCell) -> RunConfig:
        """The run's config with the cell's changes, under a name of its own; raises ValueError."""
        return super().run_of(cell).model_copy(update={"name": f"{self.name}-{cell.name}"})


class RunFigures(BaseModel):
    """What one run gave.

    Attributes:
        seed: of the training.
        seconds: of the run, with stages that were there already taken as nothing.
        users: test users, by domain.
        items: by domain.
        test: domain -> model -> NDCG@10 over all its test users.
        buckets: domain -> "GROUP/BUCKET" -> {"users": n, MODEL: NDCG@10}.
        validation: model -> NDCG@10 on validation targets, the mean over what it was trained on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    seconds: float
    users: dict[str, int]
    items: dict[str, int]
    test: dict[str, dict[str, float]]
    buckets: dict[str, dict[str, dict[str, float]]]
    validation: dict[str, float]

    @classmethod
    def of(cls, seed: int, outcome: RunOutcome) -> Self:
        """Take what a finished run says."""
        domains = outcome.metrics["domains"]
        return cls(
            seed=seed,
            seconds=round(sum(stage.seconds for stage in outcome.stages.values()), 1),
            users={name: domain["evaluated_users"] for name, domain in domains.items()},
            items={name: domain["items"] for name, domain in domains.items()},
            test={name: _figures(domain["models"]) for name, domain in domains.items()},
            buckets={name: _buckets(domain["buckets"]) for name, domain in domains.items()},
            validation=_validation(outcome),
        )


class RunCellResult(BaseModel):
    """A cell's file of results: RESULTS/STUDY.CELL.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str
    cell: str
    about: str
    change: dict[str, Any]
    line: str | None
    x: float | None
    config_hash: str
    command: str
    seeds: tuple[RunFigures, ...] = ()

    @classmethod
    def read(cls, path: Path, config_hash: str) -> Self | None:
        """The results in a file; None if there is none, or it is of another config."""
        if not path.is_file():
            return None
        found = cls.model_validate(read_json(path))
        return found if found.config_hash == config_hash else None


class RunStudy:
    """Runs the cells of a study and keeps their files of results.

    Args:
        study: what to run.
        results: the folder of the cells' files.
        runs: the folder of the runs, a subfolder each.
    """

    def __init__(self, study: RunStudyConfig, results: Path, runs: Path) -> None:
        self.study, self.results, self.runs = study, results, runs

    def run(
        self, cell: RunCell, seed: int, command: str, progress: Callable[[], Progress]
    ) -> RunCellResult:
        """Run one seed of a cell, unless its figures are there already.

        Several processes may run seeds of one cell at a time.

        Args:
            cell: what to run.
            seed: of the training; the data are those of the run's own seed.
            command: what makes the cell again.
            progress: gives the run a progress of its own.
        """
        found = self.result(cell, command)
        if seed in {figures.seed for figures in found.seeds}:
            return found
        config = of_seed(self.study.run_of(cell), seed)
        outcome = execute(config, self.runs / cell.name / f"seed-{seed}", progress())
        with exclusive_lock(self.runs / f".{cell.name}.lock", wait=True):
            seeds = (*self.result(cell, command).seeds, RunFigures.of(seed, outcome))
            found = found.model_copy(update={"seeds": tuple(sorted(seeds, key=lambda f: f.seed))})
            write_json(self._path(cell), found.model_dump(mode="json"))
        return found

    def result(self, cell: RunCell, command: str = "") -> RunCellResult:
        """What is there of a cell: without seeds if nothing is."""
        config_hash = self.study.run_of(cell).results_hash()
        fresh = RunCellResult(
            study=self.study.name, cell=cell.name, about=cell.about, change=cell.change,
            line=cell.line, x=cell.x, config_hash=config_hash, command=command,
        )  # fmt: skip
        return RunCellResult.read(self._path(cell), config_hash) or fresh

    def finished(self) -> list[RunCellResult]:
        """The results of all cells that have any, in the study's order."""
        found = [self.result(cell) for cell in self.study.cells]
        return [result for result in found if result.seeds]

    def _path(self, cell: RunCell) -> Path:
        return self.results / f"{self.study.name}.{cell.name}.json"


def load_run_study(path: Path) -> RunStudyConfig:
    """Read a study's YAML file, and the run's that it may name, and check every cell's config.

    Raises:
        ValueError: one sentence a mistake.
    """
    return RunStudyConfig.load(path)


def _figures(models: Mapping[str, Any]) -> dict[str, float]:
    return {model: figures[COMPARED_BY] for model, figures in models.items()}


def _buckets(groups: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {
        f"{group}/{bucket}": {"users": found["users"], **_figures(found["models"])}
        for group, buckets in groups.items()
        for bucket, found in buckets.items()
    }


def _validation(outcome: RunOutcome) -> dict[str, float]:
    """Of models trained domain by domain, the mean over the domains."""
    found: dict[str, list[float]] = {}
    for name, stage in outcome.stages.items():
        if is_training(name) and _VALIDATION in stage.facts:
            found.setdefault(parsed(name).model, []).append(float(stage.facts[_VALIDATION]))
    return {model: statistics.fmean(values) for model, values in sorted(found.items())}
