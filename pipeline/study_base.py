"""What every study of cells has: a run, cells that change a few of its fields, a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.config import RunConfig
from pipeline.config_mistakes import describe_mistakes, did_you_mean
from pipeline.config_overrides import put_field
from pipeline.sources.options import checked_name
from pipeline.strict_yaml import load_mapping


class CellBase(BaseModel):
    """One line of a study's table: a name, what it is about, and what differs from the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="the cell's name, and that of its file of results")
    about: str = Field(description="what readers see in the table")
    change: dict[str, Any] = Field(
        default_factory=dict, description="fields of the run by their dotted names, and values"
    )


C = TypeVar("C", bound=CellBase)


class StudyBase(BaseModel, Generic[C]):
    """A run, and cells that each change a few of its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="the study's name")
    title: str = Field(description="the heading of its table")
    run: dict[str, Any] = Field(
        description="a run's config, which cells change: its content, or in a file the path of a "
        "YAML file, relative to the study's"
    )
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="seeds of each cell")
    cells: tuple[C, ...] = Field(min_length=1, description="the first one is compared with")

    @model_validator(mode="after")
    def _names_are_sound(self) -> Self:
        checked_name(self.name, "the study's name")
        names = [checked_name(cell.name, "a cell's name") for cell in self.cells]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValueError(f"cells: got {name!r} twice; names must differ")
        return self

    def cell(self, name: str) -> C:
        """The cell of this name.

        Raises:
            ValueError: there is none.
        """
        for cell in self.cells:
            if cell.name == name:
                return cell
        hint = did_you_mean(name, [cell.name for cell in self.cells])
        raise ValueError(f"cells: there is no cell {name}; {hint}")

    def run_of(self, cell: C) -> RunConfig:
        """The run's config with the cell's changes.

        Raises:
            ValueError: the cell changes a field that does not exist, or to what it cannot be.
        """
        content = self.run
        for field, value in cell.change.items():
            content = put_field(content, field.split("."), value)
        try:
            return RunConfig.model_validate(content)
        except ValidationError as error:
            where = f"cell {cell.name}"
            raise ValueError(describe_mistakes(error, RunConfig, where)) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a study's YAML file, and the run's that it may name, and check every cell's config.

        Raises:
            ValueError: one sentence a mistake.
        """
        content = load_mapping(path)
        if isinstance(content.get("run"), str):
            content["run"] = load_mapping(path.parent / content["run"])
        try:
            study = cls.model_validate(content)
        except ValidationError as error:
            raise ValueError(describe_mistakes(error, cls, str(path))) from error
        for cell in study.cells:
            study.run_of(cell)
        return study
