"""What every reader gives: two tables, and the rows it refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

Order = Literal["time", "sequence"]

# Times outside are taken for a wrong unit: 1900-01-01 and 2200-01-01 in unix seconds.
EARLIEST, LATEST = -2_208_988_800, 7_258_118_400
_ROW_CHARS = 300


@dataclass(frozen=True)
class RejectedRow:
    """A row that was refused: where it stands, why, and its beginning."""

    file: Path
    line: int  # 1-based line of a text file, row of a Parquet file
    reason: str  # one of few texts, so that reasons can be counted
    row: str

    @classmethod
    def of(cls, file: Path, line: int, reason: str, row: str) -> RejectedRow:
        """A rejected row, cut to a length that can be printed."""
        return cls(file, line, reason, row if len(row) <= _ROW_CHARS else row[:_ROW_CHARS] + "...")

    def __str__(self) -> str:
        """`FILE:LINE: reason; the row begins ...`."""
        return f"{self.file}:{self.line}: {self.reason}; the row begins {self.row[:80]!r}"


@dataclass(frozen=True)
class RawTables:
    """One domain as its source gives it, before any cleaning.

    interactions: user_id String, item_id String, timestamp Int64 (unix seconds; for order
        `sequence` the event's number in its user's row). Row order means nothing.
    items: item_id String, text String (raw); may lack items and may repeat them.
    rows_read: data rows of all files, good and bad.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    order: Order
    rows_read: int
    rejected: tuple[RejectedRow, ...]


def no_items() -> pl.DataFrame:
    """The items table of a source without texts."""
    return pl.DataFrame(schema={"item_id": pl.String, "text": pl.String})


def reject_where_reason(
    rows: pl.DataFrame, file: Path, row: str = "row"
) -> tuple[pl.DataFrame, list[RejectedRow]]:
    """Split rows by their `reason` column: those without one stay, the others are rejected.

    Args:
        rows: has `line` (int), `reason` (String, null = good) and the column named by `row`.
        file: the file they were read from.
        row: column that holds the row's text.
    """
    bad = rows.filter(pl.col("reason").is_not_null())
    rejected = [
        RejectedRow.of(file, line, reason, text or "")
        for line, reason, text in bad.select("line", "reason", row).iter_rows()
    ]
    return rows.filter(pl.col("reason").is_null()).drop("reason"), rejected


def first_reason(checks: Sequence[tuple[pl.Expr, str]]) -> pl.Expr:
    """The text of the first check that is true, else null, as column `reason`."""
    reason = pl.lit(None, dtype=pl.String)
    for condition, text in reversed(checks):
        reason = pl.when(condition).then(pl.lit(text)).otherwise(reason)
    return reason.alias("reason")


def joined_text(fields: Sequence[str]) -> pl.Expr:
    """The non-empty fields as one text, a full stop and a space between, as column `text`."""
    stripped = [pl.col(name).fill_null("").str.strip_chars() for name in fields]
    parts = [
        pl.when(part == "").then(None).otherwise(part.str.strip_chars_end(" .") if i else part)
        for i, part in enumerate(reversed(stripped))
    ]
    return pl.concat_str(list(reversed(parts)), separator=". ", ignore_nulls=True).alias("text")
