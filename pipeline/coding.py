"""Numbers for strings: small where the strings are many."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Coding:
    """Numbers strings 0, 1, 2 ... as they come; equal ones get the same number.

    Holds every distinct string, in polars' table of categories and not as a Python object. Which
    number a string has means nothing.
    """

    def __init__(self) -> None:
        self._kind = pl.Categorical(pl.Categories.random())
        # polars forgets the categories once no Series has them.
        self._held = pl.Series([], dtype=self._kind)
        self._count = 0

    def codes(self, strings: pl.Series) -> NDArray[np.int32]:
        """The number of each string (String, no nulls), int32 [n]."""
        assert strings.null_count() == 0, strings.name
        codes = strings.cast(self._kind).to_physical().to_numpy().astype(np.int32)
        self._count = max(self._count, int(codes.max(initial=-1)) + 1)
        return codes

    def __len__(self) -> int:
        """Distinct strings so far."""
        return self._count

    def strings(self) -> pl.Series:
        """The distinct strings so far, by number."""
        every = pl.int_range(self._count, dtype=pl.UInt32, eager=True)
        strings = every.cat.to(self._kind).cast(pl.String)
        assert strings.null_count() == 0, "polars left out a category"
        return strings.alias("string")
