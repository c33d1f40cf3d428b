"""Next-item InfoNCE over the items of a batch.

Legend: b pairs of this worker, C candidates, N cached negatives, d width. Vectors are unit vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch.nn import functional as F


@dataclass(frozen=True)
class EncodedPairs:
    """One worker's pairs after the encoder.

    Attributes:
        source, target: float32 [b, d] unit vectors.
        source_ids, target_ids: int64 [b]; equal ids are equal texts, -1 is padding.
        query: float32 [b, d], what is to find the target; None: the source.
    """

    source: torch.Tensor
    target: torch.Tensor
    source_ids: torch.Tensor
    target_ids: torch.Tensor
    query: torch.Tensor | None = None

    @property
    def vectors(self) -> list[torch.Tensor]:
        """What carries gradient: source, target and, if there is one, query."""
        return [v for v in (self.source, self.target, self.query) if v is not None]

    def detached(self) -> EncodedPairs:
        """The same values as leaves that ask for their gradient."""
        return self._with_vectors(lambda v: v.detach().clone().requires_grad_())

    def padded(self, size: int) -> EncodedPairs:
        """With rows of zeros after its own, so that there are `size`."""
        more = size - len(self.source_ids)
        ids = (F.pad(i, (0, more), value=-1) for i in (self.source_ids, self.target_ids))
        source_ids, target_ids = ids
        longer = self._with_vectors(lambda v: F.pad(v, (0, 0, 0, more)))
        return replace(longer, source_ids=source_ids, target_ids=target_ids)

    def _with_vectors(self, of: Callable[[torch.Tensor], torch.Tensor]) -> EncodedPairs:
        query = None if self.query is None else of(self.query)
        return replace(self, source=of(self.source), target=of(self.target), query=query)

    @classmethod
    def joined(cls, parts: list[EncodedPairs]) -> EncodedPairs:
        """The pairs of all parts, in their order."""
        names = ["source", "target", "source_ids", "target_ids"]
        names += ["query"] if parts[0].query is not None else []
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class CachedTexts:
    """Texts with vectors that are not trained any more, the same for all workers.

    Attributes:
        vectors: float32 [N, d] centred unit vectors.
        ids: int64 [N], as in `EncodedPairs`.
    """

    vectors: torch.Tensor
    ids: torch.Tensor


def next_item_loss(
    pairs: EncodedPairs,
    scale: torch.Tensor,
    *,
    symmetric: bool,
    gather: bool,
    cached: CachedTexts | None = None,
    count: float | None = None,
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
        cached: further candidates.
        count: what the sum over this worker's pairs is divided by, with padding the mean number
            of a worker's pairs; None: their number.

    Returns:
        Scalar float32, the mean over this worker's pairs.
    """
    share = gather and dist.is_initialized() and dist.get_world_size() > 1
    all_of = gather_rows if share else _identity
    targets, sources = all_of(pairs.target), all_of(pairs.source)
    vectors = torch.cat([targets, sources])
    ids = torch.cat([all_of(pairs.target_ids), all_of(pairs.source_ids)])
    mean = _mean_of(vectors, ids >= 0)
    candidates = F.normalize(vectors - mean, dim=-1)
    first = dist.get_rank() * len(pairs.source) if share else 0
    targets_b = first + torch.arange(len(pairs.source), device=ids.device)
    sources_b = len(targets) + targets_b
    if cached is not None:
        candidates = torch.cat([candidates, cached.vectors.to(candidates)])
        ids = torch.cat([ids, cached.ids])
    query = candidates[sources_b]
    if pairs.query is not None:
        query = F.normalize(pairs.query - mean, dim=-1)
    losses = _info_nce(query, pairs.source_ids, candidates, ids, targets_b, scale)
    if symmetric:
        target = candidates[targets_b]
        losses = losses + _info_nce(target, pairs.target_ids, candidates, ids, sources_b, scale)
        losses = losses / 2
    return losses[pairs.target_ids >= 0].sum() / (len(losses) if count is None else count)


def centred(vectors_Cd: torch.Tensor) -> torch.Tensor:
    """Unit vectors [C, d] of what sets each vector apart from their mean.

    A language model's raw vectors are nearly identical: cosines of 0.99 between any two, and a
    loss stuck at that of guessing. What differs is what the pairs are told apart by ([D]); the user
    model, too, standardises the vectors it reads.
    """
    return F.normalize(vectors_Cd - vectors_Cd.mean(0, keepdim=True), dim=-1)


def _mean_of(vectors_Cd: torch.Tensor, real_C: torch.Tensor) -> torch.Tensor:
    """Mean [1, d] of the vectors that are no padding."""
    weights_C = real_C.to(vectors_Cd.dtype) / real_C.sum()
    return weights_C[None] @ vectors_Cd


def _info_nce(
    query_bd: torch.Tensor,
    query_ids_b: torch.Tensor,
    candidate_Cd: torch.Tensor,
    candidate_ids_C: torch.Tensor,
    positive_b: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """Cross-entropies [b] of `positive_b` among candidates, query and positive masked elsewhere."""
    logits_bC = scale * query_bd @ candidate_Cd.T
    positive_ids_b = candidate_ids_C[positive_b]
    masked_bC = (candidate_ids_C == positive_ids_b[:, None]) | (
        candidate_ids_C == query_ids_b[:, None]
    )
    masked_bC |= candidate_ids_C < 0
    masked_bC[torch.arange(len(positive_b), device=positive_b.device), positive_b] = False
    logits_bC = logits_bC.masked_fill(masked_bC, float("-inf"))
    return F.cross_entropy(logits_bC, positive_b, reduction="none")


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
