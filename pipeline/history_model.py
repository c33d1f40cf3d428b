"""The small user model that the item LLM is fine-tuned through, and that is then thrown away."""

from __future__ import annotations

import torch
from torch import nn

from user_model import Hydra, HydraConfig


class HistoryModel(nn.Module):
    """One Hydra layer between two narrow projections, added to the last item's vector.

    At first the second projection is zero, so that a history is its last item, as for pairs; what
    came before is learned from there ([D]).

    Args:
        width: width of the item vectors.
        dim: width d of the Hydra layer.
    """

    def __init__(self, width: int, dim: int = 64) -> None:
        super().__init__()
        self.narrow = nn.Linear(width, dim)
        self.hydra = Hydra(HydraConfig(dim=dim, layers=1))
        self.widen = nn.Linear(dim, width, bias=False)
        nn.init.zeros_(self.widen.weight)

    def forward(self, vectors: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        """Packed item vectors [T, width] and their seams int64 [S + 1] to user vectors alike."""
        users: torch.Tensor = self.widen(self.hydra(self.narrow(vectors), cu_seqlens))
        return vectors + users
