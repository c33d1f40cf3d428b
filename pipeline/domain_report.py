"""What was read, refused, removed and kept of one domain, as counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.cleaning import CleaningConfig, StepCounts
from pipeline.sources.tables import Order


@dataclass(frozen=True)
class DomainReport:
    """Counts of one domain: what came in, what went and why, what is left."""

    source: str
    order: Order
    rows_read: int
    rejected: Mapping[str, int]  # reason -> rows
    interactions_read: int
    removed_by_sampling: int  # interactions of users beyond max_users
    removed_duplicates: int  # events equal in user, item and time
    removed_by_length: int  # interactions of users beyond max_history
    removed_by_kcore: int  # interactions, with min_history
    kcore_rounds: int  # rounds (users, then items) in which some were removed
    users: int
    items: int
    interactions: int
    mean_history: float
    median_history: float
    shortest_history: int
    longest_history: int
    empty_texts: int  # items left without a text
    html_texts: int  # items left with a text that held tags or entities, which were taken out
    cut_texts: int  # items left with a text that was cut at max_text_chars
    items_without_events: int  # items of the source that nobody left interacts with
    repeated_items: int  # rows of items whose id stood there before


@dataclass(frozen=True)
class TextCounts:
    """Counts of the items' texts, as in DomainReport."""

    empty: int
    html: int
    cut: int
    without_events: int
    repeated: int


@dataclass(frozen=True)
class LengthCounts:
    """How many users have histories of each length; few numbers, however many users.

    lengths: int64 [n], the lengths that there are, increasing.
    counts: int64 [n], users of each.
    """

    lengths: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, some: Iterable[NDArray[np.int64]]) -> LengthCounts:
        """Count the lengths of some users after another."""
        total: Counter[int] = Counter()
        for lengths in some:
            values, counts = np.unique(lengths, return_counts=True)
            total.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        found = np.array(sorted(total.items()), dtype=np.int64).reshape(-1, 2)
        return cls(found[:, 0], found[:, 1])

    @property
    def users(self) -> int:
        """All of them."""
        return int(self.counts.sum())

    def median(self) -> float:
        """Of the lengths of all users; between two of them, their mean.

        >>> LengthCounts.of([np.array([5, 9]), np.array([6, 5])]).median()
        5.5
        """
        middle = np.array([(self.users - 1) // 2, self.users // 2])
        places = np.searchsorted(self.counts.cumsum(), middle, side="right")
        return float(self.lengths[places].mean())


def domain_report(
    source: str,
    order: Order,
    *,
    rows_read: int,
    rejected: Mapping[str, int],
    steps: StepCounts,
    lengths: LengthCounts,
    n_items: int,
    texts: TextCounts,
) -> DomainReport:
    """Put a domain's counts together.

    Args:
        source: a short description.
        order: of the domain.
        rows_read: good and bad.
        rejected: bad rows by reason.
        steps: of cleaning.
        lengths: of the users left, one at least.
        n_items: items left.
        texts: of the items.
    """
    return DomainReport(
        source=source,
        order=order,
        rows_read=rows_read,
        rejected=rejected,
        interactions_read=steps.read,
        removed_by_sampling=steps.read - steps.sampled,
        removed_duplicates=steps.sampled - steps.distinct,
        removed_by_length=steps.distinct - steps.fitting,
        removed_by_kcore=steps.fitting - steps.left,
        kcore_rounds=steps.kcore_rounds,
        users=lengths.users,
        items=n_items,
        interactions=steps.left,
        mean_history=steps.left / lengths.users,
        median_history=lengths.median(),
        shortest_history=int(lengths.lengths[0]),
        longest_history=int(lengths.lengths[-1]),
        empty_texts=texts.empty,
        html_texts=texts.html,
        cut_texts=texts.cut,
        items_without_events=texts.without_events,
        repeated_items=texts.repeated,
    )


def why_empty(
    name: str,
    source: str,
    cleaning: CleaningConfig,
    steps: StepCounts,
    rejected: Mapping[str, int],
) -> str:
    """The sentence for a domain of which nothing is left.

    Args:
        name: of the domain.
        source: a short description.
        cleaning: the rules.
        steps: what they left.
        rejected: bad rows by reason.
    """
    if steps.read == 0 and rejected:
        reasons = "; ".join(f"{count:,} x {reason}" for reason, count in rejected.items())
        return f"domain {name}: no interaction of {source} could be read ({reasons}): mend the file"
    if steps.read == 0:
        return f"domain {name}: {source} holds no interactions: check that it is the right file"
    return (
        f"domain {name} is empty after cleaning: of {steps.read} interactions {steps.sampled} are "
        f"left after max_users, {steps.distinct} without duplicates, {steps.fitting} after "
        f"max_history and {steps.left} after k_core {cleaning.k_core} and min_history "
        f"{cleaning.min_history}: lower k_core and min_history, or raise max_users"
    )
