"""From ranks to numbers: HR, NDCG and MRR, each exact under ties.

A model that gives equal scores has not chosen an order, so a target among `ties` equal scores
takes each of the ranks best, best + 1 .. best + ties - 1 with the same probability. Every metric
here is the expectation over that draw, the mean of the metric over those ranks:

    E[m] = 1 / ties * sum_{r = best}^{best + ties - 1} m(r)

A constant model over V items therefore scores HR@k = k / V, as a random order would; it is neither
all hits nor all misses. Without ties (ties = 1) these are the textbook formulas. [D]

Legend: n users (one target each), k cut-off, r 1-based rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]

DEFAULT_KS = (10, 50, 200)


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where each target stands among its candidates.

    Attributes:
        best: int64 [n], 1 + the number of candidates with a greater score.
        ties: int64 [n], the number of candidates with the target's score, itself included (>= 1).

    Raises:
        ValueError: shapes differ, or a value is below 1.
    """

    best: Int64s
    ties: Int64s

    def __post_init__(self) -> None:
        if self.best.ndim != 1 or self.best.shape != self.ties.shape:
            raise ValueError(
                f"Ranks: best has shape {self.best.shape} and ties {self.ties.shape}; "
                "both must be [n], one entry a target"
            )
        for name, values in (("best", self.best), ("ties", self.ties)):
            if values.dtype != np.int64:
                raise ValueError(f"Ranks: {name} is {values.dtype}; expected int64")
            if values.size and values.min() < 1:
                raise ValueError(f"Ranks: {name} holds {values.min()}; ranks and ties start at 1")

    def __len__(self) -> int:
        return len(self.best)

    @property
    def mean(self) -> Float64s:
        """float64 [n]: the realistic rank, the middle of best .. best + ties - 1.

        >>> Ranks(best=np.array([1, 4]), ties=np.array([1, 2])).mean.tolist()
        [1.0, 4.5]
        """
        return self.best + (self.ties - 1) / 2

    @classmethod
    def concatenate(cls, parts: Sequence[Ranks]) -> Ranks:
        """Join the ranks of consecutive slices of one domain's users, in the order given."""
        empty = np.empty(0, np.int64)
        return cls(
            best=np.concatenate([empty, *(part.best for part in parts)]),
            ties=np.concatenate([empty, *(part.ties for part in parts)]),
        )


def hit_rate(ranks: Ranks, k: int) -> Float64s:
    """HR@k of each user, float64 [n]: m(r) = 1 if r <= k else 0.

    Ranks 3 and 11 hit and miss the first 10. Four equal scores on ranks 9 .. 12 put the target
    into the first 10 in 2 of 4 orders:

    >>> ranks = Ranks(best=np.array([3, 11, 9]), ties=np.array([1, 1, 4]))
    >>> hit_rate(ranks, k=10).tolist()
    [1.0, 0.0, 0.5]

    A constant model over 200 items hits k / 200:

    >>> hit_rate(Ranks(best=np.array([1]), ties=np.array([200])), k=10).tolist()
    [0.05]
    """
    return _expectation(ranks, np.ones(_cut_off(k)))


def ndcg(ranks: Ranks, k: int) -> Float64s:
    """NDCG@k of each user, float64 [n]: m(r) = 1 / log2(1 + r) if r <= k else 0.

    With one relevant item the ideal DCG is 1. Rank 1 gives 1, rank 3 gives 1 / log2(4) = 0.5,
    and a tie over ranks 3 and 4 with k = 3 gives (0.5 + 0) / 2:

    >>> ranks = Ranks(best=np.array([1, 3, 4, 3]), ties=np.array([1, 1, 1, 2]))
    >>> ndcg(ranks, k=3).round(12).tolist()
    [1.0, 0.5, 0.0, 0.25]
    """
    return _expectation(ranks, 1 / np.log2(1 + np.arange(1, _cut_off(k) + 1)))


def reciprocal_rank(ranks: Ranks, k: int | None = None) -> Float64s:
    """MRR@k of each user, float64 [n]: m(r) = 1 / r if r <= k else 0; k = None never cuts.

    Rank 4 gives 1 / 4; a tie over ranks 1 and 2 gives (1 + 1/2) / 2 = 0.75, which is more than
    the reciprocal of its mean rank (1 / 1.5), because 1 / r is convex:

    >>> ranks = Ranks(best=np.array([4, 1]), ties=np.array([1, 2]))
    >>> reciprocal_rank(ranks).tolist()
    [0.25, 0.75]
    >>> reciprocal_rank(ranks, k=1).tolist()
    [0.0, 0.5]
    """
    last = int((ranks.best + ranks.ties - 1).max(initial=1)) if k is None else _cut_off(k)
    return _expectation(ranks, 1 / np.arange(1, last + 1))


def per_user(ranks: Ranks, ks: Sequence[int] = DEFAULT_KS) -> dict[str, Float64s]:
    """Every metric of every user: name ("hr@10", "ndcg@10", "mrr@10" .. and "mrr") -> float64 [n].

    >>> sorted(per_user(Ranks(best=np.array([2]), ties=np.array([1])), ks=[10]))
    ['hr@10', 'mrr', 'mrr@10', 'ndcg@10']
    """
    values: dict[str, Float64s] = {}
    for k in ks:
        values[f"hr@{k}"] = hit_rate(ranks, k)
        values[f"ndcg@{k}"] = ndcg(ranks, k)
        values[f"mrr@{k}"] = reciprocal_rank(ranks, k)
    values["mrr"] = reciprocal_rank(ranks)
    return values


def from_ranks(ranks: Ranks, ks: Sequence[int] = DEFAULT_KS) -> dict[str, float]:
    """The mean of every metric over the users.

    >>> metrics = from_ranks(Ranks(best=np.array([1, 3]), ties=np.array([1, 1])), ks=[2])
    >>> metrics["hr@2"], metrics["ndcg@2"], metrics["mrr"]
    (0.5, 0.5, 0.6666666666666666)

    No users have no mean; the caller decides what an empty domain means:

    >>> from_ranks(Ranks(best=np.empty(0, np.int64), ties=np.empty(0, np.int64)))
    Traceback (most recent call last):
    ...
    ValueError: no users to average over: the ranks are empty; leave this domain out

    Raises:
        ValueError: no users, or a cut-off below 1.
    """
    if len(ranks) == 0:
        raise ValueError("no users to average over: the ranks are empty; leave this domain out")
    return {name: float(values.mean()) for name, values in per_user(ranks, ks).items()}


def _cut_off(k: int) -> int:
    if k < 1:
        raise ValueError(f"the cut-off k is {k}; it counts ranks from 1, so give 1 or more")
    return k


def _expectation(ranks: Ranks, gains_k: Float64s) -> Float64s:
    """Mean gain over each tie group; `gains_k[r - 1]` is the gain at rank r, 0 beyond its end."""
    k = len(gains_k)
    gain_at = np.concatenate([[0.0], gains_k, [0.0]])
    alone = gain_at[np.minimum(ranks.best, k + 1)]
    if not (ranks.ties > 1).any():
        return alone
    sums = np.concatenate([[0.0], np.cumsum(gains_k)])
    last = np.minimum(ranks.best + ranks.ties - 1, k)
    before = np.minimum(ranks.best - 1, k)
    # Differences of sums round; without ties the gain itself is exact.
    return np.where(ranks.ties == 1, alone, (sums[last] - sums[before]) / ranks.ties)
