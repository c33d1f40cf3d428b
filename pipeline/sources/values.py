"""The attribute values of the invented marketplace, numbered through: themes, styles, audiences,
then the shop's kinds. All of it is our choice [D].

Legend: V attribute values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.draws import Floats, key, stream, uniform
from pipeline.sources.vocabulary import AUDIENCES, KINDS, STYLES, THEMES, Words, words_of_values

if TYPE_CHECKING:
    from pipeline.sources.simulated import SimulatedConfig

# Sizes of the attributes and how much each counts. The kind is the shop's own.
SIZES = (len(THEMES), len(STYLES), len(AUDIENCES), len(KINDS["books"]))
TASTE_WEIGHTS = (1.0, 0.7, 0.5, 0.5)
_NEXT_WEIGHTS = (1.0, 0.5, 0.2, 0.8)
N_VALUES = sum(SIZES)
FIRST_VALUES = tuple(int(start) for start in np.cumsum((0, *SIZES[:-1])))
_MARKETPLACES_OWN = N_VALUES - SIZES[-1]  # values below can be the same in all shops


def shared_values(config: SimulatedConfig) -> NDArray[np.bool_]:
    """Which values are the marketplace's in this shop, bool [V]; kinds never are.

    A marketplace's value has the same words, the same following and the same admirers in all
    shops that have it; a shop's own value of the same number has nothing of these.
    """
    lot_V = uniform(key(config.seed, config.catalogue, "values"), np.arange(N_VALUES))
    return (lot_V < config.taste_overlap) & (np.arange(N_VALUES) < _MARKETPLACES_OWN)


def successors(config: SimulatedConfig) -> Floats:
    """Log-odds [V, V] that a value of the last item (row) gives to a value of the next.

    Each value calls for two others of its attribute, the first more than the second; which ones
    the marketplace says for its values and the shop for its own. Before `config.sequence`.
    """
    common_VV, own_VV = (_law(config.seed, o) for o in ("marketplace", config.catalogue))
    return np.where(shared_values(config)[:, None], common_VV, own_VV)


def _law(seed: int, owner: str) -> Floats:
    next_VV = np.zeros((N_VALUES, N_VALUES))
    for attribute, (size, weight) in enumerate(zip(SIZES, _NEXT_WEIGHTS, strict=True)):
        ring = FIRST_VALUES[attribute] + stream(seed, owner, "next", attribute).permutation(size)
        next_VV[ring, np.roll(ring, 1)] = weight
        next_VV[ring, np.roll(ring, 2)] = 0.6 * weight
    return next_VV


def item_values(config: SimulatedConfig) -> NDArray[np.uint8]:
    """The value that each item has of each attribute, uint8 [I, 4]."""
    own = stream(config.seed, config.catalogue, "items")
    values_I4 = np.empty((config.items, len(SIZES)), dtype=np.uint8)
    for attribute, (start, size) in enumerate(zip(FIRST_VALUES, SIZES, strict=True)):
        values_I4[:, attribute] = start + own.integers(size, size=config.items)
    return values_I4


def value_words(config: SimulatedConfig) -> tuple[Words, ...]:
    """The words of each value in this shop's titles, [V]."""
    return words_of_values(config.catalogue, shared_values(config).tolist())
