"""What was bought in a shop: drawn from its law, a block of people at a time.

Legend: B people of a block, E purchases, I items, C clusters of items with equal values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.draws import Ints, bits, key
from pipeline.sources.lane_kernels import RUN
from pipeline.sources.people import Buyers, activity, buyers, lengths
from pipeline.sources.purchase_kernels import Law, draw_purchases
from pipeline.sources.shop import FIRST_DAY, LAST_DAY, NOTHING_BEFORE, Shop

_MOST_PEOPLE = 200_000  # looked at in one block, however few of them buy


@dataclass(frozen=True)
class Purchases:
    """What was bought, each int64 [E], sorted by person and time.

    A person buys no item twice in one shop.
    """

    person: Ints
    item: Ints
    time: Ints  # unix seconds, distinct within a person
    previous: Ints  # the person's last item in this shop, or NOTHING_BEFORE

    @classmethod
    def concatenate(cls, blocks: Iterator[Purchases]) -> Purchases:
        """All blocks as one."""
        columns = zip(*((b.person, b.item, b.time, b.previous) for b in blocks), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


def simulate(shop: Shop, block_rows: int = 100_000) -> Iterator[tuple[Buyers, Purchases]]:
    """Draw a shop's purchases, a block of people at a time: the blocks' sizes change nothing.

    Args:
        shop: the truth.
        block_rows: about how many purchases a block holds; one person's stay together.

    Yields:
        The people of the block who buy, and what they bought.
    """
    law = _law(shop)
    for first, last in _blocks(shop, block_rows):
        people = buyers(shop.config, first, last)
        yield people, purchases_of(shop, people, law)


def purchases_of(shop: Shop, people: Buyers, law: Law | None = None) -> Purchases:
    """All that these people bought in the shop."""
    config = shop.config
    counts = lengths(config, people)
    offsets = np.concatenate([[0], counts.cumsum()])
    item, time = np.empty((2, offsets[-1]), dtype=np.int64)
    begin, end = activity(config, people)
    seeds = bits(key(config.seed, config.catalogue, "purchases"), people.person)
    draw_purchases(
        shop.taste(people.person), begin, end, seeds, offsets, law or _law(shop), item, time
    )
    previous = np.concatenate([[NOTHING_BEFORE], item[:-1]])
    previous[offsets[:-1]] = NOTHING_BEFORE
    return Purchases(np.repeat(people.person, counts), item, time, previous)


def _blocks(shop: Shop, block_rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of people of about so many purchases; of long histories, few people."""
    config = shop.config
    size = int(block_rows / (config.share * config.mean_history))
    size = min(max(size, 1), _MOST_PEOPLE)
    for first in range(0, config.population, size):
        yield first, min(first + size, config.population)


def _law(shop: Shop) -> Law:
    """The items sorted by cluster, the cold ones of each cluster last."""
    order = np.lexsort((shop.cold, *shop.values.T[::-1]))
    values, cold = shop.values[order], shop.cold[order]
    is_first = np.concatenate([[True], (values[1:] != values[:-1]).any(axis=1)])
    start = np.flatnonzero(is_first)
    end = np.append(start[1:], len(order))
    warm_end = end - np.add.reduceat(cold.astype(np.int64), start)
    mass = np.zeros((2, len(order) + 1))
    for sums, popularity in zip(mass[:, 1:], shop.popularity, strict=True):
        np.cumsum(popularity[order], out=sums)
    front_pairs, front = np.unique(values[start, :2], axis=0, return_inverse=True)
    back_pairs, back = np.unique(values[start, 2:], axis=0, return_inverse=True)
    return Law(
        front_pairs=front_pairs,
        back_pairs=back_pairs,
        front=_whole_runs(front),
        back=_whole_runs(back),
        next=shop.next,
        item_values=shop.values,
        items=order,
        mass=mass,
        start=start,
        warm_end=warm_end,
        end=end,
        cluster_mass=_whole_runs(
            np.stack([mass[:, stop] - mass[:, start] for stop in (warm_end, end)])
        ),
        drift=float(shop.config.drift),
        first_day=float(FIRST_DAY),
        last_day=float(LAST_DAY),
        cold_from=float(shop.cold_from),
    )


def _whole_runs(clusters: NDArray[Any]) -> NDArray[Any]:
    """The same with zeros at the end of the last axis: clusters of no mass, never drawn."""
    more = -clusters.shape[-1] % RUN
    return np.pad(clusters, [(0, 0)] * (clusters.ndim - 1) + [(0, more)])
