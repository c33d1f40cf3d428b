"""What the item LLM learned, measured on pairs of users it never saw.

Legend: N pairs, C candidate texts of a domain, d width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn import functional as F

from item_llm.objective import centred
from item_llm.pairs import ItemPairs

_BLOCK = 1024


@dataclass(frozen=True)
class HeldOutMetrics:
    """Ranking of the next item among the held-out targets of its domain.

    Attributes:
        loss: mean cross-entropy at the configured temperature.
        hit_at_10: share of pairs whose target ranks in the first 10.
        mrr: mean of 1 / rank. Ranks are realistic: ties share their mean rank.
    """

    loss: float
    hit_at_10: float
    mrr: float

    def to_json(self) -> dict[str, float]:
        """With the names that reports use."""
        values = asdict(self)
        values["hit@10"] = values.pop("hit_at_10")
        return values


def held_out_metrics(
    vectors: np.ndarray, pairs: ItemPairs, temperature: float
) -> HeldOutMetrics | None:
    """Rank each pair's target among all held-out targets of the same domain, but the source.

    Cosines are between what sets the vectors apart from their domain's mean, as in training.

    Args:
        vectors: float32 [texts, d], unit rows.
        pairs: positions in `vectors`; equal positions are equal texts.
        temperature: divides the cosines in the loss.

    Returns:
        Means over all pairs; None without pairs.
    """
    losses, ranks = [], []
    for domain in np.unique(pairs.domain):
        own = pairs[np.flatnonzero(pairs.domain == domain)]
        candidates = np.unique(own.target)
        texts = np.unique(np.concatenate([own.source, own.target]))
        centred_td = centred(torch.from_numpy(vectors[texts]))
        table = centred_td[np.searchsorted(texts, candidates)]
        for start in range(0, len(own), _BLOCK):
            block = own[np.arange(start, min(start + _BLOCK, len(own)))]
            sources = centred_td[np.searchsorted(texts, block.source)]
            scores = sources @ table.T / temperature
            scores[torch.from_numpy(block.source[:, None] == candidates)] = float("-inf")
            target = torch.from_numpy(np.searchsorted(candidates, block.target))
            losses.append(F.cross_entropy(scores, target, reduction="none").double())
            ranks.append(realistic_ranks(scores, target))
    if not ranks:
        return None
    rank = torch.cat(ranks)
    return HeldOutMetrics(
        loss=torch.cat(losses).mean().item(),
        hit_at_10=(rank <= 10).double().mean().item(),
        mrr=rank.reciprocal().mean().item(),
    )


def realistic_ranks(scores_NC: torch.Tensor, target_N: torch.Tensor) -> torch.Tensor:
    """1-based rank of each target, ties at their mean: float64 [N]."""
    own_N1 = scores_NC.gather(1, target_N[:, None])
    above = (scores_NC > own_N1).sum(1).double()
    tied = (scores_NC == own_N1).sum(1).double()
    return above + (tied + 1) / 2


def mean_cosine(before: np.ndarray, after: np.ndarray) -> float:
    """Mean cosine between the rows of two [n, d] arrays of unit vectors: how far tuning moved."""
    return float(np.einsum("nd,nd->n", before.astype(np.float64), after).mean())
