"""Numbers for strings: small where the strings are many."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.coding_kernels import number, put_again
from pipeline.string_table import StringTable, string_bytes

_Kind = TypeVar("_Kind", bound=np.generic)

_HASH_BITS = 32
_FULLEST = 0.7  # share of the table's places that are taken: beyond, looking up gets slow


class Coding:
    """Numbers strings 0, 1, 2 ... as they come; equal ones get the same number.

    Holds each distinct string's bytes once, and 45 to 75 bytes beside them: a Python dict takes
    some 150. A string is found by its hash and then compared, so equal hashes do no harm. Which
    number a string has means nothing.
    """

    def __init__(self) -> None:
        self._count = 0
        self._bytes: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self._starts: NDArray[np.int64] = np.zeros(1, dtype=np.int64)
        self._places = _no_places(2)

    def codes(self, strings: pl.Series) -> NDArray[np.int32]:
        """The number of each string (String, no nulls), int32 [n]."""
        assert strings.null_count() == 0, strings.name
        codes = np.empty(len(strings), dtype=np.int32)
        hashes = strings.hash().to_numpy() >> np.uint64(64 - _HASH_BITS)
        ends, given = string_bytes(strings)
        self._make_room(len(strings), len(given))
        self._count = number(
            hashes, ends, given, self._shift, self._places, self._starts, self._bytes, self._count,
            codes,
        )  # fmt: skip
        return codes

    def __len__(self) -> int:
        """Distinct strings so far."""
        return self._count

    def strings(self) -> pl.Series:
        """The distinct strings so far, by number."""
        ends = self._starts[: self._count + 1]
        table = StringTable.of_bytes(ends, self._bytes[: ends[-1]])
        return table.series(0, self._count).alias("string")

    @property
    def _shift(self) -> int:
        """What takes a hash to its place: the upper bits, so that larger tables part neighbours."""
        return _HASH_BITS - (len(self._places).bit_length() - 1)

    def _make_room(self, strings: int, size: int) -> None:
        """For so many more strings, and bytes of them; untouched memory takes none."""
        most = self._count + strings
        self._starts = _grown(self._starts, most + 1, self._count + 1)
        used = int(self._starts[self._count])
        self._bytes = _grown(self._bytes, used + size, used)
        if most > _FULLEST * len(self._places):
            before = self._places
            bits = int(most / _FULLEST).bit_length()
            assert bits < _HASH_BITS, f"{most:,} strings are more than can be numbered"
            self._places = _no_places(1 << bits)
            put_again(before, self._shift, self._places)


def _no_places(count: int) -> NDArray[np.uint64]:
    """Places as `coding_kernels` has them, nothing in any."""
    return np.zeros((count, 3), dtype=np.uint64)


def _grown(values: NDArray[_Kind], size: int, used: int) -> NDArray[_Kind]:
    """The same array, or one with room for `size` values and the first `used` of them."""
    if size <= len(values):
        return values
    larger = np.empty(max(size, 2 * len(values)), dtype=values.dtype)
    larger[:used] = values[:used]
    return larger
