"""Models that only count: what a trained model must beat.

Legend: n users with a target, b users of a block, V items of the domain, U rows of the corpus.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.corpus import Corpus
from pipeline.evaluation import Scorer
from pipeline.histories import (
    ROLE_NUMBERS,
    EvaluationCases,
    HeldOutRole,
    Ints,
    Roles,
    gather_ranges,
    training_counts,
    training_events,
)

WEEK = 7 * 24 * 3600  # seconds
_NONE = np.empty(0, np.int64)


class PopularityScorer:
    """Score = how often an item was taken in training; the same for every user."""

    def __init__(self, counts_V: Ints) -> None:
        """counts_V: int64 [V], by the item's place in the domain."""
        self._counts_V = torch.from_numpy(counts_V.astype(np.float32))

    @classmethod
    def fit(cls, corpus: Corpus, roles: Roles, domain: str) -> PopularityScorer:
        """Count the domain's train-role events; raises ValueError for an unknown domain."""
        return cls(training_counts(corpus, roles, domain))

    def __call__(self, cases: EvaluationCases, rows: slice) -> Tensor:
        """float32 [b, V]; one row of memory, shown b times."""
        b = len(range(*rows.indices(len(cases.targets))))
        return self._counts_V.expand(b, -1)


class RecentPopularityScorer:
    """Score = how often an item was taken in training in the 7 days before the user's target.

    Events at the target's own second (of whole-day timestamps: on its day) are not counted, so
    that nothing from after the target counts. Most items tie at 0 in a quiet week.
    """

    def __init__(
        self, times: Ints, items: Ints, target_times: dict[int, int], n_items: int
    ) -> None:
        """times, items: int64 of the train events by time; target_times: by the user's row."""
        self._times = times
        self._items = items
        self._target_times = target_times
        self._n_items = n_items

    @classmethod
    def fit(
        cls, corpus: Corpus, roles: Roles, domain: str, role: HeldOutRole = "test"
    ) -> RecentPopularityScorer:
        """Sort the domain's train-role events by time.

        Args:
            corpus: U rows, E events.
            roles: int8 [E], from `assign_roles`.
            domain: a domain with times.
            role: of the cases that will be scored.

        Raises:
            ValueError: the domain is unknown, or has no times.
        """
        info = corpus.domain(domain)
        if info.order != "time":
            raise ValueError(
                f"popularity_7d on {domain}: the domain has `order: {info.order}`, so it has no "
                "times; use popularity there"
            )
        events = training_events(corpus, roles, domain)
        events = events[np.argsort(corpus.timestamps[events], kind="stable")]
        own = corpus.event_domains == corpus.domain_number(domain)
        held_out = np.flatnonzero(own & (roles == ROLE_NUMBERS[role]))
        users, first = np.unique(corpus.event_users[held_out], return_index=True)
        times = corpus.timestamps[held_out[first]]
        return cls(
            times=corpus.timestamps[events],
            items=corpus.items[events].astype(np.int64) - info.first_item,
            target_times=dict(zip(users.tolist(), times.tolist(), strict=True)),
            n_items=info.n_items,
        )

    def __call__(self, cases: EvaluationCases, rows: slice) -> Tensor:
        """float32 [b, V]."""
        asked_b = np.array([self._target_times[user] for user in cases.users[rows].tolist()])
        begin_b = np.searchsorted(self._times, asked_b - WEEK, side="left")
        end_b = np.searchsorted(self._times, asked_b, side="left")
        scores_bV = np.empty((len(asked_b), self._n_items), np.float32)
        counts_V = np.zeros(self._n_items, np.int64)
        first = last = 0
        # In the order of time each event enters and leaves the window once a block.
        for row in np.argsort(asked_b, kind="stable"):
            counts_V += self._count(last, end_b[row]) - self._count(first, begin_b[row])
            first, last = begin_b[row], end_b[row]
            scores_bV[row] = counts_V
        return torch.from_numpy(scores_bV)

    def _count(self, begin: int, end: int) -> Ints:
        return np.bincount(self._items[begin:end], minlength=self._n_items)


