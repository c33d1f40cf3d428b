"""What every reader gives: two tables in bounded parts, and the rows it refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
class Part:
    """A bounded piece of a table.

    rows: of interactions: user_id String, item_id String, timestamp Int64 (unix seconds; for
        order `sequence` a number that grows along its user's row); of items: item_id String, text
        String (raw). Row order means nothing. About 250,000 rows at most.
    rows_read: data rows behind it, good and bad.
    left_out: good rows that the source's config leaves out (`min_rating`).
    """

    rows: pl.DataFrame
    rows_read: int
    rejected: tuple[RejectedRow, ...] = ()
    left_out: int = 0


@dataclass(frozen=True)
class WholeTables:
    """All parts of one domain put together: `RawTables` for what fits memory.

    interactions, items: as in Part; the items may lack some and may repeat some.
    rows_read: data rows of all files, good and bad.
    left_out: good rows that the source's config leaves out.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    order: Order
    rows_read: int
    rejected: tuple[RejectedRow, ...]
    left_out: int = 0


@dataclass(frozen=True)
class RawTables:
    """One domain as its source gives it, before any cleaning, a part at a time.

    Both tables are read lazily and once, the interactions first, so that memory is bounded by a
    part and not by a file. What is wrong with a file as a whole is raised (ValueError) while the
    parts are drawn.
    """

    order: Order
    interactions: Iterable[Part]
    items: Iterable[Part]

    def whole(self) -> WholeTables:
        """Draw all parts and put them together.

        Raises:
            ValueError: a file is damaged as a whole.
        """
        events, texts = list(self.interactions), list(self.items)
        return WholeTables(
            interactions=pl.concat([no_interactions(), *(part.rows for part in events)]),
            items=pl.concat([no_items(), *(part.rows for part in texts)]),
            order=self.order,
            rows_read=sum(part.rows_read for part in (*events, *texts)),
            rejected=tuple(row for part in (*events, *texts) for row in part.rejected),
            left_out=sum(part.left_out for part in (*events, *texts)),
        )


def no_interactions() -> pl.DataFrame:
    """An empty table of interactions."""
    return pl.DataFrame(schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64})


def no_items() -> pl.DataFrame:
    """An empty table of items."""
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
    if not fields:
        return pl.lit("").alias("text")
    stripped = [pl.col(name).fill_null("").str.strip_chars() for name in fields]
    parts = [
        pl.when(part == "").then(None).otherwise(part.str.strip_chars_end(" .") if i else part)
        for i, part in enumerate(reversed(stripped))
    ]
    return pl.concat_str(list(reversed(parts)), separator=". ", ignore_nulls=True).alias("text")
