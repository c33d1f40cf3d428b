"""From columns of text to checked parts: fast where a whole piece is sound, else row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from pipeline.sources.tables import Part, RejectedRow, first_reason, reject_where_reason

PART_ROWS = 250_000


@dataclass(frozen=True)
class Columns:
    """The columns asked for, with the place of each row.

    rows: line Int64 (1-based; Parquet: the row), row String (for messages), and each column as
        String, null where it has no value.
    """

    file: Path
    rows: pl.DataFrame
    rows_read: int
    rejected: tuple[RejectedRow, ...]


@dataclass(frozen=True)
class Piece:
    """A bounded run of a file's rows, to be read in one of two ways.

    fast: the columns asked for, as String, if every row is sound as text; else None.
    slow: the same with line numbers, and what is wrong with the rows that are not sound. It is
        the specification: a sound piece gives the same both ways.
    in_seconds: columns that the file gives as times, and the piece in unix seconds.
    """

    fast: pl.DataFrame | None
    slow: Callable[[], Columns]
    in_seconds: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Rules:
    """What a table's rows must be.

    prepare: adds columns to the texts, for example the time as a number.
    checks: (what is wrong, its reason) in order of precedence, over the prepared columns.
    """

    prepare: Callable[[pl.DataFrame], pl.DataFrame]
    checks: tuple[tuple[pl.Expr, str], ...]

    def apply(self, piece: Piece) -> Part:
        """The good rows with all their columns, and the rejected ones."""
        if piece.fast is not None:
            rows = self.prepare(piece.fast)
            wrong = pl.any_horizontal([condition for condition, _ in self.checks]).any()
            if not rows.select(wrong).item():
                return Part(rows, rows.height)
        slow = piece.slow()
        rows = self.prepare(slow.rows).with_columns(first_reason(self.checks))
        good, rejected = reject_where_reason(rows, slow.file)
        every = sorted((*slow.rejected, *rejected), key=lambda row: row.line)
        return Part(good, slow.rows_read, tuple(every))


def bounded(parts: Iterable[Part], rows: int = PART_ROWS) -> Iterator[Part]:
    """The same parts, none with more than so many rows."""
    for part in parts:
        yield Part(part.rows[:rows], part.rows_read, part.rejected, part.left_out)
        for start in range(rows, part.rows.height, rows):
            yield Part(part.rows[start : start + rows], 0)
