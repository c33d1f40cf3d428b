"""Mamba-2 for recommendation without an item stream, in the manner of Mamba4Rec.

The block is Mamba4Rec's (arXiv 2403.03900): a state-space mixer and a feed-forward, each followed
by dropout, residual and layer norm; the mixer is Mamba-2's (arXiv 2405.21060) with one group: all
heads read the same B and C. What differs from Hydra is what there is to compare: no product with
RoPE(Z), and full-width projections in place of narrow heads'.
Shapes: T packed tokens, d model width, E inner width, V heads, P width of a head, N state.
"""

from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from user_model import ops
from user_model.dropout import TokenDropout
from user_model.heads import NORM_EPS, CausalConv, SelectiveScan
from user_model.layers import Linear
from user_model.sequence import check_packed


class Mamba2RecConfig(BaseModel):
    """Shape of a Mamba-2 user model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, gt=0, description="Model width d; also the width of the item vectors.")
    layers: int = Field(1, ge=1, description="Number of blocks; a single one has no residual.")
    expand: int = Field(2, ge=1, description="Inner width of the mixer, in multiples of dim.")
    heads: int = Field(1, ge=1, description="Heads of the scan; they divide expand x dim.")
    state_dim: int = Field(32, ge=1, description="State N of a head.")
    ffn_dim: int | None = Field(
        None, ge=1, description="Hidden width of the feed-forward; null = 4 x dim, as published."
    )
    dropout: float = Field(0.2, ge=0.0, lt=1.0, description="Dropout of inputs and of branches.")
    backend: str = Field("auto", description="Backend of the ops; an absent one raises.")

    @property
    def inner_width(self) -> int:
        """Inner width E of the mixer."""
        return self.expand * self.dim

    @property
    def ffn_width(self) -> int:
        """Hidden width of the feed-forward: `ffn_dim`, or 4 d as published."""
        return self.ffn_dim if self.ffn_dim is not None else 4 * self.dim

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.inner_width % self.heads:
            raise ValueError(
                f"heads: got {self.heads}, expected a divisor of expand x dim = "
                f"{self.inner_width}; every head has expand x dim / heads columns"
            )
        return self


class Mamba2Mixer(nn.Module):
    """Mamba-2 with one group: projection to (gate, x, B, C, dt), convolution, scan, gated norm."""

    def __init__(self, config: Mamba2RecConfig) -> None:
        super().__init__()
        E, N, V = config.inner_width, config.state_dim, config.heads
        self.heads, self.backend = V, config.backend
        self.split = [E, E + 2 * N, V]
        self.input = Linear(config.dim, sum(self.split), bias=False, backend=config.backend)
        self.conv = CausalConv(E + 2 * N)
        self.scan = SelectiveScan(V)
        self.norm_weight = nn.Parameter(torch.ones(E))
        self.output = Linear(E, config.dim, bias=False, backend=config.backend)

    def forward(self, h_Td: Tensor, cu_seqlens: Tensor, plan: ops.Plan) -> Tensor:
        """Map h [T, d] to [T, d]; nothing crosses the seams of cu_seqlens [S + 1]."""
        gate_TE, selected_TK, dt_TV = self.input(h_Td).split(self.split, -1)
        selected_TK = ops.causal_conv(
            selected_TK.contiguous(), self.conv.weight, self.conv.bias, cu_seqlens,
            plan=plan, backend=self.backend,
        )  # fmt: skip
        y_TE = self._scan(selected_TK, dt_TV, cu_seqlens, plan)
        # The norm is over all heads: Mamba-2's has as many parts as groups.
        normed_T1E = ops.gated_norm(
            y_TE[:, None], gate_TE[:, None], self.norm_weight[None], NORM_EPS, backend=self.backend
        )
        return self.output(normed_T1E.squeeze(1))

    def _scan(
        self, selected_TK: Tensor, dt_TV: Tensor, cu_seqlens: Tensor, plan: ops.Plan
    ) -> Tensor:
        inner = self.split[0]
        x_TE, bc_T2N = selected_TK[:, :inner], selected_TK[:, inner:]
        B_TVN, C_TVN = (
            part_TN[:, None].expand(-1, self.heads, -1).contiguous()
            for part_TN in bc_T2N.chunk(2, -1)
        )
        y_TVP = ops.hydra_scan(
            x_TE.unflatten(-1, (self.heads, -1)).contiguous(), dt_TV.contiguous(),
            self.scan.decay_rates, B_TVN, C_TVN, self.scan.D, None, cu_seqlens,
            dt_bias=self.scan.dt_bias, plan=plan, backend=self.backend,
        )  # fmt: skip
        return y_TVP.flatten(1)


class Mamba2RecBlock(nn.Module):
    """Mixer, then feed-forward with GELU, each followed by dropout, residual and layer norm.

    As published, the mixer of a single layer has no residual.
    """

    def __init__(self, config: Mamba2RecConfig) -> None:
        super().__init__()
        self.residual = config.layers > 1
        self.mixer = Mamba2Mixer(config)
        self.dropout = TokenDropout(config.dropout)
        self.norm = nn.LayerNorm(config.dim)
        self.ffn = nn.Sequential(
            Linear(config.dim, config.ffn_width, backend=config.backend),
            nn.GELU(),
            TokenDropout(config.dropout),
            Linear(config.ffn_width, config.dim, backend=config.backend),
        )
        self.ffn_dropout = TokenDropout(config.dropout)
        self.ffn_norm = nn.LayerNorm(config.dim)

    def forward(self, h_Td: Tensor, cu_seqlens: Tensor, plan: ops.Plan) -> Tensor:
        """Map h [T, d] to [T, d]."""
        mixed_Td = self.dropout(self.mixer(h_Td, cu_seqlens, plan))
        h_Td = self.norm(h_Td + mixed_Td if self.residual else mixed_Td)
        return self.ffn_norm(h_Td + self.ffn_dropout(self.ffn(h_Td)))


class Mamba2Rec(nn.Module):
    """The Mamba-2 user model, called as Hydra is: blocks over LayerNorm(Dropout(item vectors)).

    There are no positions: the scan tells order.
    """

    def __init__(self, config: Mamba2RecConfig) -> None:
        super().__init__()
        self.config = config
        self.input_dropout = TokenDropout(config.dropout)
        self.input_norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.blocks = nn.ModuleList(Mamba2RecBlock(config) for _ in range(config.layers))

    def forward(self, vectors_Td: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Return user vectors [T, d], not normalised.

        Raises:
            ValueError: where the width of the vectors or the seams do not fit.
        """
        check_packed(vectors_Td, cu_seqlens, self.config.dim)
        plan = ops.plan(cu_seqlens)
        h_Td = self.input_norm(self.input_dropout(vectors_Td))
        for block in self.blocks:
            h_Td = block(h_Td, cu_seqlens, plan)
        return h_Td
