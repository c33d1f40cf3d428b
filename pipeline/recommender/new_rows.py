"""Rows that are added to a table while it is in use; those that are there never move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class NewRows:
    """A float32 table [m, width] that grows at its end, doubling its room."""

    def __init__(self, width: int) -> None:
        self._rows = np.zeros((0, width), dtype=np.float32)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    @property
    def rows(self) -> NDArray[np.float32]:
        """The rows so far; those that are added later do not show in it."""
        return self._rows[: self._used]

    def append(self, row: NDArray[np.float32]) -> None:
        """Add a row [width]; one thread at a time, whoever reads."""
        if self._used == len(self._rows):
            room = np.zeros((max(16, 2 * self._used), self._rows.shape[1]), dtype=np.float32)
            room[: self._used] = self._rows
            self._rows = room
        self._rows[self._used] = row
        self._used += 1
