"""Next-item InfoNCE over the items of a batch.

Legend: b pairs of this worker, C candidates, d width. All vectors are unit vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.nn import functional as F


@dataclass(frozen=True)
class EncodedPairs:
    """One worker's pairs after the encoder.

    Attributes:
        source, target: float32 [b, d] unit vectors.
        source_ids, target_ids: int64 [b]; equal ids are equal texts.
    """

    source: torch.Tensor
    target: torch.Tensor
    source_ids: torch.Tensor
    target_ids: torch.Tensor


def next_item_loss(
    pairs: EncodedPairs, scale: torch.Tensor, *, symmetric: bool, gather: bool
) -> torch.Tensor:
    """InfoNCE of each pair against all other items of the batch, sources and targets alike.

    Candidates equal to the pair's own two texts are masked. With `gather` the other workers' items
    are candidates too, and the mean of this loss over workers is the loss of the whole batch, so
    that the number of workers does not change what is learned.

    Args:
        pairs: this worker's share; all workers have as many.
        scale: scalar, one over the temperature.
        symmetric: average the next item given this one with this one given the next ([D]).
        gather: use the items of all workers as candidates.

    Returns:
        Scalar float32, the mean over this worker's pairs.
    """
    share = gather and dist.is_initialized() and dist.get_world_size() > 1
    all_of = gather_rows if share else _identity
    targets, sources = all_of(pairs.target), all_of(pairs.source)
    candidates = centred(torch.cat([targets, sources]))
    ids = torch.cat([all_of(pairs.target_ids), all_of(pairs.source_ids)])
    first = dist.get_rank() * len(pairs.source) if share else 0
    targets_b = first + torch.arange(len(pairs.source), device=ids.device)
    sources_b = len(targets) + targets_b
    forward = _info_nce(candidates[sources_b], pairs.source_ids, candidates, ids, targets_b, scale)
    if not symmetric:
        return forward
    backward = _info_nce(candidates[targets_b], pairs.target_ids, candidates, ids, sources_b, scale)
    return (forward + backward) / 2


def centred(vectors_Cd: torch.Tensor) -> torch.Tensor:
    """Unit vectors [C, d] of what sets each vector apart from their mean.

    A language model's raw vectors are nearly identical: cosines of 0.99 between any two, and a
    loss stuck at that of guessing. What differs is what the pairs are told apart by ([D]); the user
    model, too, standardises the vectors it reads.
    """
    return F.normalize(vectors_Cd - vectors_Cd.mean(0, keepdim=True), dim=-1)


def _info_nce(
    query_bd: torch.Tensor,
    query_ids_b: torch.Tensor,
    candidate_Cd: torch.Tensor,
    candidate_ids_C: torch.Tensor,
    positive_b: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropy of `positive_b` among candidates, duplicates of query and positive masked."""
    logits_bC = scale * query_bd @ candidate_Cd.T
    positive_ids_b = candidate_ids_C[positive_b]
    masked_bC = (candidate_ids_C == positive_ids_b[:, None]) | (
        candidate_ids_C == query_ids_b[:, None]
    )
    masked_bC[torch.arange(len(positive_b), device=positive_b.device), positive_b] = False
    return F.cross_entropy(logits_bC.masked_fill(masked_bC, float("-inf")), positive_b)


class _GatherRows(torch.autograd.Function):
    """Rows of all workers in rank order; a gradient returns to the worker its row came from."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: torch.Tensor) -> torch.Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows of all workers, in rank order; every worker must give as many. Differentiable."""
    gathered: torch.Tensor = _GatherRows.apply(rows)
    return gathered


def _identity(rows: torch.Tensor) -> torch.Tensor:
    return rows
