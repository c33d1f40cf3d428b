"""The k-core: users and items that have enough of each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.shards import Shard, starts_of


def k_core(
    shards: Sequence[Shard], *, user_events: int, item_events: int
) -> tuple[NDArray[np.int64], int]:
    """Remove users and items with too few interactions, until none is left to remove.

    Repeated interactions of one user with one item count each. The result, the largest set in
    which everybody has enough, does not depend on the order of removal. What is left stands in
    the shards' column `kept`, which is written here.

    Args:
        shards: all events, each user's in one of them, none empty.
        user_events: interactions that a user must have.
        item_events: interactions that an item must have.

    Returns:
        Events left of each item, int64 [items], and how many rounds (users, then items) removed
        something.
    """
    n_items = 1 + max((int(shard.column("items").max()) for shard in shards), default=-1)
    left, rounds = sum(shard.n_events for shard in shards), 0
    enough: NDArray[np.bool_] | None = None
    while True:
        counts = np.zeros(n_items, dtype=np.int64)
        for shard in shards:
            # Not a bincount a shard: that would write all items' counts once for each shard.
            np.add.at(counts, _round(shard, enough, user_events), 1)
        enough = counts >= item_events
        counts[~enough] = 0
        if (now := int(counts.sum())) == left:
            return counts, rounds
        left, rounds = now, rounds + 1


def _round(shard: Shard, enough: NDArray[np.bool_] | None, user_events: int) -> NDArray[np.int32]:
    """Remove items that the round before found to have too few, then users; the items left."""
    items, lengths = shard.column("items"), shard.column("lengths")
    if enough is None:
        kept = np.ones(len(items), dtype=bool)
    else:
        kept = shard.column("kept") & enough[items]
    counts = np.add.reduceat(kept, starts_of(lengths), dtype=np.int64)
    kept &= np.repeat(counts >= user_events, lengths)
    shard.put("kept", kept)
    left: NDArray[np.int32] = items[kept]
    return left
