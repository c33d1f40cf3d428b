"""Whose numbers are no numbers: what a training that meets a NaN or an infinity says of its cause.

It looks when something is wrong already, so that the steps that are right pay nothing for it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from user_model.batching import Batch
from user_model.recommender import Recommender

NameItem = Callable[[int], str]
_BLOCK = 65_536
_NAMED = 3


class NonFiniteLossError(ValueError):
    """The loss or its gradient is no longer a number; the model is left as before the step."""


@torch.no_grad()
def culprits(model: Recommender, batch: Batch, name_item: NameItem | None = None) -> str:
    """Say which items or which histories of the batch have vectors that are no numbers.

    Args:
        model: with the weights of before the step.
        batch: the whole batch, of all workers.
        name_item: an item's name by its position; None: its position.
    """
    was_training, name = model.training, name_item or (lambda item: f"item {item}")
    model.eval()
    try:
        device = next(model.parameters()).device
        bad = _bad_items(model, device)
        if len(bad):
            return f"the vectors of {_some([name(item) for item in bad], model.items.n_items)}"
        windows = _bad_windows(model, batch, device)
        n_windows = len(batch.cu_seqlens) - 1
        if 0 < len(windows) < n_windows:
            seams = batch.cu_seqlens[windows[0] : windows[0] + 2]
            read = [name(int(item)) for item in batch.items[slice(*seams)]]
            return f"{len(windows)} of {n_windows} histories, the first with {_some(read)}"
        return "every history" if len(windows) else "no single item or history"
    finally:
        model.train(was_training)


def _bad_items(model: Recommender, device: torch.device) -> list[int]:
    bad: list[int] = []
    for first in range(0, model.items.n_items, _BLOCK):
        last = min(first + _BLOCK, model.items.n_items)
        vectors = model.items(torch.arange(first, last, device=device))
        bad += (first + _bad_rows(vectors)).tolist()
    return bad


def _bad_windows(model: Recommender, batch: Batch, device: torch.device) -> list[int]:
    items, seams = (torch.from_numpy(a).to(device) for a in (batch.items, batch.cu_seqlens))
    times = None if batch.times is None else torch.from_numpy(batch.times).to(device)
    tokens = _bad_rows(model.user_vectors(items, seams, times)).cpu().numpy()
    return [int(w) for w in np.unique(np.searchsorted(batch.cu_seqlens, tokens, side="right") - 1)]


def _bad_rows(vectors: Tensor) -> Tensor:
    """The rows that hold a NaN or an infinity, int64 [n]."""
    return (~torch.isfinite(vectors).all(dim=1)).nonzero().squeeze(1)


def _some(names: Sequence[str], of: int | None = None) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    out_of = f" (of {of:,})" if of is not None else ""
    return ", ".join(names[:_NAMED]) + more + out_of
