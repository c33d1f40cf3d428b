"""The law of one shop: what a person buys next, as a distribution over all items.

A purchase is drawn from softmax over the items that the shop sells at that time, without those
that the person bought there before, of

    log popularity_i(t) + sum over the item's attribute values v of (taste_uv + next_pv)

where u is the person and p the item bought last in this shop. Popularity moves in a straight line
from that of the first day towards that of the last. All of it is our choice [D].

This is the specification; `purchases` draws from it without looking at every item.

Legend: I items, V attribute values, R rows of one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.draws import Floats, Ints, stream
from pipeline.sources.people import known_buyers, tastes
from pipeline.sources.values import item_values, successors

if TYPE_CHECKING:
    from pipeline.sources.simulated import SimulatedConfig

FIRST_DAY, LAST_DAY = 1_609_459_200, 1_672_531_200  # 2021-01-01 and 2023-01-01, unix seconds
NOTHING_BEFORE = -1


@dataclass(frozen=True)
class Shop:
    """One shop's truth; `make_shop` draws it.

    values: uint8 [I, 4], the item's value of each attribute, as an index below V.
    popularity: [2, I], on the first and on the last day.
    cold: bool [I], items that are sold from `cold_from` on.
    next: [V, V], log-odds that a value of the last item (row) gives to a value of the next.
    """

    config: SimulatedConfig
    values: NDArray[np.uint8]
    popularity: Floats
    cold: NDArray[np.bool_]
    next: Floats

    @property
    def n_items(self) -> int:
        """Items on sale, early or late."""
        return len(self.values)

    @cached_property
    def cold_from(self) -> int:
        """When the cold items come, unix seconds."""
        return int(FIRST_DAY + self.config.cold_from * (LAST_DAY - FIRST_DAY))

    def taste(self, person_R: Ints) -> Floats:
        """Log-odds [R, V] that these buyers give to each value."""
        return self.config.taste * tastes(self.config, known_buyers(self.config, person_R))

    def logits(self, person_R: Ints, previous_R: Ints, time_R: Ints) -> Floats:
        """Log-odds [R, I] of each item as the next purchase, whether bought before or not.

        -inf for items that are not sold yet.

        Args:
            person_R: who buys.
            previous_R: the item bought last in this shop, or NOTHING_BEFORE.
            time_R: when, unix seconds.
        """
        wish_RV = self.taste(person_R)
        later = previous_R != NOTHING_BEFORE
        wish_RV[later] += self.next[self.values[previous_R[later]]].sum(axis=1)
        logits_RI = self._log_popularity(time_R)
        for values_I in self.values.T:
            logits_RI += wish_RV[:, values_I]
        return logits_RI

    def _log_popularity(self, time_R: Ints) -> Floats:
        moved_R1 = self.config.drift * (time_R[:, None] - FIRST_DAY) / (LAST_DAY - FIRST_DAY)
        first_I, last_I = self.popularity
        popularity_RI = np.log((1 - moved_R1) * first_I + moved_R1 * last_I)
        popularity_RI[np.ix_(time_R < self.cold_from, self.cold)] = -np.inf
        return popularity_RI


def make_shop(config: SimulatedConfig) -> Shop:
    """Draw a shop's parameters; what is shared of them is the marketplace's."""
    popularity_2I = np.empty((2, config.items))
    for day, weights_I in zip(("first", "last"), popularity_2I, strict=True):
        weights_I[:] = stream(config.seed, config.catalogue, "popularity", day).permutation(
            config.items
        )
        weights_I += 1.0
        np.power(weights_I, -config.zipf, out=weights_I)
    places = stream(config.seed, config.catalogue, "cold").permutation(config.items)
    return Shop(
        config=config,
        values=item_values(config),
        popularity=popularity_2I,
        cold=places < config.n_cold,
        next=config.sequence * successors(config),
    )
