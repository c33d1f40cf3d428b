"""Next-item pairs: what the item LLM is trained on, and how batches of them are drawn.

Legend: S rows of histories, E events, N pairs, B pairs of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from item_llm.prompts import normalise_text


@dataclass(frozen=True)
class ItemPairs:
    """N pairs (an item, the item that the same user took next).

    Attributes:
        source: int64 [N] positions of the earlier items in the list of texts.
        target: int64 [N] positions of the later items.
        domain: int64 [N] domain of the target; a batch holds pairs of one domain.
        row: int64 [N] the row of histories that a pair is of, whose pairs follow each other in
            time; None where only the objective 'pairs' is asked for.
    """

    source: np.ndarray
    target: np.ndarray
    domain: np.ndarray
    row: np.ndarray | None = None

    def __post_init__(self) -> None:
        shapes = {self.source.shape, self.target.shape, self.domain.shape}
        shapes |= {self.row.shape} if self.row is not None else set()
        if len(shapes) != 1 or self.source.ndim != 1:
            raise ValueError(f"pairs: its arrays have shapes {shapes}, expected one")

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: np.ndarray) -> ItemPairs:
        row = self.row[rows] if self.row is not None else None
        return ItemPairs(self.source[rows], self.target[rows], self.domain[rows], row)


def next_item_pairs(offsets: np.ndarray, items: np.ndarray, domain_starts: np.ndarray) -> ItemPairs:
    """Every two consecutive events of every row.

    Args:
        offsets: int64 [S+1], rows of histories.
        items: int64 [E] item positions in the rows' order.
        domain_starts: int64 [D+1]: domain d owns the positions d .. d+1 of it.

    Returns:
        Pairs in the rows' order; an item followed by itself is no pair.
    """
    follows = np.ones(len(items), dtype=bool)
    follows[offsets[:-1][offsets[:-1] < len(items)]] = False  # a row's first event follows none
    at = np.flatnonzero(follows)
    source, target = items[at - 1], items[at]
    keep = source != target
    source, target = source[keep], target[keep]
    domain = np.searchsorted(domain_starts, target, side="right") - 1
    row = np.searchsorted(offsets, at[keep], side="right") - 1
    columns = (source, target, domain, row)
    return ItemPairs(*(column.astype(np.int64) for column in columns))


def pairs_of_texts(pairs: ItemPairs, texts: Sequence[str]) -> tuple[ItemPairs, list[str]]:
    """Pairs of distinct texts instead of items: what an encoder can tell apart.

    Returns:
        Pairs of positions in the returned list of distinct normalised texts; pairs with an empty
        text, or twice the same text, are dropped.

    Raises:
        ValueError: pairs outside `texts`.
    """
    if len(pairs) and max(pairs.source.max(), pairs.target.max()) >= len(texts):
        raise ValueError(f"pairs name item {pairs.target.max()}, but there are {len(texts)} texts")
    position: dict[str, int] = {}
    used = np.unique(np.concatenate([pairs.source, pairs.target]))
    text_of = np.full(len(texts), -1, dtype=np.int64)
    for item in used.tolist():
        if text := normalise_text(texts[item]):
            text_of[item] = position.setdefault(text, len(position))
    source, target = text_of[pairs.source], text_of[pairs.target]
    keep = (source >= 0) & (target >= 0) & (source != target)
    of_texts = ItemPairs(source, target, pairs.domain, pairs.row)
    return of_texts[np.flatnonzero(keep)], list(position)


class PairSampler:
    """Draws batches of one domain each; batch k depends on the seed and k alone.

    A domain with n pairs is drawn in proportion to n ** (1 / temperature), so that small domains
    are seen more often than their share (our choice [D]).
    """

    def __init__(self, domain: np.ndarray, size: int, temperature: float, seed: int) -> None:
        if not len(domain):
            raise ValueError("no training pairs: no user has two items with different texts")
        self._size = size
        self._seed = seed
        self._rows = [np.flatnonzero(domain == d) for d in np.unique(domain)]
        weights = np.array([len(rows) for rows in self._rows], dtype=np.float64)
        weights **= 1.0 / temperature
        self._shares = weights / weights.sum()

    def batch(self, number: int) -> np.ndarray:
        """int64 [B] positions of pairs, none twice unless the domain has fewer than B."""
        generator = np.random.default_rng((self._seed, number))
        rows = self._rows[generator.choice(len(self._rows), p=self._shares)]
        return generator.choice(rows, size=self._size, replace=len(rows) < self._size)
