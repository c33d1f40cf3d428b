"""The file of a search: which model, how many trials, and how each field is drawn.

model: hydra_ids
trials: 16
space:
  user_model.dropout: {uniform: [0.2, 0.6]}
  user_model.training.lr: {loguniform: [1e-3, 1e-2]}
  user_model.layers: {choice: [1, 2]}
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.config import ModelName
from pipeline.config_mistakes import describe_mistakes
from pipeline.strict_yaml import load_mapping

_DIGITS = 4  # significant ones of a drawn number, so that people can read and retype it

Whole = Annotated[int, Field(strict=True)]
Bound = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Range = tuple[Bound, Bound]


class Draw(BaseModel):
    """How one field is drawn: in exactly one of three ways."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uniform: Range | None = Field(None, description="[least, greatest], all equally likely")
    loguniform: Range | None = Field(None, description="the same for the number's logarithm")
    choice: tuple[Any, ...] | None = Field(None, min_length=1, description="one of these")

    @model_validator(mode="after")
    def _is_one_sound_way(self) -> Draw:
        ways = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(ways) != 1:
            got = " and ".join(ways) or "none"
            raise ValueError(f"got {got}, expected one of uniform, loguniform and choice")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            low, high = self.bounds
            raise ValueError(f"{ways[0]}: got [{low:g}, {high:g}], expected [least, greatest]")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(
                f"loguniform: got a least of {self.loguniform[0]:g}, expected one above 0; "
                "a number that may be 0 is drawn by uniform"
            )
        return self

    @property
    def bounds(self) -> Range | None:
        """The least and the greatest number; None for a choice."""
        return self.uniform or self.loguniform

    def draw(self, random: np.random.Generator, *, whole: bool) -> Any:
        """One value.

        Args:
            random: what it is drawn with.
            whole: whether the field takes whole numbers alone.
        """
        if self.choice is not None:
            return self.choice[int(random.integers(len(self.choice)))]
        assert self.bounds is not None
        low, high = self.bounds
        if self.loguniform is not None:
            drawn = math.exp(random.uniform(math.log(low), math.log(high)))
        else:
            drawn = random.uniform(low - 0.5, high + 0.5) if whole else random.uniform(low, high)
        drawn = round(drawn) if whole else float(f"{drawn:.{_DIGITS}g}")
        bounded = min(max(drawn, low), high)
        return int(bounded) if whole else bounded


class SearchConfig(BaseModel):
    """One search. The length of a trial is the config's: `training.epochs` of the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelName = Field(description="the model whose fields are searched")
    domains: tuple[str, ...] | None = Field(
        None, min_length=1, description="domains it is judged on, by their mean; null: all"
    )
    trials: Whole = Field(16, ge=1, description="how many sets of values are tried")
    seed: Whole = Field(0, ge=0, description="of the draws; training has the config's seed")
    grace_epochs: Whole = Field(4, ge=1, description="epochs that every trial gets")
    reduction: Whole = Field(
        3, ge=2, description="1 / reduction of the trials pass a rung; the next is so much higher"
    )
    space: dict[str, Draw] = Field(
        min_length=1, description="dotted field of the config: how it is drawn"
    )

    def rungs(self, epochs: int) -> tuple[int, ...]:
        """Epochs at which trials are compared, the last one being `epochs`.

        >>> SearchConfig(model="sasrec", space={"x": {"choice": [1]}}).rungs(40)
        (4, 12, 36, 40)
        """
        rungs, rung = [], self.grace_epochs
        while rung < epochs:
            rungs.append(rung)
            rung *= self.reduction
        return (*rungs, epochs)


def load_search(path: Path) -> SearchConfig:
    """Read a search's YAML file, strictly.

    Raises:
        ValueError: a sentence for each mistake.
    """
    if not path.is_file():
        raise ValueError(f"--space {path}: there is no such file; configs/search/ has an example")
    try:
        return SearchConfig.model_validate(load_mapping(path))
    except ValidationError as error:
        raise ValueError(describe_mistakes(error, SearchConfig, str(path))) from error
