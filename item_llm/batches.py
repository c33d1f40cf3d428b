"""What a step learns from: pairs of one domain, or whole histories of it; cut into workers' parts.

Batch k depends on the seed and k alone. Under ZeRO-3 all workers must run the model equally often,
so how many texts a part is run as depends on the configuration, never on which pairs are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from item_llm.finetuning_config import FinetuningConfig
from item_llm.histories import runs_of
from item_llm.pairs import ItemPairs, PairSampler


@dataclass(frozen=True)
class Part:
    """The pairs that a worker encodes at once.

    Attributes:
        pairs: n pairs.
        texts: texts that it counts as; it has no more distinct ones.
        size: rows it is padded to, so that all workers have as many; n or more.
        seams: int64 [S + 1], the n pairs as histories one after another; None: each by itself.
    """

    pairs: ItemPairs
    texts: int
    size: int
    seams: np.ndarray | None = None


class Batches(Protocol):
    """Where the steps of a training come from."""

    def parts(self, step: int, workers: int, rank: int) -> list[Part]:
        """The parts of one worker in a step, as many for every worker and step."""
        ...

    def predictions(self, step: int) -> int:
        """Pairs of the step over all workers."""
        ...

    def domain(self, step: int) -> int:
        """The domain of the step's batch."""
        ...


class PairBatches:
    """`pairs_per_step` pairs of one domain a step."""

    def __init__(self, pairs: ItemPairs, config: FinetuningConfig) -> None:
        self._pairs, self._count = pairs, config.gradient_accumulation
        self._sampler = PairSampler(
            pairs.domain, config.pairs_per_step, config.domain_temperature, config.seed
        )

    def parts(self, step: int, workers: int, rank: int) -> list[Part]:
        """Equal shares of the drawn pairs."""
        mine = _share(self._sampler.batch(step), workers, rank, self._count)
        return [Part(self._pairs[rows], 2 * len(rows), len(rows)) for rows in mine]

    def predictions(self, step: int) -> int:
        """The same in every step."""
        return len(self._sampler.batch(step))

    def domain(self, step: int) -> int:
        """The domain of the drawn pairs."""
        return int(self._pairs.domain[self._sampler.batch(step)[0]])


class HistoryBatches:
    """Histories of one domain, so many that a step encodes no more texts than with pairs."""

    def __init__(self, pairs: ItemPairs, config: FinetuningConfig) -> None:
        self._pairs, self._count = pairs, config.gradient_accumulation
        self._length = config.history_length
        self._starts = runs_of(pairs, self._length - 1)
        self._sampler = PairSampler(
            pairs.domain[self._starts[:-1]],
            config.histories_per_step,
            config.domain_temperature,
            config.seed,
        )

    def parts(self, step: int, workers: int, rank: int) -> list[Part]:
        """Equal shares of the drawn histories, of unequal numbers of pairs."""
        shares = _share(self._sampler.batch(step), workers, rank, self._count)
        return [self._part(runs) for runs in shares]

    def predictions(self, step: int) -> int:
        """The pairs of the histories drawn."""
        return int(np.diff(self._starts)[self._sampler.batch(step)].sum())

    def domain(self, step: int) -> int:
        """The domain of the drawn histories."""
        return int(self._pairs.domain[self._starts[self._sampler.batch(step)[0]]])

    def _part(self, runs: np.ndarray) -> Part:
        bounds = [(self._starts[run], self._starts[run + 1]) for run in runs]
        rows = np.concatenate([np.arange(*bound) for bound in bounds])
        seams = np.cumsum([0, *(stop - start for start, stop in bounds)])
        texts, size = len(runs) * self._length, len(runs) * (self._length - 1)
        return Part(self._pairs[rows], texts, size, seams)


def batches_of(pairs: ItemPairs, config: FinetuningConfig) -> Batches:
    """The batches of the configured objective.

    Raises:
        ValueError: there are no pairs, or histories are asked for and cannot be told apart.
    """
    kind = HistoryBatches if config.objective == "histories" else PairBatches
    return kind(pairs, config)


def _share(batch: np.ndarray, workers: int, rank: int, parts: int) -> list[np.ndarray]:
    return np.array_split(np.array_split(batch, workers)[rank], parts)
