"""Merge the domains' events into rows, a range of row keys at a time.

Every shard is sorted by key, so a range is a run of each; the bounds are drawn from keys that stand
at even distances in all shards, so that each range holds about as many events.

Legend: U users (rows), E events.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.domains import Domain
from pipeline.event_order import event_order
from pipeline.shards import Shard, starts_of

RANGE_EVENTS = 1_000_000  # bounds the memory of merging; our choice [D]
_SAMPLES = 256  # keys looked at of each shard


@dataclass(frozen=True)
class Rows:
    """Some rows, in order.

    keys: String [U], increasing.
    lengths: int64 [U], events of each.
    items: int32 [E], global positions.
    timestamps: int64 [E].
    ties: uint64 [E].
    """

    keys: pl.Series
    lengths: NDArray[np.int64]
    items: NDArray[np.int32]
    timestamps: NDArray[np.int64]
    ties: NDArray[np.uint64]


def merged_rows(
    domains: Sequence[Domain], first_items: Sequence[int], most_events: int = RANGE_EVENTS
) -> Iterator[Rows]:
    """All rows of the corpus, in order, some at a time.

    Args:
        domains: their shards are read.
        first_items: the global position of each domain's first item.
        most_events: to hold at a time, about.
    """
    runs = [
        _Run(shard, first)
        for domain, first in zip(domains, first_items, strict=True)
        for shard in domain.shards
    ]
    for bound in [*_bounds([run.shard for run in runs], most_events), None]:
        taken = [rows for run in runs if (rows := run.take(bound)) is not None]
        if taken:
            yield taken[0] if len(taken) == 1 else _merged(taken)


class _Run:
    """A shard that is taken from its beginning on."""

    def __init__(self, shard: Shard, first_item: int) -> None:
        self.shard = shard
        self._first_item = first_item
        self._user = self._event = 0

    def take(self, bound: str | None) -> Rows | None:
        """The users not yet taken whose keys come before the bound; None if there are none."""
        keys = self.shard.keys()
        stop = len(keys) if bound is None else bisect_left(keys, bound, self._user)
        if stop == self._user:
            return None
        lengths = self.shard.column("lengths", self._user, stop)
        events = self._event, self._event + int(lengths.sum())
        rows = Rows(
            keys.series(self._user, stop),
            lengths,
            self.shard.column("items", *events) + np.int32(self._first_item),
            self.shard.column("timestamps", *events),
            self.shard.column("ties", *events),
        )
        self._user, self._event = stop, events[1]
        return rows


def _merged(taken: Sequence[Rows]) -> Rows:
    """One row for each key, the events of equal keys in order."""
    keys = pl.concat([rows.keys for rows in taken])
    lengths = np.concatenate([rows.lengths for rows in taken])
    by_key = keys.arg_sort().to_numpy()
    keys, starts, lengths = keys[by_key], starts_of(lengths)[by_key], lengths[by_key]
    moved = np.repeat(starts - starts_of(lengths), lengths) + np.arange(lengths.sum())
    items, times, ties = (
        np.concatenate([getattr(rows, name) for rows in taken])[moved]
        for name in ("items", "timestamps", "ties")
    )
    is_new = (keys != keys.shift()).fill_null(True).to_numpy()
    if is_new.all():  # a user's events are of one run, and in order there
        return Rows(keys, lengths, items, times, ties)
    rows = np.repeat(is_new.cumsum() - 1, lengths)
    order = event_order(rows, times, ties, items)
    return Rows(
        keys.filter(pl.Series(is_new)),
        np.bincount(rows),
        items[order],
        times[order],
        ties[order],
    )


def _bounds(shards: Sequence[Shard], most_events: int) -> list[str]:
    """Keys between which about so many events lie, increasing; none if all events are fewer."""
    if sum(shard.n_events for shard in shards) <= most_events:
        return []
    samples: list[tuple[str, int]] = []
    for shard in shards:
        ends = shard.column("lengths").cumsum()
        keys = shard.keys()
        places = np.unique(np.linspace(0, len(keys) - 1, _SAMPLES).astype(np.int64))
        since = np.diff(ends[places], prepend=0)
        samples += zip((keys[int(place)] for place in places), since.tolist(), strict=True)
    bounds: list[str] = []
    held = 0
    for key, events in sorted(samples):
        if held and held + events > most_events:
            bounds.append(key)
            held = 0
        held += events
    return bounds
