"""Causal self-attention of packed sequences through torch's fused kernel.

Sequences are grouped by length, each group padded to its longest at the right, where the causal
mask hides the padding from every real token: no other mask is needed, and the fused kernel runs
without one. Only attention sees padding; the linear maps around it run on packed tokens.
Shapes: T packed tokens, S sequences, L longest of a group, d width, H heads.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from user_model.layers import Linear
from user_model.sequence import sequence_lengths

_BOUNDS = (0, 2, 4, 8, 16, 32, 50, 64, 100, 128, 200, 256, 512, 1024, 2048, 4096)


def check_heads(heads: int, dim: int) -> None:
    """See that heads share the model's width evenly.

    Raises:
        ValueError: they do not divide dim.
    """
    if dim % heads:
        raise ValueError(
            f"heads: got {heads}, expected a divisor of dim {dim}; every head has dim / heads "
            "columns"
        )


@dataclass(frozen=True)
class AttentionPlan:
    """Where each token goes: groups of padded rows, made once for a batch.

    Attributes:
        groups: (rows, length) of each group, shortest first.
        gather: int64 [sum of rows x length], the token of each slot (0 in the padding).
        scatter: int64 [T], the slot of each token.
        longest: length of the longest sequence.
    """

    groups: tuple[tuple[int, int], ...]
    gather: Tensor
    scatter: Tensor
    longest: int

    @classmethod
    def build(cls, cu_seqlens: Tensor, max_positions: int | None = None) -> Self:
        """Group the sequences of a batch, int64 [S + 1], by length.

        Raises:
            ValueError: a sequence is longer than max_positions, where that is given.
        """
        lengths = sequence_lengths(cu_seqlens).cpu()
        order = torch.argsort(lengths, stable=True)
        ordered = lengths[order]
        longest = int(ordered[-1]) if len(ordered) else 0
        if max_positions is not None and longest > max_positions:
            raise ValueError(
                f"cu_seqlens: a sequence has {longest} items, expected at most max_positions "
                f"= {max_positions}; clip the history or raise max_positions"
            )
        bounds = [*(b for b in _BOUNDS if b < longest), longest]
        cuts = torch.searchsorted(ordered, torch.tensor(bounds), right=True).tolist()
        groups = [
            (after - before, int(ordered[after - 1]))
            for before, after in pairwise(cuts)
            if after > before
        ]
        kept = ordered[cuts[0] :], order[cuts[0] :]
        gather, scatter = _slots(groups, *kept, cu_seqlens.cpu())
        device = cu_seqlens.device
        return cls(tuple(groups), gather.to(device), scatter.to(device), longest)

    def padded(self, x_TX: Tensor) -> list[Tensor]:
        """Return x [T, X] as padded rows [rows, length, X], a tensor for each group.

        A slot of the padding holds a copy of token 0.
        """
        slots = functional.embedding(self.gather, x_TX)
        sizes = [rows * length for rows, length in self.groups]
        parts = zip(self.groups, slots.split(sizes), strict=True)
        return [part.view(rows, length, -1) for (rows, length), part in parts]

    def packed(self, groups: list[Tensor]) -> Tensor:
        """Return the tokens of padded rows [rows, length, X] in their own order, [T, X]."""
        return torch.cat([part.flatten(0, 1) for part in groups]).index_select(0, self.scatter)


def _slots(
    groups: list[tuple[int, int]], lengths: Tensor, order: Tensor, cu_seqlens: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the token of each slot and the slot of each token."""
    rows = torch.tensor([r for r, _ in groups], dtype=torch.int64)
    widths = torch.repeat_interleave(torch.tensor([w for _, w in groups], dtype=torch.int64), rows)
    row_starts = widths.cumsum(0) - widths
    total = int(widths.sum())
    row = torch.repeat_interleave(torch.arange(len(widths)), widths, output_size=total)
    column = torch.arange(total) - row_starts[row]
    real = column < lengths[row]
    gather = torch.where(real, cu_seqlens[order][row] + column, 0)
    scatter = torch.empty(int(cu_seqlens[-1]), dtype=torch.int64)
    slots = real.nonzero().squeeze(-1)
    scatter[gather[slots]] = slots
    return gather, scatter


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which an item sees itself and what came before in its sequence.

    Args:
        dim: width d of the tokens.
        heads: number of heads; a divisor of dim.
        output: whether a linear map stands after the heads; SASRec as published has none.
    """

    def __init__(self, dim: int, heads: int, *, output: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.input = Linear(dim, 3 * dim)
        self.output = Linear(dim, dim) if output else nn.Identity()

    def forward(self, h_Td: Tensor, plan: AttentionPlan) -> Tensor:
        """Map h [T, d] to [T, d]."""
        mixed = [self._attend(part_SLX) for part_SLX in plan.padded(self.input(h_Td))]
        return self.output(plan.packed(mixed))

    def _attend(self, qkv_SLX: Tensor) -> Tensor:
        q, k, v = qkv_SLX.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_SHLD = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed_SHLD.transpose(1, 2).flatten(2)
