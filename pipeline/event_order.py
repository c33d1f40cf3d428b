"""The order of events: by user, time, and what breaks ties in time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.tables import EARLIEST, LATEST

# A time since EARLIEST in the lower bits, the user above: one number to sort by.
_TIME_BITS = (LATEST - EARLIEST).bit_length()


def event_order(
    users: NDArray[np.integer], timestamps: NDArray[np.int64], *ties: NDArray[Any]
) -> NDArray[np.intp]:
    """The permutation that sorts events by user, time, and then each of the ties.

    Args:
        users: [E], from 0 to 2**29.
        timestamps: [E], within the years 1900 to 2200, or numbers of events.
        ties: [E] each, the first goes first.
    """
    keys = (users.astype(np.int64) << _TIME_BITS) | (timestamps - EARLIEST)
    order = np.argsort(keys)
    same = np.diff(keys[order]) == 0
    places = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    tied = order[places]
    order[places] = tied[np.lexsort((*(tie[tied] for tie in reversed(ties)), keys[tied]))]
    return order
