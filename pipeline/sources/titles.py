"""Titles as an invented shop would write them, well or badly, for example

`Cosy Fjord Cookbook for Beginners by Harrow, No. 12`.

Legend: I items of a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.draws import Ints, bits, key, uniform
from pipeline.sources.values import value_words
from pipeline.sources.vocabulary import MAKERS

if TYPE_CHECKING:
    from pipeline.sources.simulated import SimulatedConfig

_FORMS = (
    "{style} {theme} {kind} {audience} by {maker}, No. {number}",
    "{maker} {theme} {kind}, {style}, {audience} (No. {number})",
    "{theme} {kind} {audience}: {style} Edition {number} by {maker}",
)
_WORDS, _MAKER, _FORM, _EMPTY, _SHUFFLED, _ORDER, _DROPPED = range(7)


def titles(config: SimulatedConfig, values: NDArray[np.uint8], first: int, last: int) -> list[str]:
    """The titles of the items first .. last - 1: one of each value's words, a maker, a number.

    Args:
        config: the shop, with the quality of its texts.
        values: uint8 [all items, 4], from `item_values`.
        first: the first item.
        last: the item after the last.
    """
    words = value_words(config)
    seed, items = key(config.seed, config.catalogue, "titles"), np.arange(first, last)
    lots_I4 = bits(seed, items[:, None], _WORDS, np.arange(values.shape[1])).tolist()
    makers = (bits(seed, items, _MAKER) % np.uint64(len(MAKERS))).tolist()
    forms = (bits(seed, items, _FORM) % np.uint64(len(_FORMS))).tolist()
    written = []
    for item, maker, form, lots, own in zip(
        items.tolist(), makers, forms, lots_I4, values[first:last].tolist(), strict=True
    ):
        theme, style, audience, kind = (
            words[value][lot % len(words[value])] for value, lot in zip(own, lots, strict=True)
        )
        written.append(
            _FORMS[form].format(
                style=style,
                theme=theme,
                kind=kind,
                audience=audience,
                maker=MAKERS[maker],
                number=item + 1,
            )
        )
    return _worsened(config, seed, items, written)


def _worsened(config: SimulatedConfig, seed: int, items: Ints, written: Sequence[str]) -> list[str]:
    """Some titles emptied, some with their words in another order, some words left out."""
    empty = uniform(seed, items, _EMPTY) < config.empty_titles
    shuffled = uniform(seed, items, _SHUFFLED) < config.shuffled_titles
    if not (empty.any() or shuffled.any() or config.dropped_words):
        return list(written)
    return [
        "" if empty[at] else _spoilt(config, seed, int(item), written[at], shuffle=shuffled[at])
        for at, item in enumerate(items)
    ]


def _spoilt(config: SimulatedConfig, seed: int, item: int, title: str, *, shuffle: bool) -> str:
    words = np.array(title.split(" "), dtype=object)
    places = np.arange(len(words))
    if shuffle:
        places = uniform(seed, item, _ORDER, places).argsort()
    kept = uniform(seed, item, _DROPPED, places) >= config.dropped_words
    return " ".join(words[places[kept]])
