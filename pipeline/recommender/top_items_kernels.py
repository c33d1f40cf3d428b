"""The k best of each user, kept while blocks of scores go by.

What is above a user's bar is appended to a list of a few times k; when the list is full, the k
best of it stay and the k-th becomes the bar. Lists are in the order of rows, and so are those that
stay: of equal scores the first rows are kept, and one that only equals the bar is never better.

Shapes: b users, m items of a block, r places of a list.
"""

# Numba gives arguments their types when it compiles.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, assignment"

import numpy as np
from numba import njit

from user_model.ops.kernel_cache import kernel

_LANES = 64  # scores that are looked at before a branch


@njit
def _shorten(scores, rows, kept, k):
    """Leave the k best of a list, in order; returns the bar."""
    bar = np.partition(scores[:kept], kept - k)[kept - k]
    above = 0
    for place in range(kept):
        above += scores[place] > bar
    equal, into = k - above, 0
    for place in range(kept):
        score = scores[place]
        if score < bar:
            continue
        if score == bar:
            if equal == 0:
                continue
            equal -= 1
        scores[into], rows[into] = score, rows[place]
        into += 1
    return bar


@njit
def _are_better(scores, bar):
    """Whether any of _LANES scores is above the bar."""
    better = 0
    for lane in range(_LANES):
        better += np.int32(scores[lane] > bar)
    return better > 0


@kernel
def keep_best(scores_bm, first_row, k, list_scores_br, list_rows_br, kept_b, bars_b):
    """Take the block's scores into the lists.

    Args:
        scores_bm: float32; -inf is never kept.
        first_row: row of the catalogue of its first column.
        k: wanted, less than r.
        list_scores_br: float32.
        list_rows_br: int32, their rows.
        kept_b: int64, how many each list holds.
        bars_b: float32, what a score must be above; -inf at first.
    """
    width, room = scores_bm.shape[1], list_scores_br.shape[1]
    for user in range(len(scores_bm)):
        scores_m = scores_bm[user]
        bar, kept = bars_b[user], kept_b[user]
        for start in range(0, width, _LANES):
            end = min(start + _LANES, width)
            # A whole group has a constant length, which is what becomes vector code.
            better = end - start < _LANES
            if not better:
                better = _are_better(scores_m[start:end], bar)
            if not better:
                continue
            for column in range(start, end):
                score = scores_m[column]
                if not score > bar:
                    continue
                list_scores_br[user, kept] = score
                list_rows_br[user, kept] = first_row + column
                kept += 1
                if kept == room:
                    bar = _shorten(list_scores_br[user], list_rows_br[user], kept, k)
                    kept = k
        kept_b[user], bars_b[user] = kept, bar


@kernel
def leave_best(k, list_scores_br, list_rows_br, kept_b):
    """Leave the k best of each list at its beginning, in the order of the rows."""
    for user in range(len(kept_b)):
        if kept_b[user] > k:
            _shorten(list_scores_br[user], list_rows_br[user], kept_b[user], k)
            kept_b[user] = k
