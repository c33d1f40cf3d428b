"""Splits: which event trains, which chooses, which tests."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SplitKind = Literal["strict", "refit", "time"]


class SplitConfig(BaseModel):
    """How events are held out, for each (user, domain). Our choice [D], as the field does it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: SplitKind = Field(
        "strict",
        description="strict: the last event is test, the one before validation, neither trains; "
        "refit: the validation event trains too (choose on strict, then train again); time: "
        "global cut-offs",
    )
    max_history: int | None = Field(
        50, ge=1, description="events of a history that a model sees, the latest; null: all"
    )
    validation_from: int | None = Field(
        None, description="kind time: events from this unix second on are held out for validation"
    )
    test_from: int | None = Field(
        None, description="kind time: events from this unix second on are held out for test"
    )

    @model_validator(mode="after")
    def _cut_offs_belong_to_time(self) -> SplitConfig:
        cuts = (self.validation_from, self.test_from)
        if self.kind != "time" and cuts != (None, None):
            raise ValueError(
                f"validation_from and test_from belong to `kind: time`, but kind is {self.kind}: "
                "remove them or change the kind"
            )
        if self.kind == "time" and (cuts[0] is None or cuts[1] is None or cuts[0] >= cuts[1]):
            raise ValueError(
                f"`kind: time` needs validation_from < test_from (unix seconds), got {cuts[0]} and "
                f"{cuts[1]}"
            )
        return self
