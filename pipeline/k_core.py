"""The k-core: users and items that have enough of each other."""

from __future__ import annotations

import numpy as np
import polars as pl


def k_core(
    interactions: pl.DataFrame, *, user_events: int, item_events: int
) -> tuple[pl.DataFrame, int]:
    """Remove users and items with too few interactions, until none is left to remove.

    Repeated interactions of one user with one item count each. The result, the largest set in
    which everybody has enough, does not depend on the order of removal.

    Args:
        interactions: with user_id and item_id.
        user_events: interactions that a user must have.
        item_events: interactions that an item must have.

    Returns:
        What is left, and how many rounds (users, then items) removed something.
    """
    users, items = (
        interactions[name].rank("dense").to_numpy().astype(np.int64) - 1
        for name in ("user_id", "item_id")
    )
    kept = np.ones(len(users), dtype=bool)
    before, rounds = -1, -1
    while (left := int(kept.sum())) != before:
        before, rounds = left, rounds + 1
        for codes, least in ((users, user_events), (items, item_events)):
            n_codes = int(codes.max(initial=0)) + 1
            kept &= np.bincount(codes[kept], minlength=n_codes)[codes] >= least
    return interactions.filter(pl.Series(kept, dtype=pl.Boolean)), rounds
