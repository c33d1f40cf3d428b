"""The module that fine-tuning trains: the encoder and the temperature, fed pair by pair.

Legend: B pairs of a batch over all workers, b = B / workers of this worker, d width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from item_llm.batching import TokenBatch, by_parts
from item_llm.encoder import ItemEncoder
from item_llm.objective import EncodedPairs, gather_rows
from item_llm.pairs import ItemPairs

_SCALES = (1.0, 100.0)  # CLIP's upper bound: a temperature below 0.01 makes the loss unstable
_EVALUATION_TEXTS = 32
_CHUNKS_PER_CALL = 8

Forward = Callable[[Sequence[TokenBatch]], tuple[torch.Tensor, torch.Tensor]]


class ContrastiveModel(nn.Module):
    """An encoder with the scale (one over the temperature) of its cosines."""

    def __init__(self, encoder: ItemEncoder, temperature: float, *, learn: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.log_scale = nn.Parameter(torch.tensor([-math.log(temperature)]), requires_grad=learn)

    def forward(self, batches: Sequence[TokenBatch]) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors [rows, d] and the scale, a scalar."""
        return self.encoder(batches), bounded_scale(self.log_scale)

    def train_adapter_only(self) -> None:
        """LoRA's dropout on, the base model's off: it is frozen, and noise in it only costs."""
        for name, module in self.named_modules():
            module.training = "lora_dropout" in name


def bounded_scale(log_scale_1: torch.Tensor) -> torch.Tensor:
    """The scalar that cosines are multiplied by: one over the temperature, within bounds."""
    return log_scale_1.exp().clamp(*_SCALES).squeeze(0)


class TextTable:
    """The token ids of distinct texts, encoded in chunks of like length.

    Under ZeRO-3 all workers must run the model equally often, so the number of chunks depends on
    how many texts a worker is given at most, never on which they are.
    """

    def __init__(self, encoder: ItemEncoder, texts: Sequence[str]) -> None:
        self._encoder = encoder
        self._rows = encoder.tokenize(texts)

    def encode_pairs(
        self, forward: Forward, pairs: ItemPairs, chunk: int
    ) -> tuple[EncodedPairs, torch.Tensor]:
        """Encode this worker's b pairs, each distinct text once; differentiable."""
        ids, inverse = np.unique(np.concatenate([pairs.source, pairs.target]), return_inverse=True)
        parts = -(-2 * len(pairs) // chunk)
        batches, place = self._chunks(ids, parts)
        vectors, scale = forward(batches)
        of_pair = torch.from_numpy(place[inverse]).to(vectors.device)
        source, target = vectors[of_pair].chunk(2)
        source_ids, target_ids = (
            torch.from_numpy(x).to(vectors.device) for x in (pairs.source, pairs.target)
        )
        return EncodedPairs(source, target, source_ids, target_ids), scale

    @torch.no_grad()
    def encode_all(self, forward: Forward) -> np.ndarray:
        """Vectors of all texts, float32 [texts, d], shared out over the workers."""
        workers, rank = dist.get_world_size(), dist.get_rank()
        count = len(self._rows)
        if not count:
            return np.zeros((0, self._encoder.dim), dtype=np.float32)
        share = -(-count // workers)
        mine = np.minimum(np.arange(rank * share, (rank + 1) * share), count - 1)
        batches, place = self._chunks(mine, -(-share // _EVALUATION_TEXTS))
        calls = range(0, len(batches), _CHUNKS_PER_CALL)
        vectors = torch.cat([forward(batches[i : i + _CHUNKS_PER_CALL])[0] for i in calls])
        whole = gather_rows(vectors[torch.from_numpy(place).to(vectors.device)])
        return whole[:count].cpu().numpy()

    def _chunks(self, ids: np.ndarray, parts: int) -> tuple[list[TokenBatch], np.ndarray]:
        """Exactly `parts` batches of the texts `ids`, and the row of each text in all of them."""
        groups = by_parts([len(self._rows[i]) for i in ids], parts)
        place = np.empty(len(ids), dtype=np.int64)
        order = np.concatenate(groups)
        place[order] = np.arange(len(order))
        batches = [self._encoder.collate([self._rows[i] for i in ids[g]]) for g in groups]
        return batches, place
