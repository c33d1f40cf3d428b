"""Sampled negatives from the target's own domain, shared by tiles of positions.

Each negative is drawn uniformly, by popularity (from the training events), or from the targets of
the very batch; shares of the config say how many of each, and the chance of each item in such a
draw is what logQ corrects by (Bengio and Senecal 2008; in-batch: Yi et al., RecSys 2019).

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
        slots: int64 [n], the slot of each token that is learned from.
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
        in_batch_share: share of the draws from the targets of the batch.
        seed: seed of the draws.
        learned: int64 [L], the items with training events, ascending, if negatives are these
            alone; None: all items.
        starts: int64 [D + 1], where each domain's part of what is drawn from starts, of `learned`
            or of all items.
        other_domains_share: share of the draws from the items of all domains.
    """

    domain_starts: Int64
    events: tuple[Int64, ...]
    probabilities: NDArray[np.float64]
    count: int
    tile: int
    popularity_share: float
    in_batch_share: float
    seed: int
    learned: Int64 | None
    starts: Int64
    other_domains_share: float = 0.0

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
        in_batch_share: float = 0.0,
        targets: Int64 | None = None,
        unseen: bool = True,
        other_domains_share: float = 0.0,
    ) -> Self:
        """Make a sampler.

        Args:
            items: int64 [E], global item positions of the training events.
            domain_starts: int64 [D + 1].
            count: negatives K of a tile.
            tile: positions that share a draw.
            popularity_share: share of the draws by popularity.
            seed: seed of the draws.
            in_batch_share: share of the draws from the batch's targets.
            targets: int64 [any], all targets of training; needed where in_batch_share is above 0.
            unseen: whether items without training events are negatives too.
            other_domains_share: share of the draws from the items of all domains; `probabilities`
                then say nothing of these.
        """
        sizes = np.diff(domain_starts)
        events = np.sort(items)
        parts = tuple(np.split(events, np.searchsorted(events, domain_starts)[1:-1]))
        learned = None if unseen else np.unique(items)
        starts = domain_starts if learned is None else np.searchsorted(learned, domain_starts)
        probabilities = np.repeat(1.0 / np.maximum(sizes, 1), sizes)
        if learned is not None:
            probabilities = np.zeros(int(domain_starts[-1]))
            shares = np.diff(starts)
            probabilities[learned] = np.repeat(1.0 / np.maximum(shares, 1), shares)
        mixed = [(popularity_share, items)]
        if targets is not None:
            mixed.append((in_batch_share, targets))
        uniform = probabilities.copy()
        for share, drawn_from in mixed:
            frequency, known = _frequencies(drawn_from, domain_starts)
            probabilities += np.where(known, share * (frequency - uniform), 0.0)
        return cls(
            domain_starts, parts, probabilities, count, tile,
            popularity_share, in_batch_share, seed, learned, starts, other_domains_share,
        )  # fmt: skip

    def tiles(self, batch: Batch, part: Batch, epoch: int, step: int) -> Tiles:
        """Lay out the tokens of `part`, one worker's piece of the global `batch`."""
        learned = batch.learned
        domains = batch.domains[learned]
        order = np.argsort(domains, kind="stable")
        sizes = np.bincount(domains, minlength=len(self.domain_starts) - 1)
        tiles_of = -(-sizes // self.tile)
        shift = (np.cumsum(tiles_of) - tiles_of) * self.tile - (np.cumsum(sizes) - sizes)
        slot = np.empty(len(learned), dtype=np.int64)
        slot[order] = np.arange(len(learned)) + np.repeat(shift, sizes)
        first, last = part.first_token, part.first_token + part.n_tokens
        slot = slot[(learned >= first) & (learned < last)]
        touched = np.zeros(int(tiles_of.sum()), dtype=bool)
        touched[slot // self.tile] = True
        local = np.cumsum(touched) - 1
        slots = local[slot // self.tile] * self.tile + slot % self.tile
        tokens = np.zeros(int(touched.sum()) * self.tile, dtype=np.int64)
        tokens[slots] = part.learned
        return Tiles(self.draw(batch, epoch, step)[touched], tokens, slots)

    def draw(self, batch: Batch, epoch: int, step: int) -> Int64:
        """Return the negatives of all tiles of the global batch, int64 [tiles, K]."""
        rng = np.random.default_rng([_STREAM, self.seed, epoch, step])
        targets, domains = batch.targets[batch.learned], batch.domains[batch.learned]
        found = np.unique(domains)
        return np.concatenate([self._draw_domain(rng, d, targets[domains == d]) for d in found])

    def _draw_domain(self, rng: np.random.Generator, domain: int, targets: Int64) -> Int64:
        """Draw for a domain with these targets, at least one, in the batch: int64 [tiles, K]."""
        low, high = self.starts[domain : domain + 2]
        drawn = self._draw_uniform(rng, low, high, (-(-len(targets) // self.tile), self.count))
        events = self.events[domain]
        shares = (self.popularity_share if len(events) else 0.0, self.in_batch_share)
        if max(*shares, self.other_domains_share) == 0.0:
            return drawn
        kind = rng.random(drawn.shape)
        if self.popularity_share > 0.0 and len(events):
            popular = events[rng.integers(0, len(events), drawn.shape)]
            drawn = np.where(kind < self.popularity_share, popular, drawn)
        if self.in_batch_share > 0.0:
            mates = targets[rng.integers(0, len(targets), drawn.shape)]
            drawn = np.where(kind >= 1.0 - self.in_batch_share, mates, drawn)
        if self.other_domains_share > 0.0:
            anywhere = self._draw_uniform(rng, 0, self.starts[-1], drawn.shape)
            first = self.popularity_share
            chosen = (kind >= first) & (kind < first + self.other_domains_share)
            drawn = np.where(chosen, anywhere, drawn)
        return drawn

    def _draw_uniform(
        self, rng: np.random.Generator, low: int, high: int, shape: tuple[int, ...]
    ) -> Int64:
        """Draw from the places low .. high - 1 of what negatives are drawn from."""
        places = rng.integers(low, high, shape)
        return places if self.learned is None else self.learned[places]


def _frequencies(
    items: Int64, domain_starts: Int64
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Share of each item in its domain's part of `items`, [V], and whether there is such a part."""
    counts = np.bincount(items, minlength=int(domain_starts[-1]))
    sums = np.concatenate([[0], np.cumsum(counts)])
    totals = np.repeat(np.diff(sums[domain_starts]), np.diff(domain_starts))
    return counts / np.maximum(totals, 1), totals > 0
