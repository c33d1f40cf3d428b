"""The laws of the invented marketplace: what a person buys next, as a distribution.

A purchase is drawn from softmax over the shop's items, without those already bought, of

    popularity_i(t) + sum over the item's attribute values v of (taste_uv + next_pv)

where u is the person and p the item bought last in this shop. All of it is our choice [D].

Legend: P people, I items, V attribute values (themes, styles, audiences, then the shop's kinds),
E purchases, R rows of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.vocabulary import AUDIENCES, KINDS, STYLES, THEMES
from pipeline.stable_hash import hash_text

if TYPE_CHECKING:
    from pipeline.sources.simulated import SimulatedConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIRST_DAY, LAST_DAY = 1_609_459_200, 1_672_531_200  # 2021-01-01 and 2023-01-01, unix seconds
NOTHING_BEFORE = -1
# Sizes of the attributes and how much each counts. The kind is the shop's own.
_SIZES = (len(THEMES), len(STYLES), len(AUDIENCES), len(KINDS["books"]))
_TASTE_WEIGHTS = (1.0, 0.7, 0.5, 0.5)
_NEXT_WEIGHTS = (1.0, 0.5, 0.2, 0.8)
_SHARED = 3  # the first three attributes are the same in all shops
N_VALUES = sum(_SIZES)
_BATCH_CELLS = 20_000_000


@dataclass(frozen=True)
class Shop:
    """The parameters of one shop's truth.

    attributes: int64 [I, 4], the item's value of each attribute, as an index below V.
    log_popularity: [2, I], on the first and on the last day.
    taste: [P, V], log-odds that a person gives to each value.
    next: [V, V], log-odds that a value of the last item (row) gives to a value of the next.
    drift: share of the way from the first to the second popularity by the last day.
    """

    attributes: Ints
    log_popularity: Floats
    taste: Floats
    next: Floats
    drift: float

    @property
    def n_items(self) -> int:
        """Items on sale."""
        return len(self.attributes)

    def one_hot(self) -> Floats:
        """1 where an item has a value, else 0, float64 [I, V]."""
        one_hot_IV = np.zeros((self.n_items, N_VALUES))
        np.put_along_axis(one_hot_IV, self.attributes, 1.0, axis=1)
        return one_hot_IV

    def logits(self, person_R: Ints, previous_R: Ints, time_R: Ints) -> Floats:
        """Log-odds [R, I] of each item as the next purchase, whether bought before or not.

        Args:
            person_R: who buys.
            previous_R: the item bought last in this shop, or NOTHING_BEFORE.
            time_R: when, unix seconds.
        """
        one_hot_IV = self.one_hot()
        after_IV = np.vstack([one_hot_IV @ self.next, np.zeros(N_VALUES)])
        wish_RV = self.taste[person_R] + after_IV[previous_R]  # -1 takes the row of zeros
        moved_R1 = self.drift * (time_R[:, None] - FIRST_DAY) / (LAST_DAY - FIRST_DAY)
        first_I, last_I = self.log_popularity
        return (1 - moved_R1) * first_I + moved_R1 * last_I + wish_RV @ one_hot_IV.T


@dataclass(frozen=True)
class Purchases:
    """What was bought, each int64 [E], sorted by person and time.

    A person buys no item twice in one shop.
    """

    person: Ints
    item: Ints
    time: Ints  # unix seconds, distinct within a person
    previous: Ints  # the person's last item in this shop, or NOTHING_BEFORE


def random_stream(*labels: object) -> np.random.Generator:
    """A generator of its own for each purpose, so that one shop never shifts another's numbers."""
    return np.random.Generator(np.random.PCG64(hash_text("/".join(map(str, labels)))))


def make_shop(config: SimulatedConfig) -> Shop:
    """Draw a shop's parameters; tastes and laws of shared attributes are the marketplace's."""
    own = random_stream(config.seed, config.catalogue, "items")
    starts = np.cumsum((0, *_SIZES[:-1]))
    values = [start + own.integers(size, size=config.items)
              for start, size in zip(starts, _SIZES, strict=True)]  # fmt: skip
    weights_2I = [-config.zipf * np.log(1 + own.permutation(config.items)) for _ in range(2)]
    return Shop(
        attributes=np.stack(values, axis=1),
        log_popularity=np.stack(weights_2I),
        taste=config.taste * _tastes(config),
        next=config.sequence * _successors(config),
        drift=config.drift,
    )


def _owner(config: SimulatedConfig, attribute: int) -> str:
    return "marketplace" if attribute < _SHARED else config.catalogue


