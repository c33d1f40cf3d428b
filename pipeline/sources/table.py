"""The `table` format: one interaction a row and, in a second table, one item a row.

Parquet, CSV, TSV or JSONL, by the file's name (.csv, .tsv, .jsonl, .ndjson, .parquet; text files
may be .gz); a column map says which column is what.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.sources.options import SourceOptions, resolve

TableKind = Literal["csv", "tsv", "jsonl", "parquet"]
_KINDS: dict[str, TableKind] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


class ColumnMap(BaseModel):
    """Which column holds what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str = Field("user_id", description="column of the interactions with the user's id")
    item: str = Field("item_id", description="column of the interactions with the item's id")
    timestamp: str | None = Field(
        "timestamp",
        description="column of the interactions with the time; null: a user's rows stand in "
        "order and have no times (such a domain never interleaves with another)",
    )
    timestamp_unit: Literal["s", "ms", "iso"] = Field(
        "s",
        description="unit of the times: unix seconds, unix milliseconds, or ISO 8601 text (UTC "
        "where it names no zone); Parquet's own time types need none",
    )
    items_item: str | None = Field(
        None, description="column of the items table with the item's id; null: as in `item`"
    )
    text: tuple[str, ...] = Field(
        ("title",), description="columns of the items table that make an item's text, in order"
    )


class TableConfig(SourceOptions):
    """Interactions and items as tables."""

    format: Literal["table"] = Field("table", description="this format's name")
    interactions: str = Field(
        description="file of interactions (.parquet, .csv, .tsv, .jsonl; text also .gz): absolute, "
        "or relative to the data root (HYDRAREC_DATA)"
    )
    items: str | None = Field(
        None, description="file of items, as above; null: the items have no texts"
    )
    columns: ColumnMap = Field(
        default_factory=lambda: ColumnMap.model_validate({}), description="which column is what"
    )

    @field_validator("interactions", "items")
    @classmethod
    def _kind_is_known(cls, value: str | None) -> str | None:
        if value is not None:
            table_kind(Path(value))
        return value

    @model_validator(mode="after")
    def _text_needs_a_column(self) -> TableConfig:
        if self.items is not None and not self.columns.text:
            raise ValueError(
                "columns.text is empty although `items` names a file: list the columns that make "
                "an item's text, or set `items: null`"
            )
        return self

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The interactions and, if there is one, the items table, absolute."""
        names = (self.interactions,) if self.items is None else (self.interactions, self.items)
        return tuple(resolve(name, data_root) for name in names)

    def describe(self) -> str:
        """The format and the file's name."""
        return f"table {Path(self.interactions).name}"


def table_kind(path: Path) -> TableKind:
    """The kind of a table by its name, with .gz taken off.

    Raises:
        ValueError: the name ends otherwise.
    """
    name = path.name.removesuffix(".gz")
    kind = _KINDS.get(Path(name).suffix.lower())
    if kind is None or (kind == "parquet" and name != path.name):
        raise ValueError(
            f"the table {path.name!r} has an unknown ending: expected .csv, .tsv, .jsonl or "
            ".ndjson (each also .gz), or .parquet"
        )
    return kind
