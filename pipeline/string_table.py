"""Many strings as one immutable sequence, memory-mapped when opened."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import polars as pl
import pyarrow as pa

_SCHEMA = pa.schema([("string", pa.large_string())])
_BATCH = 1 << 17


class StringTable(Sequence[str]):
    """Strings in one Arrow column (large_string, no nulls); slices give lists."""

    def __init__(self, strings: Any) -> None:
        """Wrap a pyarrow ChunkedArray of type large_string."""
        self._strings = strings

    @classmethod
    def of(cls, strings: pl.Series | Sequence[str]) -> StringTable:
        """From a polars Series or any sequence of str."""
        column = strings if isinstance(strings, pl.Series) else pl.Series(strings, dtype=pl.String)
        return cls(pa.chunked_array([_arrow(column)]))

    @classmethod
    def of_bytes(
        cls, ends: np.ndarray[Any, np.dtype[np.int64]], data: np.ndarray[Any, np.dtype[np.uint8]]
    ) -> StringTable:
        """From UTF-8 bytes and where each string begins and the last one ends, int64 [n + 1]."""
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
        strings = pa.Array.from_buffers(pa.large_string(), len(ends) - 1, buffers)
        return cls(pa.chunked_array([strings]))

    @classmethod
    def open(cls, path: Path) -> StringTable:
        """Map what `StringTableWriter` wrote."""
        return cls(pa.ipc.open_file(pa.memory_map(str(path))).read_all().column(0))

    def save(self, path: Path) -> None:
        """Write one Arrow IPC file of one column."""
        with StringTableWriter(path) as writer:
            for batch in self.batches():
                writer.add(batch)

    def batches(self) -> Iterator[pl.Series]:
        """The strings in order, some at a time."""
        for start in range(0, len(self), _BATCH):
            yield self.series(start, start + _BATCH)

    def series(self, start: int, stop: int) -> pl.Series:
        """The strings start .. stop - 1 as a polars Series."""
        return pl.Series(pl.from_arrow(self._strings.slice(start, stop - start)), dtype=pl.String)

    def take(self, places: np.ndarray[Any, np.dtype[np.int64]]) -> pl.Series:
        """The strings at int64 [n] places, in that order, as a polars Series."""
        return pl.Series(pl.from_arrow(self._strings.take(pa.array(places))), dtype=pl.String)

    def digest(self) -> str:
        """SHA-256 (hex) of the strings in order, each with its length."""
        return _digest(lambda: self._strings.chunks)

    def __len__(self) -> int:
        return len(self._strings)

    def __iter__(self) -> Iterator[str]:
        for batch in self.batches():
            yield from batch.to_list()

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._strings[place].as_py() for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"string {index} of a table of {len(self)}")
        string: str = self._strings[int(index)].as_py()
        return string


class StringTableWriter:
    """Writes a StringTable's file a batch at a time."""

    def __init__(self, path: Path) -> None:
        """Begin the file."""
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, _SCHEMA)

    def __enter__(self) -> StringTableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write the file's end, without which it cannot be read; closing twice does no harm."""
        if not self._sink.closed:
            self._writer.close()
            self._sink.close()

    def add(self, strings: pl.Series) -> None:
        """Append strings (String, no nulls)."""
        if len(strings):
            self._writer.write_batch(pa.record_batch([_arrow(strings)], schema=_SCHEMA))


def file_batches(path: Path) -> Iterator[pl.Series]:
    """The strings of a StringTable's file as they were added, read and not mapped.

    Mapped pages count as the process's memory for as long as the map stands.
    """
    for chunk in _file_chunks(path):
        yield pl.Series(pl.from_arrow(chunk), dtype=pl.String)


def file_digest(path: Path) -> str:
    """`StringTable.digest` of a file, which is read and not mapped."""
    return _digest(lambda: _file_chunks(path))


def _file_chunks(path: Path) -> Iterator[Any]:
    with pa.OSFile(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number).column(0)


def string_bytes(
    strings: pl.Series,
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.uint8]]]:
    """Strings (no nulls) as `StringTable.of_bytes` takes them, but that the first may begin later.

    Returns:
        int64 [n + 1], and uint8.
    """
    array = _arrow(strings)
    data = array.buffers()[2]
    return _ends(array), np.frombuffer(b"" if data is None else data, dtype=np.uint8)


def _arrow(strings: pl.Series) -> Any:
    """One large_string array that holds these strings alone."""
    array = strings.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    return array.cast(pa.large_string())


def _digest(chunks: Callable[[], Iterable[Any]]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks():
        digest.update(np.diff(_ends(chunk)).data)
    for chunk in chunks():
        ends, data = _ends(chunk), chunk.buffers()[2]
        if data is not None:
            digest.update(memoryview(data)[ends[0] : ends[-1]])
    return digest.hexdigest()


def _ends(chunk: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where each string begins in the chunk's bytes, and where the last one ends."""
    if len(chunk) == 0:
        return np.zeros(1, dtype=np.int64)
    return np.frombuffer(chunk.buffers()[1], dtype=np.int64)[chunk.offset :][: len(chunk) + 1]
