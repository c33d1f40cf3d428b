"""A recommender: an item table and a sequence model whose vectors meet in one space.

Shapes: T packed tokens, M items asked for, n histories, d width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from user_model.batching import Int64
from user_model.items import ItemTable
from user_model.sequence import SequenceModel, reads_times


@dataclass(frozen=True)
class ParameterCounts:
    """Trainable parameters: all of them, and those outside the id embedding."""

    total: int
    non_embedding: int


class Recommender(nn.Module):
    """Scores items for users: <user vector, item vector>, both L2-normalised [D].

    With a text channel in the table both go on in its columns (`text_channel`): width d + t.

    Args:
        items: the item table; its width is the sequence model's.
        sequence_model: Hydra, SASRec, or any module with their call.
        normalise: whether user and item vectors get length 1, so that a score is a cosine; False:
            a score is the plain inner product, as in SASRec as published.
    """

    def __init__(
        self, items: ItemTable, sequence_model: nn.Module, *, normalise: bool = True
    ) -> None:
        super().__init__()
        self.items = items
        self.sequence_model = sequence_model
        self.normalise = normalise

    def user_vectors(
        self, items_T: Tensor, cu_seqlens: Tensor, times_T: Tensor | None = None
    ) -> Tensor:
        """Return the user's vector after each item, [T, d], as scores take it.

        Args:
            items_T: int64 [T], packed global item positions, oldest first.
            cu_seqlens: int64 [S + 1], seams.
            times_T: int64 [T], unix seconds; only a model that reads times looks at them.
        """
        return self.user_vectors_of(self.items(items_T), cu_seqlens, times_T, items_T=items_T)

    def user_vectors_of(
        self,
        vectors_Td: Tensor,
        cu_seqlens: Tensor,
        times_T: Tensor | None = None,
        *,
        items_T: Tensor,
    ) -> Tensor:
        """Return the user's vectors [T, width], as scores take them, from item vectors [T, d].

        Args:
            vectors_Td: the vectors of the items.
            cu_seqlens: int64 [S + 1], seams.
            times_T: as in `user_vectors`.
            items_T: int64 [T], which items they are; only a text channel looks at them.
        """
        if reads_times(self.sequence_model):
            users_Td = self._scored(self.sequence_model(vectors_Td, cu_seqlens, times_T))
        else:
            model: SequenceModel = self.sequence_model
            users_Td = self._scored(model(vectors_Td, cu_seqlens))
        if self.items.channel is None:
            return users_Td
        return torch.cat([users_Td, self.items.channel.histories(items_T, cu_seqlens)], 1)

    def item_vectors(self, items_M: Tensor) -> Tensor:
        """Return the vectors [M, width] of items int64 [M], as scores take them."""
        return self.item_vectors_of(self.items(items_M), items_M)

    def item_vectors_of(self, vectors_Md: Tensor, items_M: Tensor) -> Tensor:
        """Return the vectors [M, width] of items, as scores take them, from the table's [M, d]."""
        scored_Md = self._scored(vectors_Md)
        if self.items.channel is None:
            return scored_Md
        return torch.cat([scored_Md, self.items.channel.items(items_M)], 1)

    @property
    def width(self) -> int:
        """Columns of user and item vectors as scores take them: d, and t with a text channel."""
        channel = self.items.channel
        return self.items.dim + (0 if channel is None else channel.width)

    def _scored(self, vectors_Md: Tensor) -> Tensor:
        """Return learned vectors [M, d] as scores take them: of length 1, or as they are."""
        return functional.normalize(vectors_Md, dim=-1) if self.normalise else vectors_Md

    @torch.no_grad()
    def encode_histories(
        self,
        offsets: Int64,
        items: Int64,
        *,
        times: Int64 | None = None,
        block_tokens: int = 32768,
    ) -> Tensor:
        """Return each user's vector after the whole history, float32 [n, width], for scores.

        Runs in evaluation mode, in blocks of whole histories of about block_tokens items.

        Args:
            offsets: int64 [n + 1], where each history begins.
            items: integers [offsets[-1]], global item positions, oldest first.
            times: int64 [offsets[-1]], unix seconds, for a model that reads times.
            block_tokens: bound on the items of a block (a single longer history passes it).

        Returns:
            float32 [n, width] on the CPU; a row of zeros for an empty history: it tells nothing.
        """
        was_training = self.training
        self.eval()
        try:
            users = torch.zeros(len(offsets) - 1, self.width)
            seen, inverse = np.unique(items, return_inverse=True)
            device = next(self.parameters()).device
            seen_M = torch.from_numpy(seen.astype(np.int64)).to(device)
            table = self.items(seen_M)
            block = (np.asarray(offsets[:-1]) - offsets[0]) // block_tokens
            for number in np.unique(block):
                first, last = np.searchsorted(block, [number, number + 1])
                events = slice(offsets[first], offsets[last])
                rows = torch.from_numpy(inverse[events]).to(device)
                when = None if times is None else torch.from_numpy(times[events]).to(device)
                seams = np.asarray(offsets[first : last + 1], dtype=np.int64) - offsets[first]
                users[first:last] = self._last_vectors(table, seen_M, rows, seams, when)
            return users
        finally:
            self.train(was_training)

    def _last_vectors(
        self,
        table: Tensor,
        seen_M: Tensor,
        rows_T: Tensor,
        seams: Int64,
        times_T: Tensor | None,
    ) -> Tensor:
        """Return the vectors after the last item of each history, zeros after an empty one."""
        filled = np.flatnonzero(np.diff(seams))
        users = torch.zeros(len(seams) - 1, self.width)
        if len(filled):
            cu_seqlens = np.concatenate([[0], seams[filled + 1]])
            vectors = functional.embedding(rows_T, table)
            on_device = torch.from_numpy(cu_seqlens).to(rows_T.device)
            packed = self.user_vectors_of(vectors, on_device, times_T, items_T=seen_M[rows_T])
            users[filled] = packed[torch.from_numpy(cu_seqlens[1:] - 1)].float().cpu()
        return users

    def parameter_counts(self) -> ParameterCounts:
        """Count trainable parameters, with and without the id embedding."""
        total = sum(p.numel() for p in self.parameters() if p.requires_grad)
        ids = 0 if self.items.ids is None else self.items.ids.numel()
        return ParameterCounts(total, total - ids)
