"""Columns of Parquet files and of Arrow batches, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.sources.delimited import column_places
from pipeline.sources.lines import NOT_UTF8
from pipeline.sources.pieces import Columns, Piece
from pipeline.sources.tables import RejectedRow

BATCH_ROWS = 100_000
# Of a batch, as far as the file tells: texts may be long.
_BATCH_BYTES = 16 << 20
# A column of frames: the row holds a text that is none. Names in files cannot hold a NUL.
_NO_TEXT = "\0no text"
_STREAM_BYTES = 1 << 20  # of a column's file at a time


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
        # Read as a stream: pyarrow would keep all that it has read ahead until the file is closed,
        # in the end the whole of it, and of a column of a row group all pages at once.
        with pq.ParquetFile(
            file, pre_buffer=False, buffer_size=_STREAM_BYTES, page_checksum_verification=True
        ) as table:
            column_places(file, columns, table.schema_arrow.names)
            names = list(dict.fromkeys(columns.values()))
            batches = table.iter_batches(batch_size=_batch_rows(table.metadata), columns=names)
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
        frames: from `frames_of`, with the columns in any type that is a text, a number, a time or
            a list of texts.
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
        bad = frame[_NO_TEXT] if _NO_TEXT in frame.columns else None
        slow = partial(_with_places, file, texts, first_row, bad)
        yield Piece(texts if bad is None else None, slow, times)
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
    """Arrow's record batches or tables as frames.

    Neither Arrow nor polars looks at the bytes of texts, and polars ends the process over some
    that are no UTF-8; so that is done here, and their rows are marked.
    """
    for batch in batches:
        sound, bad = _sound(batch)
        frame = pl.from_arrow(sound)
        assert isinstance(frame, pl.DataFrame)
        yield frame if bad is None else frame.with_columns(pl.Series(_NO_TEXT, bad))


def _batch_rows(metadata: Any) -> int:
    """Rows of a batch that hold about _BATCH_BYTES, by the mean row of the largest row group."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    row_bytes = max((g.total_byte_size / max(g.num_rows, 1) for g in groups), default=0)
    return max(1, min(BATCH_ROWS, int(_BATCH_BYTES / max(row_bytes, 1))))


def _sound(batch: Any) -> tuple[Any, list[bool] | None]:
    """The batch with null for texts that are no UTF-8, and which rows hold one; None: none does."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
        return batch, None
    except pa.ArrowInvalid:
        bad = [False] * batch.num_rows
    for place, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            raws = column.cast(pa.large_binary()).to_pylist()
            texts = [_decoded(raw) for raw in raws]
            for row, (raw, text) in enumerate(zip(raws, texts, strict=True)):
                bad[row] |= raw is not None and text is None
            batch = batch.set_column(place, name, pa.array(texts, pa.large_string()))
    batch.validate(full=True)  # whatever else is wrong concerns the file as a whole
    return batch, bad


def _decoded(raw: bytes | None) -> str | None:
    """The bytes as text; None where they are none."""
    try:
        return None if raw is None else raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _with_places(file: Path, texts: pl.DataFrame, first_row: int, bad: pl.Series | None) -> Columns:
    number = pl.int_range(first_row, first_row + pl.len(), dtype=pl.Int64).alias("line")
    row = pl.concat_str([pl.col(name).fill_null("null") for name in texts.columns], separator=", ")
    rows = texts.with_columns(number, row.alias("row"))
    if bad is None:
        return Columns(file, rows, texts.height, ())
    rejected = tuple(
        RejectedRow.of(file, line, NOT_UTF8, text)
        for line, text in rows.filter(bad).select("line", "row").iter_rows()
    )
    return Columns(file, rows.filter(~bad), texts.height, rejected)


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
