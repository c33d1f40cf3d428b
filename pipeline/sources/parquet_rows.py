"""Columns of Parquet files and of Arrow batches, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.sources.delimited import column_places
from pipeline.sources.pieces import Columns, Piece

BATCH_ROWS = 100_000


def parquet_pieces(file: Path, columns: Mapping[str, str]) -> Iterator[Piece]:
    """Read some columns of a Parquet file, a batch of rows at a time.

    Args:
        file: one Parquet file.
        columns: the new name of each column wanted -> its name in the file. A new name that
            ends in `_id` asks for exact values: a column of floats is refused.

    Raises:
        ValueError: a column is absent or of a type that is no text, or the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Opened here, since pyarrow would take a missing file's message to the user as it is.
        with pq.ParquetFile(file) as table:
            column_places(file, columns, table.schema_arrow.names)
            names = list(dict.fromkeys(columns.values()))
            batches = table.iter_batches(batch_size=BATCH_ROWS, columns=names)
            yield from arrow_pieces(file, frames_of(batches), columns)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file} is not a readable Parquet file ({reason})") from error


def arrow_pieces(
    file: Path, frames: Iterable[pl.DataFrame], columns: Mapping[str, str]
) -> Iterator[Piece]:
    """The columns of frames that follow one another, as text.

    Args:
        file: what messages name.
        frames: with the columns in any type that is a text, a number, a time or a list of texts.
        columns: the new name of each column wanted -> its name in the frames.

    Raises:
        ValueError: a column is of another type.
    """
    first_row = 1
    for frame in frames:
        texts = frame.select(
            _as_text(file, name, frame.schema[name], exact=new.endswith("_id")).alias(new)
            for new, name in columns.items()
        )
        times = frozenset(new for new, name in columns.items() if frame.schema[name].is_temporal())
        yield Piece(texts, partial(_with_places, file, texts, first_row), times)
        first_row += frame.height


def parquet_schema(file: Path) -> dict[str, pl.DataType]:
    """The type of each column of a Parquet file, by its name.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return dict(pl.read_parquet_schema(file))
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file} is not a readable Parquet file ({reason})") from error


def frames_of(batches: Iterable[Any]) -> Iterator[pl.DataFrame]:
    """Arrow's record batches or tables as frames."""
    for batch in batches:
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        yield frame


def _with_places(file: Path, texts: pl.DataFrame, first_row: int) -> Columns:
    number = pl.int_range(first_row, first_row + pl.len(), dtype=pl.Int64).alias("line")
    row = pl.concat_str([pl.col(name).fill_null("null") for name in texts.columns], separator=", ")
    return Columns(file, texts.with_columns(number, row.alias("row")), texts.height, ())


def _as_text(file: Path, name: str, dtype: pl.DataType, *, exact: bool) -> pl.Expr:
    """A column as text; times become unix seconds."""
    column = pl.col(name)
    if dtype == pl.String:
        return column
    if dtype.is_float() and exact:
        raise ValueError(
            f"{file}: the ids in the column {name!r} are {dtype}, so that 7 reads 7.0: write them "
            "as whole numbers or text"
        )
    if dtype.is_numeric() or isinstance(dtype, pl.Categorical | pl.Enum | pl.Null):
        return column.cast(pl.String)
    if isinstance(dtype, pl.Datetime | pl.Date) and not exact:
        return column.dt.epoch("s").cast(pl.String)
    if isinstance(dtype, pl.List) and dtype.inner == pl.String:
        return column.list.join(", ")
    raise ValueError(
        f"{file}: the column {name!r} is {dtype}, expected text, numbers, times or lists of text"
    )
