"""The `ids` format: one user a line, the user id and then item ids in order; no times, no texts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from pipeline.paths import resolve
from pipeline.sources.lines import read_lines
from pipeline.sources.options import SourceOptions, existing_file
from pipeline.sources.tables import RawTables, first_reason, no_items, reject_where_reason


class IdsConfig(SourceOptions):
    """A file of user histories as bare ids."""

    format: Literal["ids"] = Field("ids", description="this format's name")
    path: str = Field(
        description="file with a user a line (user id, item ids in order, separated by spaces; "
        ".gz too): absolute, or relative to the data root (HYDRAREC_DATA)"
    )

    def files(self, data_root: Path) -> tuple[Path, ...]:
        """The one file, absolute."""
        return (resolve(self.path, data_root),)

    def describe(self) -> str:
        """The format and the file's name."""
        return f"ids {Path(self.path).name}"


def read_ids(config: IdsConfig, data_root: Path) -> RawTables:
    """Read a file of bare ids; the order is `sequence`.

    Raises:
        ValueError: the file is absent or damaged as a whole.
    """
    file = existing_file(config.files(data_root)[0], config.describe())
    lines = read_lines(file)
    # Published files differ in their spaces; ids hold none, so any run of them separates.
    ids = pl.col("row").str.strip_chars().str.replace_all(r"\s+", " ").str.split(" ")
    rows = lines.rows.with_columns(ids.list.first().alias("user_id"), ids.alias("item_id"))
    rows = rows.with_columns(pl.col("item_id").list.slice(1))
    fault = first_reason(
        [
            (pl.col("item_id").list.len() == 0, "has a user id but no item ids"),
            (~pl.col("user_id").is_first_distinct(), "the user stands on an earlier line too"),
        ]
    )
    rows, rejected = reject_where_reason(rows.with_columns(fault), file)
    rows = rows.with_columns(pl.int_ranges(pl.col("item_id").list.len()).alias("timestamp"))
    return RawTables(
        interactions=rows.select("user_id", "item_id", "timestamp").explode("item_id", "timestamp"),
        items=no_items(),
        order="sequence",
        rows_read=lines.rows_read,
        rejected=(*lines.rejected, *rejected),
    )
