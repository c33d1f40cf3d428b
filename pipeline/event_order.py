"""The order of events: by user, time, and what breaks ties in time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.tables import EARLIEST, LATEST

# A time since EARLIEST in the lower bits, the user above: one number to sort by.
_TIME_BITS = (LATEST - EARLIEST).bit_length()
# Of a tie, so that it and the number of a group of tied events make one number, too.
_WORD_BITS = 32
_WORD = (1 << _WORD_BITS) - 1


def event_order(
    users: NDArray[np.integer], timestamps: NDArray[np.int64], *ties: NDArray[Any]
) -> NDArray[np.intp]:
    """The permutation that sorts events by user, time, and then each of the ties.

    Sorts one column of numbers at a time, and of each later one only what is still tied: several
    times as fast as a sort by all columns.

    Args:
        users: [E], from 0 to 2**29.
        timestamps: [E], within the years 1900 to 2200, or numbers of events.
        ties: int32 [E] from 0 on, or uint64 [E]; the first goes first.
    """
    keys = (users.astype(np.int64) << _TIME_BITS) | (timestamps - EARLIEST)
    order = np.argsort(keys)
    places, keys = np.arange(len(order)), keys[order]
    for tie, shift in ((column, start) for column in ties for start in _starts(column)):
        is_new = np.diff(keys, prepend=-1) != 0
        tied = ~(is_new & np.append(is_new[1:], True))
        if not tied.any():
            break
        groups, places = is_new.cumsum()[tied], places[tied]
        events = order[places]
        word = (tie[events] >> shift).astype(np.int64) & _WORD
        keys = (groups << _WORD_BITS) | word
        by_word = np.argsort(keys)
        order[places], keys = events[by_word], keys[by_word]
    return order


def _starts(tie: NDArray[Any]) -> range:
    """Where the words of a column begin, the upper one first."""
    return range(8 * tie.itemsize - _WORD_BITS, -1, -_WORD_BITS)
