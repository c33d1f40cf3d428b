"""Token batches with little padding: texts of like length go together.

Shapes: B texts, T tokens of the longest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of B texts without what all texts share, padded on the right.

    Attributes:
        ids: int64 [B, T] token ids.
        lengths: int64 [B] tokens of each text; 0 for an empty one.
    """

    ids: torch.Tensor
    lengths: torch.Tensor

    @classmethod
    def collate(cls, rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> TokenBatch:
        """Pad `rows` to the longest of them (to one token if all are empty)."""
        lengths = [len(row) for row in rows]
        ids_BT = np.full((len(rows), max(1, *lengths, 1)), pad, dtype=np.int64)
        for i, row in enumerate(rows):
            ids_BT[i, : len(row)] = row
        return cls(torch.from_numpy(ids_BT).to(device), torch.tensor(lengths, device=device))


def by_token_budget(lengths: Sequence[int], budget: int, overhead: int) -> list[np.ndarray]:
    """Group texts by length so that no group holds more than `budget` tokens, padding included.

    Args:
        lengths: tokens of each text.
        budget: most tokens of a group; a single text longer than it is a group of its own.
        overhead: tokens added to each text (prompt, [ITEM]).

    Returns:
        int64 positions into `lengths`, group by group: each position once, longest texts first,
        so that a batch too big for the memory fails at once and not at the end.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    groups, start = [], 0
    while start < len(order):
        rows = max(1, budget // max(1, lengths[order[start]] + overhead))
        groups.append(order[start : start + rows])
        start += rows
    return groups


def by_parts(lengths: Sequence[int], parts: int) -> list[np.ndarray]:
    """Group texts by length into exactly `parts` groups of about as many texts.

    The number of groups depends on nothing but `parts`: under ZeRO-3 every worker must make the
    same number of forward passes. With fewer texts than parts the first text fills the gaps.

    Returns:
        int64 positions into `lengths`, group by group, none empty.
    """
    order = np.argsort(np.asarray(lengths, dtype=np.int64), kind="stable")
    return [group if len(group) else order[:1] for group in np.array_split(order, parts)]
