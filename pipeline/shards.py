"""Events of some users in files, grouped by user: what cleaning and merging read a part of.

Legend of the columns: U users, E events of a shard.

    lengths     int64 [U]   events of each user, one at least
    hashes      uint64 [U]  of each user, see `stable_hash`
    items       int32 [E]
    timestamps  int64 [E]
    ties        uint64 [E]  what breaks ties in time
    kept        bool [E]    whether the event is still there
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.string_table import StringTable

_KINDS = {
    "lengths": np.int64,
    "hashes": np.uint64,
    "items": np.int32,
    "timestamps": np.int64,
    "ties": np.uint64,
    "kept": np.bool_,
}
_KEYS = "keys.arrow"


@dataclass(frozen=True)
class Shard:
    """Users in the order of their keys, and their events one after another."""

    folder: Path

    @classmethod
    def write(cls, folder: Path, keys: pl.Series, **columns: NDArray[Any]) -> Shard:
        """Make a shard of keys and columns."""
        folder.mkdir(parents=True)
        StringTable.of(keys).save(folder / _KEYS)
        shard = cls(folder)
        for name, values in columns.items():
            shard.put(name, values)
        return shard

    def put(self, name: str, values: NDArray[Any]) -> None:
        """Write a column, or write it again."""
        assert values.dtype == _KINDS[name], (name, values.dtype)
        # Not by `tofile`, whose last buffer is lost without a word where the disk is full.
        (self.folder / name).write_bytes(np.ascontiguousarray(values).data)

    def column(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """The places start .. stop - 1 of a column, read and not mapped."""
        kind = np.dtype(_KINDS[name])
        count = -1 if stop is None else stop - start
        return np.fromfile(self.folder / name, kind, count=count, offset=start * kind.itemsize)

    def keys(self) -> StringTable:
        """Keys of the users, mapped for as long as the table stands."""
        return StringTable.open(self.folder / _KEYS)

    @cached_property
    def n_users(self) -> int:
        """U."""
        return (self.folder / "lengths").stat().st_size // 8

    @cached_property
    def n_events(self) -> int:
        """E."""
        return (self.folder / "items").stat().st_size // 4


def starts_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each user's events begin, int64 [U]."""
    return lengths.cumsum() - lengths
