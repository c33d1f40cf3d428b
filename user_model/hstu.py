"""HSTU: pointwise SiLU attention with a relative bias of position and time (arXiv 2402.17152).

[P] marks the paper's equations, [C] what the authors' code does where the paper is silent, [D] our
decision.
Shapes: T packed tokens, S padded rows of L slots, d model width, V heads, P width of a head,
M longest history, K buckets of time.
"""

from collections.abc import Sequence
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from user_model.attention import AttentionPlan, check_heads
from user_model.dropout import TokenDropout
from user_model.layers import Linear, RMSNorm
from user_model.sequence import check_packed

_NORM_EPS = 1e-6  # [C]
_BIAS_STD = 0.02  # [C]
_BUCKETS, _BUCKET_WIDTH = 128, 0.301  # [C]


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
        check_heads(self.heads, self.dim)
        return self


class HSTULayer(nn.Module):
    """One layer [P], with the layer's norms and residual as in the authors' code [C].

    U, V, Q, K = SiLU(W_1 LayerNorm(h)); A = SiLU(Q K^T + bias) / M over the items up to each one;
    h + W_2 Dropout(LayerNorm(A V) * U). The bias is a weight for the distance of two items and, if
    asked for, one for the bucket of the time between them; the heads share it [C].
    """

    def __init__(self, config: HSTUConfig, *, time_bias: bool) -> None:
        super().__init__()
        self.heads, self.longest = config.heads, config.max_positions
        self.norm = nn.LayerNorm(config.dim, eps=_NORM_EPS)
        self.input = Linear(config.dim, 4 * config.dim, bias=False)
        self.position_bias = nn.Parameter(torch.empty(config.max_positions).normal_(std=_BIAS_STD))
        self.time_bias = (
            nn.Parameter(torch.empty(_BUCKETS).normal_(std=_BIAS_STD)) if time_bias else None
        )
        self.mixed_norm = nn.LayerNorm(config.dim, eps=_NORM_EPS)
        self.dropout = TokenDropout(config.dropout)
        self.output = Linear(config.dim, config.dim)
        nn.init.normal_(self.input.weight, std=_BIAS_STD)
        nn.init.xavier_uniform_(self.output.weight)

    def forward(
        self, h_Td: Tensor, plan: AttentionPlan, buckets: Sequence[Tensor | None]
    ) -> Tensor:
        """Map h [T, d] to [T, d]; buckets are those of each group of the plan, [S, L, L]."""
        streams_T4d = functional.silu(self.input(self.norm(h_Td)))
        u_Td, vqk_T3d = streams_T4d.split([h_Td.shape[1], 3 * h_Td.shape[1]], -1)
        groups = zip(plan.padded(vqk_T3d), buckets, strict=True)
        mixed = [self._attend(part_SLX, buckets_SLL) for part_SLX, buckets_SLL in groups]
        mixed_Td = self.mixed_norm(plan.packed(mixed)) * u_Td
        return h_Td + self.output(self.dropout(mixed_Td))

    def _attend(self, vqk_SLX: Tensor, buckets_SLL: Tensor | None) -> Tensor:
        v, q, k = vqk_SLX.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores_SVLL = q @ k.mT + self._bias(vqk_SLX.shape[1], buckets_SLL)
        weights_SVLL = (functional.silu(scores_SVLL) / self.longest).tril()
        return (weights_SVLL @ v).transpose(1, 2).flatten(2)

    def _bias(self, length: int, buckets_SLL: Tensor | None) -> Tensor:
        """Bias of each pair of slots, [L, L] or [S, 1, L, L]; above the diagonal it is unused."""
        places_L = torch.arange(length, device=self.position_bias.device)
        distances_LL = (places_L[:, None] - places_L).clamp_min(0)
        bias_LL = self.position_bias[distances_LL]
        if self.time_bias is None:
            return bias_LL
        assert buckets_SLL is not None
        time_SLL = functional.embedding(buckets_SLL, self.time_bias[:, None]).squeeze(-1)
        return (bias_LL + time_SLL)[:, None]


class HSTU(nn.Module):
    """The HSTU user model, called as Hydra is: layers over Dropout(RMSNorm(item vectors)) [D].

    Order is told by the layers' relative bias alone; there are no absolute positions [D]. With
    time_bias it takes the times of the items too. The time of a pair runs between the two items
    [D]: the authors' code takes the time of the item after the later one, which is the one to be
    predicted.

    """

    def __init__(self, config: HSTUConfig, *, time_bias: bool = False) -> None:
        super().__init__()
        self.config, self.reads_times = config, time_bias
        self.input_norm = RMSNorm(config.dim, eps=_NORM_EPS)
        self.input_dropout = TokenDropout(config.dropout)
        self.layers = nn.ModuleList(
            HSTULayer(config, time_bias=time_bias) for _ in range(config.layers)
        )

    def forward(
        self, vectors_Td: Tensor, cu_seqlens: Tensor, times_T: Tensor | None = None
    ) -> Tensor:
        """Return user vectors [T, d], not normalised.

        Args:
            vectors_Td: packed item vectors.
            cu_seqlens: int64 [S + 1], their seams.
            times_T: int64 [T], unix seconds, never falling within a sequence; with time_bias alone.

        Raises:
            ValueError: where the width, the seams or the times do not fit, or a sequence is longer
                than max_positions.
        """
        check_packed(vectors_Td, cu_seqlens, self.config.dim)
        plan = AttentionPlan.build(cu_seqlens, self.config.max_positions)
        buckets = self._buckets(plan, times_T)
        h_Td = self.input_dropout(self.input_norm(vectors_Td))
        for layer in self.layers:
            h_Td = layer(h_Td, plan, buckets)
        return h_Td

    def _buckets(self, plan: AttentionPlan, times_T: Tensor | None) -> Sequence[Tensor | None]:
        """Bucket of the time between each two slots, int64 [S, L, L] for each group of the plan."""
        if not self.reads_times:
            return [None] * len(plan.groups)
        if times_T is None or times_T.shape != plan.scatter.shape:
            got = "none" if times_T is None else list(times_T.shape)
            raise ValueError(
                f"times: got {got}, expected [{len(plan.scatter)}], a time for each item, since "
                "the model has a time bias"
            )
        # float64 holds seconds exactly, and the plan moves rows of floats.
        return [time_buckets(times_SL1) for times_SL1 in plan.padded(times_T.double()[:, None])]


def time_buckets(times_SL1: Tensor) -> Tensor:
    """floor(ln(max(1, t_i - t_j)) / 0.301) of seconds, int64 [S, L, L], at most K - 1 [C].

    >>> time_buckets(torch.tensor([[[0.0], [86400.0]]])).tolist()
    [[[0, 0], [37, 0]]]
    """
    gaps_SLL = (times_SL1 - times_SL1.mT).clamp_min(1.0)
    return (gaps_SLL.log() / _BUCKET_WIDTH).long().clamp_max(_BUCKETS - 1)
