"""Training pairs put back together to the histories they are of.

Legend: N pairs, R runs.
"""

from __future__ import annotations

import numpy as np

from item_llm.pairs import ItemPairs


def runs_of(pairs: ItemPairs, longest: int) -> np.ndarray:
    """Where runs begin: int64 [R + 1] positions of pairs, the last one N.

    A pair goes on with the one before it if both are of one row and domain and it begins with the
    item that the other ended with. Longer runs are cut to `longest` pairs.

    Raises:
        ValueError: the pairs do not say whose they are.
    """
    if pairs.row is None:
        raise ValueError(
            "pairs have no `row`, which the objective 'histories' needs: give ItemPairs the row of "
            "histories that each pair is of, or use the objective 'pairs'"
        )
    goes_on = np.zeros(len(pairs), dtype=bool)
    goes_on[1:] = (
        (pairs.row[1:] == pairs.row[:-1])
        & (pairs.domain[1:] == pairs.domain[:-1])
        & (pairs.source[1:] == pairs.target[:-1])
    )
    at = np.arange(len(pairs))
    starts = np.maximum.accumulate(np.where(goes_on, 0, at)) if len(pairs) else at
    return np.append(np.flatnonzero((at - starts) % longest == 0), len(pairs))
