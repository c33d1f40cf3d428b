"""Packed batches of whole histories, the same whatever the number of workers.

An epoch is a permutation of windows seeded by (seed, epoch), cut into global batches of about
`batch_tokens` targets; a worker takes a contiguous part of each batch. Nothing is padded.
Shapes: E events, U rows, W windows, T tokens (an input item and its target) of a batch, S windows
of a batch.
"""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

# Keeps the draws of skipped targets apart from the order of windows, seeded by (seed, epoch) too.
_SKIPS = 0x736B6970


class Histories(Protocol):
    """Rows of items as CSR arrays; any object with these two will do."""

    @property
    def offsets(self) -> Int64:
        """Where each row begins and the last one ends, int64 [U + 1]."""
        ...

    @property
    def items(self) -> Int64:
        """Global item positions of all rows, oldest first, integers [E]."""
        ...


@dataclass(frozen=True)
class Windows:
    """Stretches of rows that the model sees at once.

    Attributes:
        starts: int64 [W], the event that is a window's first input.
        lengths: int64 [W], its number of inputs, and of targets: input t has target t + 1.
    """

    starts: Int64
    lengths: Int64

    @classmethod
    def cut(cls, offsets: Int64, max_history: int | None) -> Self:
        """Cut rows into windows of at most max_history inputs, the latest one full.

        Windows are laid from the end of the row, since that is where evaluation looks; two
        neighbours share one event, the target of one and the first input of the next.  Our choice.
        """
        targets = np.maximum(np.diff(offsets) - 1, 0)
        longest = max_history if max_history is not None else max(int(targets.max(initial=1)), 1)
        counts = -(-targets // longest)
        row = np.repeat(np.arange(len(counts)), counts)
        from_end = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        ends = offsets[row + 1] - 1 - from_end * longest
        starts = np.maximum(offsets[row], ends - longest)
        return cls(starts, ends - starts)


@dataclass(frozen=True)
class Batch:
    """Packed windows.

    Attributes:
        items: int64 [T], the input items.
        targets: int64 [T], the item that follows each.
        domains: int64 [T], domain of each target.
        cu_seqlens: int64 [S + 1], seams of the windows.
        first_token: global index of the first token in the batch that this is a part of.
        times: int64 [T], unix seconds of the input items; None where no model asked for them.
        last_only: whether only the last target of each window is learned from.
    """

    items: Int64
    targets: Int64
    domains: Int64
    cu_seqlens: Int64
    first_token: int = 0
    times: Int64 | None = None
    last_only: bool = False

    @property
    def n_tokens(self) -> int:
        """Number of tokens T."""
        return len(self.items)

    @property
    def learned(self) -> Int64:
        """The tokens whose targets are learned from, int64 [n_targets], ascending."""
        return self.cu_seqlens[1:] - 1 if self.last_only else np.arange(self.n_tokens)

    @property
    def n_targets(self) -> int:
        """Number of targets that are learned from."""
        return len(self.cu_seqlens) - 1 if self.last_only else self.n_tokens

    def skipping(self, share: float, rng: np.random.Generator) -> "Batch":
        """Return the batch with some targets skipped: the next one of the window in their place.

        Each target is skipped with this probability, and what it is skipped for once more; the
        last target of a window stays.
        """
        ahead = np.arange(1, self.n_tokens + 1)
        ahead[self.cu_seqlens[1:] - 1] -= 1
        once, twice = rng.random((2, self.n_tokens)) < share
        chosen = np.where(once, np.where(twice, ahead[ahead], ahead), np.arange(self.n_tokens))
        return replace(self, targets=self.targets[chosen], domains=self.domains[chosen])

    def part(self, rank: int, size: int) -> "Batch":
        """Return the windows of worker `rank` of `size`: contiguous, nearly equal in tokens.

        The part may be empty where there are fewer windows than workers.
        """
        owner = self.cu_seqlens[:-1] * size // max(self.n_tokens, 1)
        first, last = np.searchsorted(owner, [rank, rank + 1])
        seams = self.cu_seqlens[first : last + 1]
        tokens = slice(int(seams[0]), int(seams[-1]))
        return Batch(
            self.items[tokens], self.targets[tokens], self.domains[tokens],
            seams - seams[0], int(seams[0]), None if self.times is None else self.times[tokens],
            self.last_only,
        )  # fmt: skip


class EpochBatches:
    """The global batches of one epoch, by number."""

    def __init__(
        self, batches: "Batches", number: int, order: Int64, batch_tokens: int, min_steps: int
    ) -> None:
        self._batches, self._number, self._order = batches, number, order
        lengths = batches.windows.lengths[order]
        ends = np.cumsum(lengths)
        total = int(ends[-1])
        # More would leave batches without a window.
        least = min(min_steps, total // int(lengths.max()))
        self._n_batches = max(1, least, round(total / batch_tokens))
        batch = (ends - lengths) * self._n_batches // total
        self._cuts = np.searchsorted(batch, np.arange(self._n_batches + 1))

    def __len__(self) -> int:
        return self._n_batches

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < self._n_batches:
            raise IndexError(step)
        windows = self._order[self._cuts[step] : self._cuts[step + 1]]
        packed = self._batches.pack(windows)
        return self._batches.skipped(packed, self._number, step)


class Batches:
    """Cuts histories into windows and packs them, epoch by epoch.

    Args:
        histories: rows of at least two events; shorter ones give nothing to learn.
        domain_starts: int64 [D + 1], the first item of each domain, and the number of items.
        batch_tokens: targets of a global batch, nearly.
        min_epoch_steps: batches of an epoch at least, smaller ones if need be; fewer only where a
            window is longer than such a batch.
        max_history: inputs of a window; None: whole rows.
        domain_temperature: a domain of n targets gets a share ~ n^temperature of an epoch. A
            window with targets of several domains is drawn by the mean of theirs. An epoch keeps
            its number of targets (in expectation); at 1 it is each window once.
        seed: seed of the order.
        times: int64 [E], unix seconds of the events, where the batches are to carry them.
        last_only: learn from the last target of each window alone.
        skip_share: chance of each target to be skipped (`Batch.skipping`).

    Raises:
        ValueError: no row has two events, an item lies outside the domains, or times are not one
            an event.
    """

    def __init__(
        self,
        histories: Histories,
        domain_starts: Int64,
        *,
        batch_tokens: int,
        max_history: int | None,
        min_epoch_steps: int = 1,
        domain_temperature: float = 1.0,
        seed: int,
        times: Int64 | None = None,
        last_only: bool = False,
        skip_share: float = 0.0,
    ) -> None:
        self.items = np.ascontiguousarray(histories.items, dtype=np.int64)
        self.times, self.last_only, self._skip_share = times, last_only, skip_share
        self.domain_starts = np.asarray(domain_starts, dtype=np.int64)
        offsets = np.asarray(histories.offsets, dtype=np.int64)
        self.windows = Windows.cut(offsets, max_history)
        self._batch_tokens, self._min_epoch_steps, self._seed = batch_tokens, min_epoch_steps, seed
        self._check()
        self.domains = np.searchsorted(self.domain_starts, self.items, side="right") - 1
        self._repeats = None if domain_temperature == 1.0 else self._balance(domain_temperature)

    @property
    def n_targets(self) -> int:
        """Targets of an epoch (in expectation, where domain_temperature is not 1)."""
        return int(self.windows.lengths.sum())

    def learned_targets(self) -> Int64:
        """Return every target that is learned from, each window once, int64 [any]."""
        everything = self.pack(np.arange(len(self.windows.lengths)))
        return everything.targets[everything.learned]

    def epoch(self, number: int) -> EpochBatches:
        """Return the batches of epoch `number`, the same for the same (seed, number)."""
        rng = np.random.default_rng([self._seed, number])
        order = np.arange(len(self.windows.lengths))
        if self._repeats is not None:
            # Systematic rounding: a window drawn 2.3 times is taken 2 or 3 times.
            drawn = np.floor(self._repeats + rng.random(len(order))).astype(np.int64)
            order = np.repeat(order, drawn)
            order = order if len(order) else np.arange(1)
        order = rng.permutation(order)
        return EpochBatches(self, number, order, self._batch_tokens, self._min_epoch_steps)

    def skipped(self, batch: Batch, epoch: int, step: int) -> Batch:
        """Return the batch of this epoch and step as it is learned from, with targets skipped."""
        if self._skip_share == 0.0:
            return batch
        rng = np.random.default_rng([_SKIPS, self._seed, epoch, step])
        return batch.skipping(self._skip_share, rng)

    def pack(self, windows: Int64) -> Batch:
        """Pack these windows one after the other."""
        lengths = self.windows.lengths[windows]
        cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
        inside = np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1], lengths)
        events = np.repeat(self.windows.starts[windows], lengths) + inside
        return Batch(
            self.items[events], self.items[events + 1], self.domains[events + 1], cu_seqlens,
            times=None if self.times is None else self.times[events],
            last_only=self.last_only,
        )  # fmt: skip

    def _balance(self, temperature: float) -> NDArray[np.float64]:
        """Return how often each window is drawn in an epoch, [W]."""
        everything = self.pack(np.arange(len(self.windows.lengths)))
        sizes = np.bincount(everything.domains, minlength=len(self.domain_starts) - 1)
        shares = np.where(sizes > 0, np.maximum(sizes, 1.0) ** temperature, 0.0)
        rates = shares / shares.sum() * sizes.sum() / np.maximum(sizes, 1)
        sums = np.add.reduceat(rates[everything.domains], everything.cu_seqlens[:-1])
        return sums / self.windows.lengths

    def _check(self) -> None:
        if len(self.windows.lengths) == 0:
            raise ValueError(
                "histories: no row has two events, expected an item and one that follows it; "
                "there is nothing to train on"
            )
        if self.times is not None and self.times.shape != self.items.shape:
            raise ValueError(
                f"times: got {list(self.times.shape)}, expected {list(self.items.shape)}, one for "
                "each event of the histories"
            )
        low, high = int(self.items.min()), int(self.items.max())
        if low < self.domain_starts[0] or high >= self.domain_starts[-1]:
            raise ValueError(
                f"histories: items from {low} to {high}, expected {self.domain_starts[0]} to "
                f"{self.domain_starts[-1] - 1} (domain_starts); both must be of one corpus"
            )
