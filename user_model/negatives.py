"""Sampled negatives from the target's own domain, shared by tiles of positions.

Positions of a global batch are ordered by the domain of their target and cut into tiles; a tile
has one draw of K items of that domain. Draws depend on (seed, epoch, step, tile), never on the
worker that uses them.  512 negatives are the paper's [P]; sharing a draw is our choice [D].
Shapes: V items, D domains, T tokens of a worker's part, G tiles that it touches, K negatives.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from user_model.batching import Batch, Int64

# Keeps the draws of negatives apart from the order of windows, seeded by (seed, epoch) too.
_STREAM = 0x6E6567


@dataclass(frozen=True)
class Tiles:
    """How the tokens of one worker lie in tiles.

    Attributes:
        items: int64 [G, K], the negatives of each tile.
        tokens: int64 [G x tile], the token in each slot; 0 in a slot that holds none.
        slots: int64 [T], the slot of each token.
    """

    items: Int64
    tokens: Int64
    slots: Int64


@dataclass(frozen=True)
class NegativeSampler:
    """Draws negatives for batches.

    Attributes:
        domain_starts: int64 [D + 1], the first item of each domain, and the number of items.
        events: one int64 array a domain, its training events: a uniform draw from them is a draw
            by popularity.
        probabilities: float64 [V], chance of an item in one draw from its domain.
        count: negatives K of a tile.
        tile: positions that share a draw.
        popularity_share: share of the draws by popularity.
        seed: seed of the draws.
    """

    domain_starts: Int64
    events: tuple[Int64, ...]
    probabilities: NDArray[np.float64]
    count: int
    tile: int
    popularity_share: float
    seed: int

    @classmethod
    def build(
        cls,
        items: Int64,
        domain_starts: Int64,
        *,
        count: int,
        tile: int,
        popularity_share: float,
        seed: int,
    ) -> Self:
        """Make a sampler from the training events, int64 [E] global item positions."""
        popularity = np.bincount(items, minlength=int(domain_starts[-1])).astype(np.float64)
        sizes = np.diff(domain_starts)
        events = np.sort(items)
        cuts = np.searchsorted(events, domain_starts)
        totals = np.diff(cuts)
        domain = np.repeat(np.arange(len(sizes)), sizes)
        by_popularity = popularity / np.maximum(totals, 1)[domain]
        share = np.where(totals > 0, popularity_share, 0.0)[domain]
        probabilities = (1.0 - share) / sizes[domain] + share * by_popularity
        parts = tuple(np.split(events, cuts[1:-1]))
        return cls(domain_starts, parts, probabilities, count, tile, popularity_share, seed)

    def tiles(self, batch: Batch, part: Batch, epoch: int, step: int) -> Tiles:
        """Lay out the tokens of `part`, one worker's piece of the global `batch`."""
        order = np.argsort(batch.domains, kind="stable")
        sizes = np.bincount(batch.domains, minlength=len(self.domain_starts) - 1)
        tiles_of = -(-sizes // self.tile)
        shift = (np.cumsum(tiles_of) - tiles_of) * self.tile - (np.cumsum(sizes) - sizes)
        slot = np.empty(batch.n_tokens, dtype=np.int64)
        slot[order] = np.arange(batch.n_tokens) + np.repeat(shift, sizes)
        slot = slot[part.first_token : part.first_token + part.n_tokens]
        touched = np.zeros(int(tiles_of.sum()), dtype=bool)
        touched[slot // self.tile] = True
        local = np.cumsum(touched) - 1
        slots = local[slot // self.tile] * self.tile + slot % self.tile
        tokens = np.zeros(int(touched.sum()) * self.tile, dtype=np.int64)
        tokens[slots] = np.arange(part.n_tokens)
        return Tiles(self._draw(tiles_of, epoch, step)[touched], tokens, slots)

    def draw(self, batch: Batch, epoch: int, step: int) -> Int64:
        """Return the negatives of all tiles of the global batch, int64 [tiles, K]."""
        sizes = np.bincount(batch.domains, minlength=len(self.domain_starts) - 1)
        return self._draw(-(-sizes // self.tile), epoch, step)

    def _draw(self, tiles_of: Int64, epoch: int, step: int) -> Int64:
        rng = np.random.default_rng([_STREAM, self.seed, epoch, step])
        return np.concatenate(
            [self._draw_domain(rng, d, int(n)) for d, n in enumerate(tiles_of) if n]
        )

    def _draw_domain(self, rng: np.random.Generator, domain: int, tiles: int) -> Int64:
        low, high = self.domain_starts[domain : domain + 2]
        drawn = rng.integers(low, high, (tiles, self.count))
        events = self.events[domain]
        if self.popularity_share == 0.0 or len(events) == 0:
            return drawn
        popular = events[rng.integers(0, len(events), drawn.shape)]
        return np.where(rng.random(drawn.shape) < self.popularity_share, popular, drawn)
