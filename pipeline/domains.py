"""Clean one domain: raw tables in, a checked and counted Domain out."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.sources import SourceConfig
from pipeline.sources.options import checked_name


class CleaningConfig(BaseModel):
    """What is kept of a domain. Rules are our choice [D]; 5-core is the field's custom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k_core: int = Field(
        5,
        ge=1,
        description="remove users and items with fewer interactions than this, again and again "
        "until none is left to remove; 1 removes nothing",
    )
    min_history: int = Field(
        1, ge=1, description="remove users with fewer interactions than this (with the k-core)"
    )
    max_history: int | None = Field(
        None,
        ge=1,
        description="remove users with more interactions than this, such as robots, before the "
        "k-core; null: nobody",
    )
    max_text_chars: int = Field(
        2000, ge=1, description="cut an item's text after this many characters, at a space"
    )
    max_bad_rows: int = Field(
        0,
        ge=0,
        description="stop if more rows than this cannot be read; those below it are listed in "
        "quarantine/DOMAIN.jsonl with file, line and reason",
    )

    @model_validator(mode="after")
    def _lengths_leave_somebody(self) -> CleaningConfig:
        least = max(self.k_core, self.min_history)
        if self.max_history is not None and self.max_history < least:
            raise ValueError(
                f"max_history {self.max_history} removes every user that k_core and min_history "
                f"keep ({least} interactions or more): raise it or lower them"
            )
        return self


class DomainConfig(BaseModel):
    """One domain: its name, where its data come from, what is kept of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="the domain's name: a-z, 0-9, `_` and `-`; unique in a run")
    source: SourceConfig = Field(description="where the data come from")
    cleaning: CleaningConfig = Field(
        default_factory=lambda: CleaningConfig.model_validate({}),
        description="what is kept of the data",
    )

    @field_validator("name")
    @classmethod
    def _name_is_safe(cls, value: str) -> str:
        return checked_name(value, "the domain name")
