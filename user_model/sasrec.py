"""SASRec: causal self-attention over the user's items (arXiv 1808.09781), packed in and out.

Shapes: T packed tokens, S sequences, d model width.
"""

from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from user_model.attention import AttentionPlan, CausalSelfAttention, check_heads
from user_model.dropout import TokenDropout
from user_model.layers import Linear, RMSNorm
from user_model.sequence import check_packed, positions


class SASRecConfig(BaseModel):
    """Shape of a SASRec user model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, gt=0, description="Model width d; also the width of the item vectors.")
    layers: int = Field(2, ge=1, description="Number of attention blocks.")
    heads: int = Field(1, ge=1, description="Attention heads; they divide dim.")
    max_positions: int = Field(
        50, ge=1, description="Learned positions: the longest history, in items."
    )
    ffn_dim: int | None = Field(
        None, ge=1, description="Hidden width of the feed-forward; null = dim, as published."
    )
    dropout: float = Field(0.2, ge=0.0, lt=1.0, description="Dropout of inputs and of branches.")

    @property
    def ffn_width(self) -> int:
        """Hidden width of the feed-forward: `ffn_dim`, or d as published."""
        return self.ffn_dim if self.ffn_dim is not None else self.dim

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        check_heads(self.heads, self.dim)
        return self


class SASRecBlock(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward with ReLU, each with a residual.

    Args:
        config: shape of the model.
        eps: of the layer norms.
        output: whether attention has an output map.
    """

    def __init__(self, config: SASRecConfig, *, eps: float = 1e-5, output: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, eps=eps)
        self.attention = CausalSelfAttention(config.dim, config.heads, output=output)
        self.dropout = TokenDropout(config.dropout)
        self.ffn_norm = nn.LayerNorm(config.dim, eps=eps)
        self.ffn = nn.Sequential(
            Linear(config.dim, config.ffn_width),
            nn.ReLU(),
            TokenDropout(config.dropout),
            Linear(config.ffn_width, config.dim),
        )
        self.ffn_dropout = TokenDropout(config.dropout)

    def forward(self, h_Td: Tensor, plan: AttentionPlan) -> Tensor:
        """Map h [T, d] to [T, d]."""
        h_Td = h_Td + self.dropout(self.attention(self.norm(h_Td), plan))
        return h_Td + self.ffn_dropout(self.ffn(self.ffn_norm(h_Td)))


class SASRec(nn.Module):
    """The SASRec user model, called as Hydra is.

    Packed item vectors float [T, d] and their seams int64 [S + 1] in, the user's vector after each
    item out, [T, d], not normalised. Item t of a sequence has position t, counted from the first
    kept event, as in Hydra (the original counts from the last).
    """

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.config = config
        self.positions = nn.Parameter(torch.empty(config.max_positions, config.dim))
        nn.init.normal_(self.positions, std=0.02)
        # Rows of unit RMS, so that items and positions keep their proportion as the table grows.
        self.input_norm = RMSNorm(config.dim, eps=1e-6)
        self.input_dropout = TokenDropout(config.dropout)
        self.blocks = nn.ModuleList(SASRecBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, vectors_Td: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Return user vectors [T, d].

        Raises:
            ValueError: where the width or the seams do not fit, or a sequence is longer than
                max_positions.
        """
        check_packed(vectors_Td, cu_seqlens, self.config.dim)
        plan = AttentionPlan.build(cu_seqlens, self.config.max_positions)
        h_Td = self.input_norm(vectors_Td) + self.positions[positions(cu_seqlens)]
        h_Td = self.input_dropout(h_Td)
        for block in self.blocks:
            h_Td = block(h_Td, plan)
        return self.norm(h_Td)
