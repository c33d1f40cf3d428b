"""The `sequences` format: a folder with items.tsv.gz and sequences.tsv.gz.

items.tsv.gz      item_id TAB title TAB description
sequences.tsv.gz  user_id TAB item ids in order TAB their times, unix seconds (or nothing)

No header, no quoting; ids and times within a field are separated by single spaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from pipeline.paths import resolve
from pipeline.sources.lines import TextLines, read_lines
from pipeline.sources.options import SourceOptions, existing_file
from pipeline.sources.tables import (
    EARLIEST,
    LATEST,
    Order,
    RawTables,
    RejectedRow,
    first_reason,
    joined_text,
    reject_where_reason,
)

TextField = Literal["title", "description"]


class SequencesConfig(SourceOptions):
    """A folder of whole user histories."""

    format: Literal["sequences"] = Field("sequences", description="this format's name")
    path: str = Field(
        description="folder with items.tsv.gz and sequences.tsv.gz: absolute, or relative to the "
        "data root (HYDRAREC_DATA)"
    )
    text_fields: tuple[TextField, ...] = Field(
        ("title", "description"),
        min_length=1,
        description="columns of items.tsv.gz that make an item's text, in this order",
    )

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """sequences.tsv.gz and items.tsv.gz, absolute."""
        folder = resolve(self.path, data_root)
        return folder / "sequences.tsv.gz", folder / "items.tsv.gz"

    def describe(self) -> str:
        """The format and the folder's name."""
        return f"sequences {Path(self.path).name}"


def read_sequences(config: SequencesConfig, data_root: Path) -> RawTables:
    """Read a folder of user histories.

    The order is `time` if any row has times: rows without them are then rejected. Otherwise it
    is `sequence`, and a user who stands on a second line is rejected there.

    Raises:
        ValueError: a file is absent or damaged as a whole.
    """
    sequences, items = (existing_file(f, config.describe()) for f in config.files(data_root))
    histories, order = _read_histories(read_lines(sequences))
    catalogue = _read_items(read_lines(items), config.text_fields)
    return RawTables(
        interactions=histories.table,
        items=catalogue.table,
        order=order,
        rows_read=histories.rows_read + catalogue.rows_read,
        rejected=histories.rejected + catalogue.rejected,
    )


@dataclass(frozen=True)
class _Read:
    table: pl.DataFrame
    rows_read: int
    rejected: tuple[RejectedRow, ...]


def _read_histories(lines: TextLines) -> tuple[_Read, Order]:
    rows, rejected = _split_fields(lines, "expected 3 fields: user, items, times")
    rows = rows.rename({"a": "user_id", "b": "item_id", "c": "timestamp"})
    timed = bool((rows["timestamp"] != "").any())
    rows = rows.with_columns(
        pl.col("item_id").str.split(" "),
        pl.when(pl.col("timestamp") == "")
        .then(None)
        .otherwise(pl.col("timestamp"))
        .str.split(" ")
        .cast(pl.List(pl.Int64), strict=False)
        .alias("timestamp"),
        (pl.col("timestamp") == "").alias("untimed"),
    )
    rows, more = reject_where_reason(rows.with_columns(_history_fault(timed)), lines.file)
    if not timed:
        rows = rows.with_columns(pl.int_ranges(pl.col("item_id").list.len()).alias("timestamp"))
    table = rows.select("user_id", "item_id", "timestamp").explode("item_id", "timestamp")
    order: Order = "time" if timed else "sequence"
    return _Read(table, lines.rows_read, (*lines.rejected, *rejected, *more)), order


def _history_fault(timed: bool) -> pl.Expr:
    items, times = pl.col("item_id"), pl.col("timestamp")
    checks = [
        (pl.col("user_id") == "", "the user id is empty"),
        (items.list.contains(""), "an item id is empty: ids are separated by one space"),
    ]
    if timed:
        wrong = times.list.eval(~pl.element().is_between(EARLIEST, LATEST)).list.any()
        checks += [
            (pl.col("untimed"), "has no times, although other rows have"),
            (times.list.len() != items.list.len(), "has not as many times as items"),
            (times.list.eval(pl.element().is_null()).list.any(), "a time is not a whole number"),
            (wrong, "a time is not in unix seconds (years 1900 to 2200)"),
        ]
    else:
        repeated = ~pl.col("user_id").is_first_distinct()
        checks += [(repeated, "the user stands on an earlier line, and without times the order "
                    "of both is unknown")]  # fmt: skip
    return first_reason(checks)


def _read_items(lines: TextLines, text_fields: tuple[TextField, ...]) -> _Read:
    rows, rejected = _split_fields(lines, "expected 3 fields: item, title, description")
    rows = rows.rename({"a": "item_id", "b": "title", "c": "description"})
    fault = first_reason([(pl.col("item_id") == "", "the item id is empty")])
    rows, more = reject_where_reason(rows.with_columns(fault), lines.file)
    table = rows.select("item_id", joined_text(text_fields))
    return _Read(table, lines.rows_read, (*lines.rejected, *rejected, *more))


def _split_fields(lines: TextLines, fault: str) -> tuple[pl.DataFrame, list[RejectedRow]]:
    """Lines of exactly three fields as columns a, b, c."""
    tabs = pl.col("row").str.count_matches("\t", literal=True)
    rows, rejected = reject_where_reason(
        lines.rows.with_columns(first_reason([(tabs != 2, fault)])), lines.file
    )
    fields = pl.col("row").str.split_exact("\t", 2).struct.rename_fields(["a", "b", "c"])
    return rows.with_columns(fields.alias("fields")).unnest("fields"), rejected
