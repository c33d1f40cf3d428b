"""The k best of each user, kept while blocks of scores go by.

A heap of k (score, row) a user, the worst on top: the lowest score, of equal ones the last row.
Rows come in order, so an item whose score only equals the worst is never better.

Shapes: b users, m items of a block, k items kept.
"""

# Numba gives arguments their types when it compiles.
# mypy: disable-error-code="no-untyped-def, assignment"

import numpy as np

from user_model.ops.kernel_cache import kernel

_LANES = 64  # scores that are looked at before a branch


@kernel
def _worse(score_a, row_a, score_b, row_b):
    return score_a < score_b or (score_a == score_b and row_a > row_b)


@kernel
def _sift_down(scores_k, rows_k, size):
    """Put the root of the heap where it belongs."""
    at = 0
    score, row = scores_k[0], rows_k[0]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _worse(
            scores_k[child + 1], rows_k[child + 1], scores_k[child], rows_k[child]
        ):
            child += 1
        if not _worse(scores_k[child], rows_k[child], score, row):
            break
        scores_k[at], rows_k[at] = scores_k[child], rows_k[child]
        at = child
    scores_k[at], rows_k[at] = score, row


@kernel
def _sift_up(scores_k, rows_k, at):
    score, row = scores_k[at], rows_k[at]
    while at > 0:
        parent = (at - 1) // 2
        if not _worse(score, row, scores_k[parent], rows_k[parent]):
            break
        scores_k[at], rows_k[at] = scores_k[parent], rows_k[parent]
        at = parent
    scores_k[at], rows_k[at] = score, row


@kernel
def keep_best(scores_bm, width, first_row, best_scores_bk, best_rows_bk, kept_b):
    """Take the block's scores into the heaps.

    Args:
        scores_bm: float32; -inf is never kept.
        width: columns of the block that count.
        first_row: row of the catalogue of its first column.
        best_scores_bk: float32, heaps.
        best_rows_bk: int64, their rows.
        kept_b: int64, how many each heap holds.
    """
    k = best_scores_bk.shape[1]
    for user in range(len(scores_bm)):
        scores_m = scores_bm[user]
        scores_k, rows_k, kept = best_scores_bk[user], best_rows_bk[user], kept_b[user]
        worst = scores_k[0] if kept == k else np.float32(-np.inf)
        for start in range(0, width, _LANES):
            end = min(start + _LANES, width)
            better = 0
            for column in range(start, end):
                better += np.int32(scores_m[column] > worst)
            if better == 0:
                continue
            for column in range(start, end):
                score = scores_m[column]
                if not score > worst:
                    continue
                if kept < k:
                    scores_k[kept], rows_k[kept] = score, first_row + column
                    _sift_up(scores_k, rows_k, kept)
                    kept += 1
                else:
                    scores_k[0], rows_k[0] = score, first_row + column
                    _sift_down(scores_k, rows_k, k)
                if kept == k:
                    worst = scores_k[0]
        kept_b[user] = kept
