"""Further negatives at no cost in training: texts with the vectors that the untuned encoder gave.

A batch's own items are few. Vectors of other texts of its domain widen the choice; they get no
gradient, and they grow stale as the encoder moves ([D]: what is centred moves little under LoRA).
"""

from __future__ import annotations

import numpy as np
import torch

from item_llm.contrastive import Forward, TextTable
from item_llm.objective import CachedTexts, centred
from item_llm.pairs import ItemPairs

_STREAM = 0x63616368  # keeps these draws apart from those of the batches


class CachedNegatives:
    """Draws `count` texts of a domain in each step; only texts that will be drawn are encoded.

    The draws depend on the seed and the step alone, and all workers have the same.

    Args:
        pairs: training pairs, positions of texts; a domain's texts are those that its pairs name.
        domains: int64 [steps], the domain of each step's batch.
        count: texts in a step at most; a domain with fewer gives all it has.
        seed: of the draws.
    """

    def __init__(self, pairs: ItemPairs, domains: np.ndarray, count: int, seed: int) -> None:
        texts = {d: _texts_of(pairs, d) for d in np.unique(domains).tolist()}
        self._draws = [
            np.random.default_rng((seed, step, _STREAM)).choice(
                texts[domain], size=min(count, len(texts[domain])), replace=False
            )
            for step, domain in enumerate(domains.tolist())
        ]
        self._ids = np.unique(np.concatenate(self._draws))
        self._vectors: torch.Tensor | None = None

    def encode(self, table: TextTable, untuned: Forward) -> None:
        """Encode what will be drawn, shared out over the workers; all of them must call it."""
        self._vectors = torch.from_numpy(table.encode_texts(untuned, self._ids))

    def of_step(self, step: int, device: torch.device) -> CachedTexts:
        """The draw of a step, centred by its own mean."""
        assert self._vectors is not None, "encode() comes first"
        ids = self._draws[step]
        rows = torch.from_numpy(np.searchsorted(self._ids, ids))
        vectors = centred(self._vectors[rows])
        return CachedTexts(vectors.to(device), torch.from_numpy(ids).to(device))


def _texts_of(pairs: ItemPairs, domain: int) -> np.ndarray:
    """Positions of the texts in a domain's pairs, ascending, each once."""
    own = pairs.domain == domain
    return np.unique(np.concatenate([pairs.source[own], pairs.target[own]]))
