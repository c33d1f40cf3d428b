"""The items that users had, one more for each: lists in one array, compiled.

Shapes: n users.
"""

# Numba gives arguments their types when it compiles.
# mypy: disable-error-code="no-untyped-def"

import numpy as np

from user_model.ops.kernel_cache import kernel


@kernel
def append_each(rows, offsets, new, most):
    """Lists with one more row each, of which the latest `most` stay, and their offsets.

    Args:
        rows: int32 [offsets[n]].
        offsets: int64 [n + 1].
        new: int64 [n].
        most: kept of a list, 1 or more.
    """
    n = len(new)
    longer = np.empty(len(rows) + n, dtype=np.int32)
    ends = np.zeros(n + 1, dtype=np.int64)
    into = 0
    for user in range(n):
        first, end = offsets[user], offsets[user + 1]
        first = max(first, end + 1 - most)
        longer[into : into + end - first] = rows[first:end]
        into += end - first
        longer[into] = new[user]
        into += 1
        ends[user + 1] = into
    return longer[:into], ends
