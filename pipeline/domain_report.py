"""What was read, refused, removed and kept of one domain, as counts."""

from __future__ import annotations

from collections.abc import Mapping
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


def domain_report(
    source: str,
    order: Order,
    *,
    rows_read: int,
    rejected: Mapping[str, int],
    steps: StepCounts,
    lengths: NDArray[np.integer],
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
        lengths: interactions of each user left, one at least.
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
        users=len(lengths),
        items=n_items,
        interactions=steps.left,
        mean_history=float(lengths.mean()),
        median_history=float(np.median(lengths)),
        shortest_history=int(lengths.min()),
        longest_history=int(lengths.max()),
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
