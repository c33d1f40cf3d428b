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
from torch.utils.checkpoint import checkpoint

from item_llm.batches import Part
from item_llm.batching import TokenBatch, by_parts
from item_llm.encoder import ItemEncoder
from item_llm.objective import EncodedPairs, gather_rows

_SCALES = (1.0, 100.0)  # CLIP's upper bound: a temperature below 0.01 makes the loss unstable
_EVALUATION_TEXTS = 32
_CHUNKS_PER_CALL = 8

Forward = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]


class ContrastiveModel(nn.Module):
    """An encoder with the scale (one over the temperature) of its cosines.

    With `recompute` no activations of the encoder are kept for the backward pass: it runs each
    chunk again, the prompt included, so that memory is that of one chunk.

    A `sequence_model` maps packed item vectors [T, d] and their seams int64 [S + 1] to user vectors
    [T, d], and is trained with the encoder.
    """

    def __init__(
        self,
        encoder: ItemEncoder,
        temperature: float,
        *,
        learn: bool,
        recompute: bool = False,
        sequence_model: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.sequence_model = sequence_model
        self.recompute = recompute
        self.log_scale = nn.Parameter(torch.tensor([-math.log(temperature)]), requires_grad=learn)

    def forward(
        self,
        batches: Sequence[TokenBatch],
        histories: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Encode texts and, with `histories`, read them.

        Args:
            batches: texts.
            histories: the row of each event's text, int64 [T], and seams, int64 [S + 1].

        Returns:
            Unit vectors [rows, d], the scale, and the user vectors [T, d] or None.
        """
        vectors = self._encoded(batches)
        users = None
        if histories is not None:
            assert self.sequence_model is not None, "histories need a sequence model"
            users = self.sequence_model(vectors[histories[0]], histories[1])
        return vectors, bounded_scale(self.log_scale), users

    def _encoded(self, batches: Sequence[TokenBatch]) -> torch.Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            vectors: torch.Tensor = self.encoder(batches)
            return vectors
        chunks = [checkpoint(self.encoder, [batch], use_reentrant=False) for batch in batches]
        return torch.cat(chunks)

    def train_adapter_only(self) -> None:
        """LoRA's dropout on, the base model's off: it is frozen, and noise in it only costs."""
        for name, module in self.named_modules():
            module.training = "lora_dropout" in name or name.startswith("sequence_model")


def bounded_scale(log_scale_1: torch.Tensor) -> torch.Tensor:
    """The scalar that cosines are multiplied by: one over the temperature, within bounds."""
    return log_scale_1.exp().clamp(*_SCALES).squeeze(0)


class TextTable:
    """The token ids of distinct texts, encoded in chunks of like length.

    Under ZeRO-3 all workers must run the model equally often, so the number of chunks depends on
    how many texts a worker is given at most, never on which they are.
    """

    def __init__(self, encoder: ItemEncoder, texts: Sequence[str]) -> None:
        self._encoder, self._texts = encoder, texts
        self._rows = encoder.tokenize(texts)

    def text(self, place: int) -> str:
        """One of the texts."""
        return self._texts[place]

    def encode_pairs(
        self, forward: Forward, part: Part, chunk: int
    ) -> tuple[EncodedPairs, torch.Tensor]:
        """Encode a part of this worker's pairs, each distinct text once; differentiable."""
        pairs = part.pairs
        ids, inverse = np.unique(np.concatenate([pairs.source, pairs.target]), return_inverse=True)
        batches, place = self._chunks(ids, -(-part.texts // chunk))
        device = batches[0].ids.device
        rows, source_ids, target_ids = (
            torch.from_numpy(x).to(device) for x in (place[inverse], pairs.source, pairs.target)
        )
        histories = None
        if part.seams is not None:
            histories = rows[: len(pairs)], torch.from_numpy(part.seams).to(device)
        vectors, scale, users = forward(batches, histories)
        source, target = vectors[rows].chunk(2)
        encoded = EncodedPairs(source, target, source_ids, target_ids, users)
        return encoded if part.size == len(pairs) else encoded.padded(part.size), scale

    def encode_all(self, forward: Forward) -> np.ndarray:
        """Vectors of all texts, float32 [texts, d], shared out over the workers.

        Raises:
            ValueError: one is not finite; counted, its rank would be the best.
        """
        vectors = self.encode_texts(forward, np.arange(len(self._rows)))
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise ValueError(
                f"{len(bad)} of {len(vectors)} held-out texts have a vector that is no number, the "
                f"first {self.text(int(bad[0]))[:60]!r}: the weights have diverged, or overflow "
                "encoder.dtype; lower finetuning.learning_rate, or set dtype to float32"
            )
        return vectors

    @torch.no_grad()
    def encode_texts(self, forward: Forward, ids: np.ndarray) -> np.ndarray:
        """Vectors of the texts `ids`, float32 [ids, d], shared out over the workers."""
        workers, rank = dist.get_world_size(), dist.get_rank()
        count = len(ids)
        if not count:
            return np.zeros((0, self._encoder.dim), dtype=np.float32)
        share = -(-count // workers)
        mine = ids[np.minimum(np.arange(rank * share, (rank + 1) * share), count - 1)]
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
