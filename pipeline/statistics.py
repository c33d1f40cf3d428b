"""How sure the averages are: percentile bootstrap over users, paired where models share users.

Users are drawn with replacement, the average is taken again, and the 2.5th and 97.5th percentile
of many such averages bound the 95% interval. [D] Sign and Wilcoxon tests answer another question
(the median difference), and most users' NDCG@10 is 0 under every model, which misleads them.

What the intervals cover is the choice of users alone. They do not cover the training seed.

Legend: n users, M columns (metrics, models or differences), R resamples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64s = NDArray[np.float64]

_BOUNDS = (0.025, 0.975)
_BLOCK_ENTRIES = 1 << 22


@dataclass(frozen=True)
class Interval:
    """A two-sided 95% interval, low <= high, in the units of the metric."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Estimate:
    """An average over users and what it would have been for other users.

    Attributes:
        mean: the average over the users at hand.
        resampled: float64 [R], the average in each bootstrap sample.
    """

    mean: float
    resampled: Float64s

    @property
    def interval(self) -> Interval:
        """The 95% interval: percentiles 2.5 and 97.5 of the resampled averages."""
        low, high = np.quantile(self.resampled, _BOUNDS)
        return Interval(float(low), float(high))

    @property
    def is_below_zero(self) -> bool:
        """Whether the whole interval is below 0.

        Of the difference "trained on all domains" - "trained on this domain alone" this is the
        mark `negative_transfer`. Where nothing differs, 1 domain in 40 is marked by chance.
        """
        return self.interval.high < 0

    @property
    def is_above_zero(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.interval.low > 0

    @property
    def p_value(self) -> float:
        """How often chance alone would put a true 0 so far out, on either side.

        Twice the share of resampled averages on the other side of 0, counting one more than
        there are: R resamples cannot show less than 2 / (R + 1).

        >>> Estimate(0.1, np.array([0.05, 0.1, 0.15])).p_value
        0.5
        """
        other_side = min(int((self.resampled <= 0).sum()), int((self.resampled >= 0).sum()))
        return min(1.0, 2 * (1 + other_side) / (1 + len(self.resampled)))


def named_seed(seed: int, name: str) -> list[int]:
    """Entropy for one domain's draws, so that adding a domain does not change another's interval.

    >>> named_seed(0, "books") == named_seed(0, "books") != named_seed(0, "toys")
    True
    """
    return [seed, *hashlib.sha256(name.encode()).digest()[:16]]


def resampled_means(values_nM: Float64s, resamples: int, seed: Sequence[int]) -> Float64s:
    """The columns' means over R bootstrap samples of the rows.

    One draw of the rows serves every column, so that columns stay paired. The same values, R and
    seed give the same numbers.

    Args:
        values_nM: float64 [n, M], a row a user.
        resamples: R.
        seed: entropy of the draws.

    Returns:
        float64 [R, M].

    Raises:
        ValueError: no rows.

    A column without variance has the same mean in every resample:

    >>> resampled_means(np.full((5, 1), 0.25), resamples=3, seed=[0]).ravel().tolist()
    [0.25, 0.25, 0.25]
    """
    n = len(values_nM)
    if n == 0:
        raise ValueError("no users to resample: leave this domain out of the results")
    draws = np.random.default_rng(list(seed))
    step = max(1, _BLOCK_ENTRIES // n)
    blocks = []
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        picks = draws.integers(0, n, size=(rows, n)) + np.arange(rows)[:, None] * n
        # How often each user was drawn: a matrix product then averages every column at once.
        times_rn = np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n)
        blocks.append(times_rn.astype(np.float64) @ values_nM / n)
    return np.concatenate(blocks)


def estimate_means(values_nM: Float64s, resamples: int, seed: Sequence[int]) -> list[Estimate]:
    """The mean of each column of float64 [n, M] with its bootstrap; the columns stay paired.

    >>> [hits] = estimate_means(np.array([[0.0], [1.0]]), resamples=1000, seed=[0])
    >>> hits.mean, hits.interval
    (0.5, Interval(low=0.0, high=1.0))
    """
    means_RM = resampled_means(values_nM, resamples, seed)
    return [
        Estimate(float(values_nM[:, column].mean()), means_RM[:, column])
        for column in range(values_nM.shape[1])
    ]


def paired_difference(
    a_n: Float64s, b_n: Float64s, resamples: int = 1000, seed: Sequence[int] = (0,)
) -> Estimate:
    """Model A minus model B: a_n and b_n, float64 [n], hold the same users in the same order.

    >>> same = np.array([0.0, 0.5, 1.0])
    >>> paired_difference(same, same).interval
    Interval(low=0.0, high=0.0)
    >>> paired_difference(same, same + 0.1).is_below_zero
    True

    Raises:
        ValueError: other lengths, or no users.
    """
    if a_n.shape != b_n.shape:
        raise ValueError(
            f"paired difference of {a_n.shape} and {b_n.shape}: both models must be measured on "
            "the same users in the same order"
        )
    return estimate_means((a_n - b_n)[:, None], resamples, seed)[0]


def effect_size(difference_n: Float64s) -> float:
    """Mean of paired differences over their standard deviation (Cohen's d for paired samples).

    How large a difference is beside how much it varies from user to user, whatever the number of
    users. 0 where nobody differs.

    >>> effect_size(np.array([0.0, 1.0, 2.0]))
    1.0
    """
    deviation = difference_n.std(ddof=1) if len(difference_n) > 1 else 0.0
    return float(difference_n.mean() / deviation) if deviation > 0 else 0.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of several questions, adjusted so that a false "yes" to any is as rare as asked.

    Holm's step-down procedure: the smallest is multiplied by the number of questions, the next by
    one less, and none may come out below the one before it.

    >>> holm({"books": 0.01, "toys": 0.04, "games": 0.03})
    {'books': 0.03, 'games': 0.06, 'toys': 0.06}
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = largest
    return adjusted


def macro_average(domains: Sequence[Estimate]) -> Estimate:
    """The average over domains, each counting the same.

    Domains are resampled independently, which leaves out that some people act in several.

    >>> macro_average([Estimate(0.2, np.array([0.2])), Estimate(0.6, np.array([0.6]))]).mean
    0.4
    """
    return Estimate(
        mean=float(np.mean([domain.mean for domain in domains])),
        resampled=np.mean(np.stack([domain.resampled for domain in domains]), axis=0),
    )
