"""Tables larger than memory: their rows in partitions by hash, in files once there are many.

All rows of one key stand in one partition, so what concerns a key alone is done a partition at a
time. Which partition that is means nothing and must decide nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

# What is worked on at a time. Our choice [D]: the peak of preparing is a few times as much.
WORKING_BYTES = 32 << 20
_FILES = 256
_SMALLER_FILES = 64  # that a file which is too large is dealt out to: enough for terabytes
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
        """Say where.

        Args:
            folder: made once there are many rows.
            key: the String column whose hash decides.
            most: bytes of a partition, about, unless one key has more.
        """
        self._folder, self._key, self._most = folder, key, most
        self._only: pl.DataFrame | None = None
        self._files: list[_File] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Append rows; the columns are the same each time."""
        if self._only is None and not self._files:
            self._only = rows
            return
        if self._only is not None:
            self._files = _files(self._folder, _FILES)
            _deal(self._only, self._key, self._files)
            self._only = None
        _deal(rows, self._key, self._files)

    def partitions(self) -> Iterator[pl.DataFrame]:
        """Every row once, all of a key together; to be drawn when writing is over, and again."""
        if self._only is not None:
            yield self._only
            return
        group: list[_File] = []
        for file in self._small_files():
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

    def _small_files(self) -> Iterator[_File]:
        """Those that have rows, the too large ones dealt out to smaller ones."""
        for file in self._files:
            own = [file] if file.size <= 2 * self._most else file.dealt_out(self._key, self._most)
            yield from (one for one in own if one.size)


class _File:
    """One partition: Arrow's messages one after another. It is not kept open."""

    def __init__(self, path: Path) -> None:
        self.size = 0.0
        self._path = path
        self._schema: Any = None
        self._smaller: list[_File] = []

    def add(self, table: Any, row_bytes: float) -> None:
        """Append rows."""
        self._schema = table.schema
        with self._path.open("ab") as sink:
            for batch in table.to_batches():
                sink.write(batch.serialize())
        self.size += row_bytes * table.num_rows

    def read(self) -> pl.DataFrame:
        """All rows."""
        rows = pl.from_arrow(pa.Table.from_batches(self._batches()))
        assert isinstance(rows, pl.DataFrame)
        return rows

    def dealt_out(self, key: str, most: int) -> list[_File]:
        """The same rows in smaller files, which replace this one, so many bytes at a time."""
        if not self._smaller:
            self._smaller = _files(self._path.with_suffix(""), _SMALLER_FILES)
            for rows in gathered(map(_frame, self._batches()), most):
                _deal(rows, key, self._smaller, seed=1)
            self._path.unlink()
        return self._smaller

    def _batches(self) -> Iterator[Any]:
        with pa.OSFile(str(self._path)) as source:
            while source.tell() < source.size():
                yield pa.ipc.read_record_batch(pa.ipc.read_message(source), self._schema)


def _files(folder: Path, count: int) -> list[_File]:
    folder.mkdir(parents=True)
    return [_File(folder / f"{number}.arrow") for number in range(count)]


def _deal(rows: pl.DataFrame, key: str, files: list[_File], seed: int = 0) -> None:
    """Append each row to the file that the hash of its key says."""
    number = (rows[key].hash(seed) % len(files)).to_numpy().astype(np.uint16)
    order = np.argsort(number, kind="stable")
    ends = np.bincount(number, minlength=len(files)).cumsum().tolist()
    table = rows[order].to_arrow(compat_level=pl.CompatLevel.oldest())
    row_bytes = table_bytes(rows) / max(rows.height, 1)
    for file, start, end in zip(files, [0, *ends[:-1]], ends, strict=True):
        if end > start:
            file.add(table.slice(start, end - start), row_bytes)


def _frame(batch: Any) -> pl.DataFrame:
    rows = pl.from_arrow(batch)
    assert isinstance(rows, pl.DataFrame)
    return rows
