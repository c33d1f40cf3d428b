"""A study: one run's config, and cells that each change a few of its fields."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from pipeline.config import BASELINES, TEXT_MODELS, ModelName, RunConfig
from pipeline.study_base import CellBase, StudyBase
from pipeline.user_model_task import UserModelTask


class Cell(CellBase):
    """One line of a study's table: a name, what it is about, and what differs from the run."""

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


class StudyConfig(StudyBase[Cell]):
    """Models on one domain, trained once a cell and seed, and ranked on the test targets."""

    model: ModelName = Field("hydra_ids", description="the model that is trained, from ids alone")
    metrics: tuple[str, ...] = Field(
        ("ndcg@10", "hr@10"), min_length=1, description="the table's columns"
    )
    own_page: bool = Field(
        False, description="true: docs/studies/NAME.md and a plot; false: a section of results.md"
    )

    @model_validator(mode="after")
    def _is_sound(self) -> StudyConfig:
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

    def run_of(self, cell: Cell) -> RunConfig:
        """The run's config with the cell's changes.

        Raises:
            ValueError: the cell changes a field that does not exist, or to what it cannot be.
        """
        return super().run_of(self._chosen(cell))

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
    return StudyConfig.load(path)