class ItemKNNScorer:
    """Score = sum over the user's items i of 0.8^age(i) * similarity(i, candidate).

        similarity(i, j) = sum over i and j taken 1 to 5 events apart of 1 / distance
                           / sqrt(count(i) * count(j))

    age(i) is 0 for the user's last event in the domain, 1 for the one before. An item is no
    neighbour of itself; all neighbours count. Distance and age make it a sequential baseline, at a
    cost that grows with the number of events and not with the square of a history. [D]
    """

    reach = 5
    decay = 0.8

    def __init__(self, similarity_VV: Any, first_item: int) -> None:
        """similarity_VV: float32 scipy.sparse.csr_array [V, V]; first_item: of the domain."""
        self._similarity_VV = similarity_VV
        self._first_item = first_item

    @classmethod
    def fit(cls, corpus: Corpus, roles: Roles, domain: str) -> ItemKNNScorer:
        """Count the domain's train-role neighbours; raises ValueError for an unknown domain."""
        info = corpus.domain(domain)
        events = training_events(corpus, roles, domain)
        items, users = corpus.items[events] - info.first_item, corpus.event_users[events]
        near_VV = _sparse(info.n_items, info.n_items)
        for distance in range(1, cls.reach + 1):
            earlier, later = items[:-distance], items[distance:]
            pair = (users[distance:] == users[:-distance]) & (earlier != later)
            weights = np.full(int(pair.sum()), 1 / distance)
            near_VV += _sparse(info.n_items, info.n_items, earlier[pair], later[pair], weights)
        near_VV = (near_VV + near_VV.T).tocoo()
        counts_V = np.bincount(items, minlength=info.n_items)
        row, col = near_VV.row, near_VV.col
        similarity = near_VV.data / np.sqrt(counts_V[row] * counts_V[col])
        return cls(_sparse(info.n_items, info.n_items, row, col, similarity), info.first_item)

    def __call__(self, cases: EvaluationCases, rows: slice) -> Tensor:
        """float32 [b, V]; other domains' items in a history count for nothing."""
        n_items = self._similarity_VV.shape[0]
        places, offsets = gather_ranges(cases.offsets[:-1][rows], cases.offsets[1:][rows])
        items = cases.history[places] - self._first_item
        b = len(offsets) - 1
        owner = np.repeat(np.arange(b), np.diff(offsets))
        own = (items >= 0) & (items < n_items)
        items, owner = items[own], owner[own]
        ends_b = np.cumsum(np.bincount(owner, minlength=b))
        age = ends_b[owner] - 1 - np.arange(len(owner))
        history_bV = _sparse(b, n_items, owner, items, self.decay**age)
        return torch.from_numpy((history_bV @ self._similarity_VV).toarray())


_FITS: dict[str, Callable[[Corpus, Roles, str], Scorer]] = {
    "popularity": PopularityScorer.fit,
    "popularity_7d": RecentPopularityScorer.fit,
    "item_knn": ItemKNNScorer.fit,
}


def fit(model: str, corpus: Corpus, roles: Roles, domain: str) -> Scorer:
    """Make the baseline of this name from the domain's train-role events.

    Args:
        model: popularity, popularity_7d or item_knn.
        corpus: U rows, E events.
        roles: int8 [E], from `assign_roles`.
        domain: which to count.

    Raises:
        ValueError: the model or the domain is unknown, or the model needs times that are absent.
    """
    if model not in _FITS:
        raise ValueError(f"there is no baseline {model!r}: there are {', '.join(_FITS)}")
    return _FITS[model](corpus, roles, domain)


def _sparse(
    n_rows: int,
    n_columns: int,
    rows: NDArray[Any] = _NONE,
    columns: NDArray[Any] = _NONE,
    values: NDArray[Any] = _NONE,
) -> Any:
    """A float32 scipy.sparse.csr_array of sums of `values` by (row, column); empty by default."""
    from scipy import sparse

    entries = (values.astype(np.float32), (rows, columns))
    return sparse.csr_array(entries, shape=(n_rows, n_columns), dtype=np.float32)
