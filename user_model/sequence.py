"""What the recommender asks of a sequence model, and where the seams of a packed batch lie."""

from typing import Protocol

import torch
from torch import Tensor, nn


class SequenceModel(Protocol):
    """Item vectors in, user vectors out: the whole protocol between items and user model."""

    def __call__(self, vectors_Td: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Map packed item vectors [T, d] to the user's vector after each of them [T, d]."""
        ...


def reads_times(model: nn.Module) -> bool:
    """Whether a model takes the times of the items, int64 [T], as a third argument."""
    return bool(getattr(model, "reads_times", False))


def sequence_lengths(cu_seqlens: Tensor) -> Tensor:
    """Lengths of the packed sequences, int64 [S], from their seams, int64 [S + 1]."""
    return cu_seqlens[1:] - cu_seqlens[:-1]


def positions(cu_seqlens: Tensor) -> Tensor:
    """Position of each token counted from the first token of its own sequence, int64 [T]."""
    lengths = sequence_lengths(cu_seqlens)
    total = int(cu_seqlens[-1])
    starts = torch.repeat_interleave(cu_seqlens[:-1], lengths, output_size=total)
    return torch.arange(total, device=cu_seqlens.device) - starts


def check_packed(vectors_Td: Tensor, cu_seqlens: Tensor, dim: int) -> None:
    """Raise ValueError unless vectors are [T, dim] and cu_seqlens int64 [S + 1] ends at T."""
    if vectors_Td.ndim != 2 or vectors_Td.shape[1] != dim:
        raise ValueError(
            f"vectors: got shape {tuple(vectors_Td.shape)}, expected [tokens, {dim}]; "
            "the width of the items must equal the model's `dim`"
        )
    if cu_seqlens.ndim != 1 or cu_seqlens.dtype != torch.int64 or len(cu_seqlens) < 1:
        raise ValueError(
            f"cu_seqlens: got {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}, expected int64 "
            "[sequences + 1]; pass the running sum of the lengths, starting at 0"
        )
    if int(cu_seqlens[-1]) != len(vectors_Td):
        raise ValueError(
            f"cu_seqlens: ends at {int(cu_seqlens[-1])}, expected the {len(vectors_Td)} tokens "
            "of vectors; pass the running sum of the lengths of this very batch"
        )
