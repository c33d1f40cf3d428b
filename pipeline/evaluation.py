"""Exact full-catalogue ranking, domain by domain: every user, every item, bounded memory.

Nothing is sorted and no candidate is sampled: a target's rank follows from how many items score
more than it and how many score the same, counted block by block.

Legend: n users (one target each), b users of a block, V items of the domain, d vector width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from pipeline.metrics import DEFAULT_KS, Ranks

if TYPE_CHECKING:
    from pipeline.histories import EvaluationCases

_FLOAT32_BYTES = 4
_ALL_ROWS = slice(None)


class EvaluationConfig(BaseModel):
    """How models are ranked and how sure the figures are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ks: tuple[int, ...] = Field(
        DEFAULT_KS, min_length=1, description="Cut-offs of HR, NDCG and MRR; must hold 10."
    )
    mask_seen: bool = Field(
        True,
        description="Leave out the items of the domain that the user had; never the target.",
    )
    block_mb: float = Field(
        16.0,
        gt=0,
        description="Memory of one block of float32 scores, in MB (10^6 bytes). "
        "About the size of the last-level cache is fastest.",
    )
    bootstrap_resamples: int = Field(
        1000, ge=100, description="Resamples of the users behind every 95% interval."
    )
    seed: int = Field(0, ge=0, description="Seed of the resampling.")

    @field_validator("ks")
    @classmethod
    def _check_ks(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if min(ks) < 1 or len(set(ks)) < len(ks) or 10 not in ks:
            raise ValueError(
                f"ks = {list(ks)}: give different cut-offs of 1 or more, and keep 10, "
                "by which models are compared"
            )
        return tuple(sorted(ks))


class NonFiniteScoresError(ValueError):
    """A model gave a NaN or an infinity; counting would turn it into a perfect or a random rank."""


class Scorer(Protocol):
    """A model as the evaluation sees it."""

    def __call__(self, cases: EvaluationCases, rows: slice) -> Tensor:
        """Score every item of the domain for users `rows` of `cases`.

        Returns:
            floating [b, V], column j for the domain's item first_item + j; it is only read.
        """
        ...


@dataclass(frozen=True, eq=False)
class EmbeddingScorer:
    """Score = inner product of user and item vectors.

    Attributes:
        item_matrix: float32 [V, d].
        user_vectors: float32 [n, d], one row a case.
    """

    item_matrix: Tensor
    user_vectors: Tensor

    def __post_init__(self) -> None:
        if self.item_matrix.shape[1:] != self.user_vectors.shape[1:]:
            raise ValueError(
                f"EmbeddingScorer: item_matrix is {list(self.item_matrix.shape)} and user_vectors "
                f"{list(self.user_vectors.shape)}; expected [V, d] and [n, d] with the same d"
            )

    def __call__(self, cases: EvaluationCases, rows: slice) -> Tensor:
        """Scores [b, V]."""
        if len(self.user_vectors) != len(cases.targets):
            raise ValueError(
                f"EmbeddingScorer: {len(self.user_vectors)} user vectors for {len(cases.targets)} "
                f"cases of {cases.domain}; expected one a case"
            )
        return self.user_vectors[rows] @ self.item_matrix.T


def rank_targets(
    cases: EvaluationCases,
    first_item: int,
    n_items: int,
    scorer: Scorer,
    *,
    model: str,
    mask_seen: bool = True,
    rows: slice = _ALL_ROWS,
    block: int | None = None,
    block_mb: float = 16.0,
) -> Ranks:
    """Rank each user's target among all items of the domain.

    Args:
        cases: the domain's targets, histories and seen items, as global item positions.
        first_item: global position of the domain's first item.
        n_items: V, the domain's items.
        scorer: the model.
        model: its name, for messages.
        mask_seen: leave the user's seen items out of the candidates, but never the target.
        rows: the contiguous users to rank; `shard` gives each worker its own.
        block: users of a block; None takes as many as fit block_mb.
        block_mb: bound of a block's scores, b * V * 4 bytes, in MB. The comparison adds a quarter.

    Returns:
        The ranks of users `rows`, in their order.

    Raises:
        NonFiniteScoresError: a score is NaN or infinite.
        ValueError: targets or seen items outside the domain, scores of a wrong shape, a block
            that cannot hold one user.
    """
    start, stop, step = rows.indices(len(cases.targets))
    if step != 1 or n_items < 1:
        raise ValueError(
            f"evaluation of {cases.domain}: rows = {rows} and n_items = {n_items}; "
            "expected contiguous rows and 1 item or more"
        )
    _check_inside(cases, "targets", cases.targets, first_item, n_items)
    _check_inside(cases, "seen", cases.seen, first_item, n_items)
    size = _block_rows(n_items, block_mb) if block is None else block
    if size < 1:
        raise ValueError(f"rank_targets: block = {block}; expected 1 user or more")
    parts = []
    for lo in range(start, stop, size):
        part = slice(lo, min(lo + size, stop))
        with torch.inference_mode():
            scores_bV = scorer(cases, part)
            _check_scores(scores_bV, (part.stop - lo, n_items), model, cases.domain)
            parts.append(_rank_block(scores_bV, cases, part, first_item, mask_seen=mask_seen))
    return Ranks.concatenate(parts)


def shard(n: int, rank: int, size: int) -> slice:
    """The contiguous rows of worker `rank` of `size`; the shards' sizes differ by 1 at most.

    >>> [shard(7, rank, 3) for rank in range(3)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """
    return slice(n * rank // size, n * (rank + 1) // size)


def _block_rows(n_items: int, block_mb: float) -> int:
    rows = int(block_mb * 1e6) // (n_items * _FLOAT32_BYTES)
    if rows < 1:
        needed = n_items * _FLOAT32_BYTES / 1e6
        raise ValueError(
            f"evaluation.block_mb = {block_mb:g} cannot hold the scores of one user over "
            f"{n_items:,} items; set it to {needed:.3g} or more"
        )
    return rows


def _rank_block(
    scores_bV: Tensor, cases: EvaluationCases, rows: slice, first_item: int, *, mask_seen: bool
) -> Ranks:
    targets_b = torch.from_numpy(cases.targets[rows] - first_item).to(scores_bV.device)
    target_scores_b1 = scores_bV.gather(1, targets_b[:, None])
    greater_b = (scores_bV > target_scores_b1).sum(1, dtype=torch.int32)
    at_least_b = (scores_bV >= target_scores_b1).sum(1, dtype=torch.int32)
    greater, at_least = _int64(greater_b), _int64(at_least_b)
    if mask_seen:
        seen_rows, seen_items = _seen_entries(cases, rows, first_item, scores_bV.shape[1])
        where = torch.from_numpy(seen_rows).to(scores_bV.device)
        seen_scores = scores_bV[where, torch.from_numpy(seen_items).to(scores_bV.device)]
        thresholds = target_scores_b1[where, 0]
        b = len(greater)
        greater -= np.bincount(seen_rows[(seen_scores > thresholds).cpu().numpy()], minlength=b)
        at_least -= np.bincount(seen_rows[(seen_scores >= thresholds).cpu().numpy()], minlength=b)
    return Ranks(best=greater + 1, ties=at_least - greater)


def _seen_entries(
    cases: EvaluationCases, rows: slice, first_item: int, n_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of the block and column of each masked score, once each, without the targets."""
    offsets = cases.seen_offsets[rows.start : rows.stop + 1]
    counts = np.diff(offsets)
    seen = cases.seen[offsets[0] : offsets[-1]] - first_item
    row_starts = np.arange(len(counts), dtype=np.int64) * n_items
    # A user may have had an item twice: it leaves the candidates once.
    entries = np.unique(np.repeat(row_starts, counts) + seen)
    targets = row_starts + (cases.targets[rows] - first_item)
    entries = entries[entries != targets[entries // n_items]]
    return entries // n_items, entries % n_items


def _check_inside(
    cases: EvaluationCases, name: str, items: NDArray[np.int64], first_item: int, n_items: int
) -> None:
    if items.size and not first_item <= items.min() <= items.max() < first_item + n_items:
        raise ValueError(
            f"evaluation of {cases.domain}: {name} hold global item positions "
            f"{items.min()} .. {items.max()}; the domain owns {first_item} .. "
            f"{first_item + n_items - 1}. The cases were made from another corpus"
        )


def _check_scores(scores: Tensor, shape: tuple[int, int], model: str, domain: str) -> None:
    if scores.shape != shape or not scores.is_floating_point():
        raise ValueError(
            f"{model} on {domain}: the scorer returned {scores.dtype} {list(scores.shape)}; "
            f"expected floating {list(shape)}"
        )
    # One non-finite score makes the sum non-finite and the sum is cheap; a sum may also overflow,
    # so only then look at each.
    if torch.isfinite(scores.sum()) or bool(torch.isfinite(scores).all()):
        return
    bad = int((~torch.isfinite(scores)).sum())
    raise NonFiniteScoresError(
        f"{model} on {domain}: {bad:,} of {scores.numel():,} scores of a block are NaN or "
        "infinite; the model diverged: lower its learning rate or raise its temperature, then "
        "train again"
    )


def _int64(counts: Tensor) -> NDArray[np.int64]:
    return counts.cpu().numpy().astype(np.int64)
