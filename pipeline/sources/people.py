"""The people of the invented marketplace: who buys in a shop, when, how much, and what they like.

A shop's buyer is the marketplace's person, who is the same in all shops, or the shop's own, who
is nobody elsewhere. All that is drawn for a person is drawn by number, so any block of people can
be made alone.

Legend: B people of a block, V attribute values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.draws import Floats, Ints, bits, key, uniform
from pipeline.sources.values import FIRST_VALUES, SIZES, TASTE_WEIGHTS, shared_values

if TYPE_CHECKING:
    from pipeline.sources.simulated import SimulatedConfig

FEWEST_PURCHASES = 5
_MARKETPLACE = "marketplace"


@dataclass(frozen=True)
class Buyers:
    """People who buy in one shop.

    person: int64 [B], their numbers in the marketplace, increasing.
    shared: bool [B], whether they are the marketplace's people, or the shop's own.
    """

    person: Ints
    shared: NDArray[np.bool_]


def buyers(config: SimulatedConfig, first: int, last: int) -> Buyers:
    """Who of the people first .. last - 1 buys in the shop."""
    everybody = np.arange(first, min(last, config.population))
    buys = uniform(key(config.seed, config.catalogue, "buys"), everybody) < config.share
    return known_buyers(config, everybody[buys])


def known_buyers(config: SimulatedConfig, person: Ints) -> Buyers:
    """The same people as buyers of this shop."""
    lot = uniform(key(config.seed, config.catalogue, "shared"), person)
    return Buyers(person, lot < config.user_overlap)


def tastes(config: SimulatedConfig, people: Buyers) -> Floats:
    """How much each person likes each value, float64 [B, V], before `config.taste`.

    A person likes a quarter of the values of each attribute, some more than others. What a
    marketplace's person thinks of a marketplace's value is the same in all shops.
    """
    both_BV = people.shared[:, None] & shared_values(config)
    numbers_BV = bits(_keys(config, "taste", both_BV), people.person[:, None], np.arange(
        both_BV.shape[1]))  # fmt: skip
    order_BV = uniform(numbers_BV, 0)
    strength_BV = 0.5 + uniform(numbers_BV, 1)
    liked_BV = np.zeros_like(order_BV)
    for start, size, weight in zip(FIRST_VALUES, SIZES, TASTE_WEIGHTS, strict=True):
        block = slice(start, start + size)
        count = max(1, size // 4)
        bound_B1 = np.partition(order_BV[:, block], count - 1, axis=1)[:, count - 1 : count]
        liked_BV[:, block] = np.where(
            order_BV[:, block] <= bound_B1, weight * strength_BV[:, block], 0.0
        )
    return liked_BV


def activity(config: SimulatedConfig, people: Buyers) -> tuple[Floats, Floats]:
    """First and last moment of each person as shares of the whole time; equal in all shops."""
    keys_B = _keys(config, "activity", people.shared)
    begin_B = 0.6 * uniform(keys_B, people.person, 0)
    end_B = begin_B + 0.2 + (0.8 - begin_B) * uniform(keys_B, people.person, 1)
    return begin_B, end_B


def lengths(config: SimulatedConfig, people: Buyers) -> Ints:
    """Purchases of each person in this shop, int64 [B]: FEWEST_PURCHASES and some more.

    The rest is geometric, or with `length_tail` a Pareto law of the same mean.
    """
    survival_B = 1.0 - uniform(key(config.seed, config.catalogue, "length"), people.person)
    rest, most = config.mean_history - FEWEST_PURCHASES, config.most_purchases - FEWEST_PURCHASES
    if rest == 0:
        return np.full(len(survival_B), FEWEST_PURCHASES)
    if config.length_tail is None:
        more_B = np.log(survival_B) / np.log(rest / (1 + rest))
    else:
        scale = _pareto_scale(config.length_tail, rest, most)
        more_B = scale * (survival_B ** (-1 / config.length_tail) - 1)
    return FEWEST_PURCHASES + np.minimum(more_B, most).astype(np.int64)


def _pareto_scale(tail: float, mean: float, most: int) -> float:
    """The scale s at which floor(X), cut at `most`, has this mean, where P(X > x) = (1 + x/s)^-a.

    By bisection: the mean grows with s.
    """
    steps = np.arange(1, most + 1)
    low, high = 1e-6, 1e9
    for _ in range(100):
        scale = (low * high) ** 0.5
        too_small = ((1 + steps / scale) ** -tail).sum() < mean
        low, high = (scale, high) if too_small else (low, scale)
    return high


def _keys(config: SimulatedConfig, purpose: str, of_marketplace: NDArray[np.bool_]) -> NDArray[
    np.uint64
]:  # fmt: skip
    owners = (config.catalogue, _MARKETPLACE)
    own, common = (np.uint64(key(config.seed, owner, purpose)) for owner in owners)
    return np.where(of_marketplace, common, own)
