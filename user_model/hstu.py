"""HSTU: pointwise SiLU attention with a relative bias of position and time (arXiv 2402.17152).

[P] marks the paper's equations, [C] what the authors' code does where the paper is silent, [D] our
decision.
Shapes: T packed tokens, S padded rows of L slots, d model width, V heads, P width of a head,
M longest history.
"""

from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from user_model.attention import AttentionPlan
from user_model.dropout import TokenDropout
from user_model.sequence import check_packed

_NORM_EPS = 1e-6  # [C]
_BIAS_STD = 0.02  # [C]


class HSTUConfig(BaseModel):
    """Shape of an HSTU user model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, gt=0, description="Model width d; also the width of the item vectors.")
    layers: int = Field(2, ge=1, description="Number of HSTU layers.")
    heads: int = Field(1, ge=1, description="Heads; they divide dim.")
    max_positions: int = Field(
        50, ge=1, description="Distances with a bias of their own: the longest history, in items."
    )
    dropout: float = Field(0.2, ge=0.0, lt=1.0, description="Dropout of inputs and of layers.")

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(
                f"heads: got {self.heads}, expected a divisor of dim {self.dim}; "
                "every head has dim / heads columns"
            )
        return self


class HSTULayer(nn.Module):
    """One layer [P], with the layer's norms and residual as in the authors' code [C].

    U, V, Q, K = SiLU(W_1 LayerNorm(h)); A = SiLU(Q K^T + bias) / M over the items up to each one;
    h + W_2 Dropout(LayerNorm(A V) * U). The bias is shared by the heads [C].
    """

    def __init__(self, config: HSTUConfig) -> None:
        super().__init__()
        self.heads, self.longest = config.heads, config.max_positions
        self.norm = nn.LayerNorm(config.dim, eps=_NORM_EPS)
        self.input = nn.Linear(config.dim, 4 * config.dim, bias=False)
        self.position_bias = nn.Parameter(torch.empty(config.max_positions).normal_(std=_BIAS_STD))
        self.mixed_norm = nn.LayerNorm(config.dim, eps=_NORM_EPS)
        self.dropout = TokenDropout(config.dropout)
        self.output = nn.Linear(config.dim, config.dim)
        nn.init.normal_(self.input.weight, std=_BIAS_STD)
        nn.init.xavier_uniform_(self.output.weight)

    def forward(self, h_Td: Tensor, plan: AttentionPlan) -> Tensor:
        """Map h [T, d] to [T, d]."""
        streams_T4d = functional.silu(self.input(self.norm(h_Td)))
        u_Td, vqk_T3d = streams_T4d.split([h_Td.shape[1], 3 * h_Td.shape[1]], -1)
        mixed = [self._attend(part_SLX) for part_SLX in plan.padded(vqk_T3d)]
        mixed_Td = self.mixed_norm(plan.packed(mixed)) * u_Td
        return h_Td + self.output(self.dropout(mixed_Td))

    def _attend(self, vqk_SLX: Tensor) -> Tensor:
        v, q, k = vqk_SLX.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores_SVLL = q @ k.mT + self._bias(vqk_SLX.shape[1])
        weights_SVLL = (functional.silu(scores_SVLL) / self.longest).tril()
        return (weights_SVLL @ v).transpose(1, 2).flatten(2)

    def _bias(self, length: int) -> Tensor:
        """Bias of each pair of slots by their distance, [L, L]; above the diagonal it is unused."""
        places_L = torch.arange(length, device=self.position_bias.device)
        distances_LL = (places_L[:, None] - places_L).clamp_min(0)
        return self.position_bias[distances_LL]


class HSTU(nn.Module):
    """The HSTU user model, called as Hydra is: layers over Dropout(RMSNorm(item vectors)) [D].

    Order is told by the layers' relative bias alone; there are no absolute positions [D].

    """

    def __init__(self, config: HSTUConfig) -> None:
        super().__init__()
        self.config = config
        self.input_norm = nn.RMSNorm(config.dim, eps=_NORM_EPS)
        self.input_dropout = TokenDropout(config.dropout)
        self.layers = nn.ModuleList(HSTULayer(config) for _ in range(config.layers))

    def forward(self, vectors_Td: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Return user vectors [T, d], not normalised.

        Raises:
            ValueError: where the width or the seams do not fit, or a sequence is longer than
                max_positions.
        """
        check_packed(vectors_Td, cu_seqlens, self.config.dim)
        plan = AttentionPlan.build(cu_seqlens, self.config.max_positions)
        h_Td = self.input_dropout(self.input_norm(vectors_Td))
        for layer in self.layers:
            h_Td = layer(h_Td, plan)
        return h_Td
