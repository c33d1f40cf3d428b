"""A study: one run's config, and cells that each change a few of its fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.config import BASELINES, TEXT_MODELS, ModelName, RunConfig
from pipeline.config_mistakes import describe_mistakes, did_you_mean
from pipeline.config_overrides import put_field
from pipeline.sources.options import checked_name
from pipeline.strict_yaml import load_mapping
from pipeline.user_model_task import UserModelTask


class Cell(BaseModel):
    """One line of a study's table: a name, what it is about, and what differs from the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="the cell's name, and that of its file of results")
    about: str = Field(description="what readers see in the table")
    change: dict[str, Any] = Field(
        default_factory=dict, description="fields of the run by their dotted names, and values"
    )
    model: ModelName | None = Field(
        None, description="the model, of ids alone: trained, or a baseline; null: the study's"
    )
    refit: str | None = Field(
        None,
        description="a cell of the strict split: the same again with the validation events as "
        "targets, for as many epochs as were best there, seed by seed",
    )
    against: str | None = Field(
        None, description="the cell that it is compared with; null: the study's first"
    )


class StudyConfig(BaseModel):
    """Models on one domain, trained once a cell and seed, and ranked on the test targets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="the study's name")
    title: str = Field(description="the heading of its table")
    run: dict[str, Any] = Field(
        description="a run's config, which cells change: its content, or in a file the path of a "
        "YAML file, relative to the study's"
    )
    model: ModelName = Field("hydra_ids", description="the model that is trained, from ids alone")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="seeds of each cell")
    metrics: tuple[str, ...] = Field(
        ("ndcg@10", "hr@10"), min_length=1, description="the table's columns"
    )
    own_page: bool = Field(
        False, description="true: docs/studies/NAME.md and a plot; false: a section of results.md"
    )
    cells: tuple[Cell, ...] = Field(min_length=1, description="the first one is compared with")

    @model_validator(mode="after")
    def _is_sound(self) -> StudyConfig:
        checked_name(self.name, "the study's name")
        names = [checked_name(cell.name, "a cell's name") for cell in self.cells]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValueError(f"cells: got {name!r} twice; names must differ")
        for model in (self.model, *(cell.model for cell in self.cells)):
            if model in TEXT_MODELS:
                raise ValueError(
                    f"model: got {model}, expected one of ids alone, such as hydra_ids or sasrec"
                )
        for cell in self.cells:
            self._check_named(cell)
        return self

    def _check_named(self, cell: Cell) -> None:
        """Raise ValueError unless the cells that a cell names are there and can be what it says."""
        for name in filter(None, (cell.against, cell.refit)):
            self.cell(name)
        if cell.refit is None:
            return
        if cell.change or cell.model is not None:
            raise ValueError(
                f"cell {cell.name}: got change or model beside refit, expected neither; it is the "
                f"model of {cell.refit} with its settings"
            )
        if self.cell(cell.refit).refit is not None:
            raise ValueError(
                f"cell {cell.name}: refit: {cell.refit} is a refit itself; name a cell that "
                "chooses its epochs on validation"
            )

    def cell(self, name: str) -> Cell:
        """The cell of this name.

        Raises:
            ValueError: there is none.
        """
        for cell in self.cells:
            if cell.name == name:
                return cell
        hint = did_you_mean(name, [cell.name for cell in self.cells])
        raise ValueError(f"cells: there is no cell {name}; {hint}")

    def run_of(self, cell: Cell) -> RunConfig:
        """The run's config with the cell's changes.

        Raises:
            ValueError: the cell changes a field that does not exist, or to what it cannot be.
        """
        content = self.run
        for field, value in self._chosen(cell).change.items():
            content = put_field(content, field.split("."), value)
        try:
            return RunConfig.model_validate(content)
        except ValidationError as error:
            where = f"cell {cell.name}"
            raise ValueError(describe_mistakes(error, RunConfig, where)) from error

    def model_of(self, cell: Cell) -> ModelName:
        """The model that a cell trains."""
        return self._chosen(cell).model or self.model

    def is_trained(self, cell: Cell) -> bool:
        """Whether a cell's model is trained; a baseline only counts, and needs no seeds."""
        return self.model_of(cell) not in BASELINES

    def task(self, cell: Cell, seed: int) -> UserModelTask:
        """What is trained and ranked for a cell and a seed, on the run's first domain.

        A refit's is that of the cell it repeats, which chooses the epochs.
        """
        config = self.run_of(cell)
        task = UserModelTask.of(self.model_of(cell), config.domains[0].name, config)
        return task.model_copy(update={"seed": seed})

    def _chosen(self, cell: Cell) -> Cell:
        """The cell whose model and settings count."""
        return cell if cell.refit is None else self.cell(cell.refit)


def load_study(path: Path) -> StudyConfig:
    """Read a study's YAML file, and the run's that it may name, and check every cell's config.

    Raises:
        ValueError: one sentence a mistake.
    """
    content = load_mapping(path)
    if isinstance(content.get("run"), str):
        content["run"] = load_mapping(path.parent / content["run"])
    try:
        study = StudyConfig.model_validate(content)
    except ValidationError as error:
        raise ValueError(describe_mistakes(error, StudyConfig, str(path))) from error
    for cell in study.cells:
        study.run_of(cell)
    return study
