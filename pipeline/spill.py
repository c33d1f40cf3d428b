"""Tables larger than memory: their rows in partitions by hash, in files once there are many.

All rows of one key stand in one partition, so what concerns a key alone is done a partition at a
time. Which partition that is means nothing and must decide nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

# What is worked on at a time. Our choice [D]: the peak of preparing is a few times as much.
WORKING_BYTES = 32 << 20
_FILES = 64
_FIXED_BYTES = 16  # of a row, whatever its strings are


def gathered(tables: Iterable[pl.DataFrame], most: int = WORKING_BYTES) -> Iterator[pl.DataFrame]:
    """The same rows in tables of about so many bytes, of one row at least."""
    held: list[pl.DataFrame] = []
    size = 0
    for table in _cut(tables, most):
        more = table_bytes(table)
        if held and size + more > most:
            yield pl.concat(held)
            held, size = [], 0
        held.append(table)
        size += more
    if held:
        yield pl.concat(held)


def _cut(tables: Iterable[pl.DataFrame], most: int) -> Iterator[pl.DataFrame]:
    """The same rows in tables that are small enough as far as the mean row tells."""
    for table in tables:
        if not table.is_empty():
            rows = table.height * most // max(table_bytes(table), 1)
            yield from table.iter_slices(max(rows, 1))


def table_bytes(table: pl.DataFrame) -> int:
    """About how much memory a table's rows take, without what else their buffers hold."""
    texts = table.select(pl.col(pl.String).str.len_bytes().cast(pl.Int64).sum())
    return table.height * table.width * _FIXED_BYTES + sum(texts.row(0))


class Spill:
    """Rows in hash partitions: in memory while one table holds them, in files beyond."""

    def __init__(self, folder: Path, key: str, most: int = WORKING_BYTES) -> None:
        """Say where; entering the context makes it writable.

        Args:
            folder: made once there are many rows.
            key: the String column whose hash decides.
            most: bytes of a partition, about; its files are fewer than 65.
        """
        self._folder, self._key, self._most = folder, key, most
        self._only: pl.DataFrame | None = None
        self._files: list[_File] = []

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def add(self, rows: pl.DataFrame) -> None:
        """Append rows; the columns are the same each time."""
        if self._only is None and not self._files:
            self._only = rows
            return
        if self._only is not None:
            self._begin(self._only)
            self._only = None
        self._write(rows)

    def partitions(self) -> Iterator[pl.DataFrame]:
        """Every row once, all of a key together; to be drawn when writing is over, and again."""
        if self._only is not None:
            yield self._only
            return
        group: list[_File] = []
        for file in self._files:
            if group and sum(one.size for one in group) + file.size > self._most:
                yield pl.concat(one.read() for one in group)
                group = []
            group.append(file)
        if group:
            yield pl.concat(one.read() for one in group)

    def remove(self) -> None:
        """Forget the rows and remove the files."""
        self._only, self._files = None, []
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self, rows: pl.DataFrame) -> None:
        self._folder.mkdir(parents=True)
        schema = rows.head(0).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
        self._files = [_File(self._folder / f"{n}.arrow", schema) for n in range(_FILES)]
        self._write(rows)

    def _write(self, rows: pl.DataFrame) -> None:
        number = (rows[self._key].hash() % _FILES).to_numpy().astype(np.uint8)
        order = np.argsort(number, kind="stable")
        ends = np.bincount(number, minlength=_FILES).cumsum().tolist()
        table = rows[order].to_arrow(compat_level=pl.CompatLevel.oldest())
        row_bytes = table_bytes(rows) / rows.height
        for file, start, end in zip(self._files, [0, *ends[:-1]], ends, strict=True):
            if end > start:
                file.add(table.slice(start, end - start), row_bytes)


class _File:
    """One partition as an Arrow stream."""

    def __init__(self, path: Path, schema: Any) -> None:
        self.size = 0.0
        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def add(self, table: Any, row_bytes: float) -> None:
        self._writer.write_table(table)
        self.size += row_bytes * table.num_rows

    def close(self) -> None:
        if not self._sink.closed:
            self._writer.close()
            self._sink.close()

    def read(self) -> pl.DataFrame:
        with pa.OSFile(str(self._path)) as source:
            rows = pl.from_arrow(pa.ipc.open_stream(source).read_all())
        assert isinstance(rows, pl.DataFrame)
        return rows
