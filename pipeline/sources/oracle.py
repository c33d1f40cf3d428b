"""The truth of a simulated domain, as a scorer: no model can rank better on average.

Legend: R rows of one batch, I items of the shop, N items of the corpus's domain.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.sources.draws import Floats, Ints
from pipeline.sources.purchases import Purchases
from pipeline.sources.shop import Shop, make_shop

if TYPE_CHECKING:
    import torch

# Log-probability given to what cannot be bought, as it was bought before or is not sold yet:
# finite, and below any other.
BOUGHT_BEFORE = -1e4


class _Cases(Protocol):
    @property
    def users(self) -> NDArray[np.int64]: ...
    @property
    def targets(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Oracle:
    """A shop's parameters and what each person truly bought there, before any cleaning."""

    shop: Shop
    purchases: Purchases

    def log_probabilities(self, events: Ints) -> Floats:
        """Log-probabilities [R, I] of the next item, given the person, their past and the time.

        BOUGHT_BEFORE where the probability is 0.

        Args:
            events: rows of the purchases, int64 [R]: the moment is just before each.
        """
        bought = self.purchases
        logits_RI = self.shop.logits(
            bought.person[events], bought.previous[events], bought.time[events]
        )
        starts = np.searchsorted(bought.person, bought.person[events])
        counts = events - starts
        row = np.repeat(np.arange(len(events)), counts)
        earlier = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts - starts, counts)
        logits_RI[row, bought.item[earlier]] = -np.inf
        logits_RI -= logits_RI.max(axis=1, keepdims=True)
        log_p_RI = logits_RI - np.log(np.exp(logits_RI).sum(axis=1, keepdims=True))
        return np.maximum(log_p_RI, BOUGHT_BEFORE)

    def scorer(
        self, user_keys: Sequence[str], item_ids: Sequence[str], first_item: int, n_items: int
    ) -> OracleScorer:
        """A scorer for one domain of a corpus.

        Args:
            user_keys: of the corpus, by row.
            item_ids: of the corpus, by global position.
            first_item: the domain's first global position.
            n_items: how many the domain has.
        """
        items_N = [item_number(item_ids[first_item + place]) for place in range(n_items)]
        return OracleScorer(self, user_keys, first_item, np.array(items_N, dtype=np.int64))

    def save(self, path: Path) -> None:
        """Write one .npz file aside, flush it, rename it into place."""
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with aside.open("wb") as stream:
            config = np.array(self.shop.config.model_dump_json())
            np.savez_compressed(stream, config=config, **vars(self.purchases))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)

    @classmethod
    def open(cls, path: Path) -> Oracle:
        """Read what `save` wrote; the shop's law follows from the config in it.

        Raises:
            ValueError: the file is absent or damaged.
        """
        from pipeline.sources.simulated import SimulatedConfig

        try:
            with np.load(path, allow_pickle=False) as stored:
                config = SimulatedConfig.model_validate_json(str(stored["config"]))
                columns = (stored[name] for name in ("person", "item", "time", "previous"))
                purchases = Purchases(*columns)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"the oracle {path} cannot be read ({error}): run the data stage again"
            ) from error
        return cls(make_shop(config), purchases)


@dataclass(frozen=True)
class OracleScorer:
    """Scores of cases by the truth; a `pipeline.evaluation.Scorer`."""

    oracle: Oracle
    user_keys: Sequence[str]
    first_item: int
    items: Ints

    def __call__(self, cases: _Cases, rows: slice) -> torch.Tensor:
        """Log-probabilities, float32 [R, N], of the domain's items for the cases in `rows`.

        The target only tells which moment of the person's true history is meant: nobody buys an
        item twice.
        """
        import torch

        people = np.array(
            [person_number(self.user_keys[user]) for user in cases.users[rows]], dtype=np.int64
        )
        targets = self.items[cases.targets[rows] - self.first_item]
        log_p_RI = self.oracle.log_probabilities(self._events(people, targets))
        return torch.from_numpy(log_p_RI[:, self.items].astype(np.float32))

    def _events(self, people: Ints, items: Ints) -> Ints:
        key_E, order_E = self._sorted_purchases
        wanted = people * self.oracle.shop.n_items + items
        place = np.minimum(np.searchsorted(key_E, wanted), len(key_E) - 1)
        if not np.array_equal(key_E[place], wanted):
            raise ValueError("the cases hold events that this oracle never made: it belongs to "
                             "another simulated domain; run the data stage again")  # fmt: skip
        return order_E[place]

    @cached_property
    def _sorted_purchases(self) -> tuple[Ints, Ints]:
        """A key of (person, item) for each purchase, sorted, and the purchases in that order."""
        bought = self.oracle.purchases
        key_E = bought.person * self.oracle.shop.n_items + bought.item
        order_E = np.argsort(key_E)
        return key_E[order_E], order_E


def person_number(user_key: str) -> int:
    """The person behind a corpus's user key, `platform:u000012` or `platform:u000012-books`."""
    return int(user_key.rpartition(":u")[2].partition("-")[0])


def item_number(identifier: str) -> int:
    """The item behind an id, `books-00012`."""
    return int(identifier.rpartition("-")[2])
