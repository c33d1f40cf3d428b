"""The `table` format: one interaction a row and, in a second table, one item a row.

Parquet, CSV, TSV or JSONL, by the file's name (.csv, .tsv, .jsonl, .ndjson, .parquet; text files
may be .gz); a column map says which column is what.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.paths import resolve
from pipeline.sources.columns import Columns, read_columns, table_kind
from pipeline.sources.options import SourceOptions, existing_file
from pipeline.sources.tables import (
    EARLIEST,
    LATEST,
    RawTables,
    first_reason,
    joined_text,
    no_items,
    reject_where_reason,
)
from pipeline.sources.times import TimeUnit, unix_seconds

_EMPTY_USER = (pl.col("user_id").fill_null("") == "", "the user id is empty")
_EMPTY_ITEM = (pl.col("item_id").fill_null("") == "", "the item id is empty")


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
    timestamp_unit: TimeUnit = Field(
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


def read_table(config: TableConfig, data_root: Path) -> RawTables:
    """Read a table of interactions and, if there is one, of items.

    Raises:
        ValueError: a file or a column is absent, or a file is damaged as a whole.
    """
    files = [existing_file(file, config.describe()) for file in config.files(data_root)]
    columns = config.columns
    interactions = _interactions(files[0], columns)
    items = _items(files[1], columns) if len(files) > 1 else None
    return RawTables(
        interactions=interactions.rows.select("user_id", "item_id", "timestamp"),
        items=no_items() if items is None else items.rows.select("item_id", "text"),
        order="sequence" if columns.timestamp is None else "time",
        rows_read=interactions.rows_read + (items.rows_read if items else 0),
        rejected=interactions.rejected + (items.rejected if items else ()),
    )


def _interactions(file: Path, columns: ColumnMap) -> Columns:
    wanted = {"user_id": columns.user, "item_id": columns.item}
    checks = [_EMPTY_USER, _EMPTY_ITEM]
    if columns.timestamp is None:
        table = read_columns(file, wanted)
        return _number_events(_without_faulty(table, table.rows, checks))
    table = read_columns(file, wanted | {"timestamp": columns.timestamp})
    unit: TimeUnit = "s" if "timestamp" in table.in_seconds else columns.timestamp_unit
    rows = table.rows.with_columns(unix_seconds(table.rows["timestamp"], unit))
    time = pl.col("timestamp")
    absent = f"the time is not what timestamp_unit {unit!r} asks for"
    strange = f"the time is not in the years 1900 to 2200: is timestamp_unit {unit!r} right?"
    checks += [(time.is_null(), absent), (~time.is_between(EARLIEST, LATEST), strange)]
    return _without_faulty(table, rows, checks)


def _items(file: Path, columns: ColumnMap) -> Columns:
    texts = {f"text {place}": name for place, name in enumerate(columns.text)}
    table = read_columns(file, {"item_id": columns.items_item or columns.item} | texts)
    rows = table.rows.with_columns(joined_text(list(texts)))
    return _without_faulty(table, rows, [_EMPTY_ITEM])


def _number_events(table: Columns) -> Columns:
    number = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id").alias("timestamp")
    return replace(table, rows=table.rows.with_columns(number))


def _without_faulty(
    table: Columns, rows: pl.DataFrame, checks: list[tuple[pl.Expr, str]]
) -> Columns:
    good, rejected = reject_where_reason(rows.with_columns(first_reason(checks)), table.file)
    return replace(table, rows=good, rejected=(*table.rejected, *rejected))
