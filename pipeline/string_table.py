"""Many strings as one immutable sequence, memory-mapped when opened."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import polars as pl
import pyarrow as pa


class StringTable(Sequence[str]):
    """Strings in one Arrow column (large_string, no nulls); slices give lists."""

    def __init__(self, strings: Any) -> None:
        """Wrap a pyarrow Array of type large_string."""
        self._strings = strings

    @classmethod
    def of(cls, strings: pl.Series | Sequence[str]) -> StringTable:
        """From a polars Series or any sequence of str."""
        values = strings.to_list() if isinstance(strings, pl.Series) else list(strings)
        return cls(pa.array(values, type=pa.large_string()))

    @classmethod
    def open(cls, path: Path) -> StringTable:
        """Map what `save` wrote."""
        column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column(0)
        return cls(column.chunk(0) if column.num_chunks else pa.array([], pa.large_string()))

    def save(self, path: Path) -> None:
        """Write one Arrow IPC file of one column and one batch."""
        batch = pa.record_batch([self._strings], names=["string"])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)

    def digest(self) -> str:
        """SHA-256 (hex) of the strings in order, each with its length."""
        encoded = [string.encode("utf-8") for string in self]
        lengths = np.array([len(string) for string in encoded], dtype=np.int64)
        return hashlib.sha256(lengths.tobytes() + b"".join(encoded)).hexdigest()

    def __len__(self) -> int:
        return len(self._strings)

    def __iter__(self) -> Iterator[str]:
        return iter(self._strings.to_pylist())

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