def _tastes(config: SimulatedConfig) -> Floats:
    """Each person likes a quarter of the values of each attribute, some more than others."""
    blocks = []
    for attribute, (size, weight) in enumerate(zip(_SIZES, _TASTE_WEIGHTS, strict=True)):
        stream = random_stream(config.seed, _owner(config, attribute), "taste", attribute)
        rank_PV = stream.random((config.population, size)).argsort(axis=1).argsort(axis=1)
        strength_PV = stream.uniform(0.5, 1.5, (config.population, size))
        blocks.append(weight * np.where(rank_PV < max(1, size // 4), strength_PV, 0.0))
    return np.concatenate(blocks, axis=1)


def _successors(config: SimulatedConfig) -> Floats:
    """Each value calls for two others of its attribute, the first more than the second."""
    next_VV = np.zeros((N_VALUES, N_VALUES))
    start = 0
    for attribute, (size, weight) in enumerate(zip(_SIZES, _NEXT_WEIGHTS, strict=True)):
        stream = random_stream(config.seed, _owner(config, attribute), "next", attribute)
        ring = start + stream.permutation(size)
        next_VV[ring, np.roll(ring, 1)] = weight
        next_VV[ring, np.roll(ring, 2)] = 0.6 * weight
        start += size
    return next_VV


def simulate(config: SimulatedConfig, shop: Shop) -> Purchases:
    """Draw all purchases of a shop from its truth."""
    stream = random_stream(config.seed, config.catalogue, "purchases")
    buyers = np.flatnonzero(stream.random(config.population) < config.share)
    extra = stream.geometric(1 / (config.mean_history - 4), size=len(buyers)) - 1
    lengths = np.minimum(5 + extra, config.items // 2)
    batch = max(1, _BATCH_CELLS // config.items)
    parts = [
        _purchases_of(config, shop, buyers[at : at + batch], lengths[at : at + batch], stream)
        for at in range(0, len(buyers), batch)
    ]
    person, item, time, previous = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Purchases(person, item, time, previous)


def _purchases_of(
    config: SimulatedConfig,
    shop: Shop,
    buyers: Ints,
    lengths: Ints,
    stream: np.random.Generator,
) -> tuple[Ints, Ints, Ints, Ints]:
    times_RL = _purchase_times(config, buyers, lengths, stream)
    items_RL = np.full(times_RL.shape, NOTHING_BEFORE)
    bought_RI = np.zeros((len(buyers), shop.n_items), dtype=bool)
    previous_R = np.full(len(buyers), NOTHING_BEFORE)
    for step in range(times_RL.shape[1]):
        active = np.flatnonzero(lengths > step)
        logits = shop.logits(buyers[active], previous_R[active], times_RL[active, step])
        logits[bought_RI[active]] = -np.inf
        # The largest of log-odds plus Gumbel noise is a draw from their softmax.
        chosen = (logits + stream.gumbel(size=logits.shape)).argmax(axis=1)
        items_RL[active, step] = previous_R[active] = chosen
        bought_RI[active, chosen] = True
    taken = np.arange(times_RL.shape[1]) < lengths[:, None]
    before_RL = np.hstack([np.full((len(buyers), 1), NOTHING_BEFORE), items_RL[:, :-1]])
    return np.repeat(buyers, lengths), items_RL[taken], times_RL[taken], before_RL[taken]


def _purchase_times(
    config: SimulatedConfig, buyers: Ints, lengths: Ints, stream: np.random.Generator
) -> Ints:
    """Distinct increasing seconds [R, L]; a person is active in one stretch, in all shops alike."""
    active = random_stream(config.seed, "marketplace", "activity")
    begin_P = active.uniform(0.0, 0.6, config.population)
    end_P = active.uniform(begin_P + 0.2, 1.0)
    places_RL = stream.random((len(buyers), int(lengths.max(initial=1))))
    places_RL[np.arange(places_RL.shape[1]) >= lengths[:, None]] = 1.0
    places_RL.sort(axis=1)
    begin_R1, end_R1 = begin_P[buyers, None], end_P[buyers, None]
    fraction_RL = begin_R1 + places_RL * (end_R1 - begin_R1)
    seconds_RL = (FIRST_DAY + fraction_RL * (LAST_DAY - FIRST_DAY)).astype(np.int64)
    order = np.arange(places_RL.shape[1])
    return np.maximum.accumulate(seconds_RL - order, axis=1) + order


def title_words(config: SimulatedConfig, shop: Shop) -> Iterator[tuple[str, str, str, str]]:
    """(theme, style, audience, kind) of each item, one of each value's words at random."""
    stream = random_stream(config.seed, config.catalogue, "words")
    words = (*THEMES, *STYLES, *AUDIENCES, *KINDS[config.catalogue])
    for values in shop.attributes.tolist():
        theme, style, audience, kind = (
            words[value][stream.integers(len(words[value]))] for value in values
        )
        yield theme, style, audience, kind
