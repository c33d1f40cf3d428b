"""The v Mamba-2 heads of a Hydra block, run as one grouped scan.

Shapes: T packed tokens, V heads, P width of a head (d_c), N state, O outputs of a projection.
The v heads are one selective scan with H = V heads and one B, C group a head: the same algebra as
v separate Mamba-2 layers, in one launch.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from user_model import ops

CONV_WIDTH = 4
DT_MIN, DT_MAX = 1e-3, 1e-1
A_MIN, A_MAX = 1.0, 16.0


class GroupedLinear(nn.Module):
    """A linear map of its own for each head: x [T, V, P] to [T, V, O], as one batched GEMM."""

    def __init__(self, heads: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs).uniform_(-bound, bound))

    def forward(self, x_TVP: Tensor) -> Tensor:
        """Map x [T, V, P] to [T, V, O]; the result's memory order is [V, T, O]."""
        return torch.bmm(x_TVP.transpose(0, 1), self.weight).transpose(0, 1)


class CausalConv(nn.Module):
    """Depthwise causal convolution of width 4 with SiLU; it sees nothing before a seam."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(CONV_WIDTH)
        self.weight = nn.Parameter(torch.empty(channels, CONV_WIDTH).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_TK: Tensor, cu_seqlens: Tensor, plan: ops.Plan, backend: str) -> Tensor:
        """Map x [T, K] to [T, K]."""
        return ops.causal_conv(x_TK, self.weight, self.bias, cu_seqlens, plan=plan, backend=backend)


class SelectiveScan(nn.Module):
    """The scan's own parameters, A, D and the bias of dt, initialised as in Mamba-2."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(A_MIN, A_MAX).log_())
        self.D = nn.Parameter(torch.ones(heads))
        dt = torch.empty(heads).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp_()
        # The inverse of softplus: softplus(dt_bias) = dt.
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))

    def forward(
        self,
        x_TVP: Tensor,
        B_TVN: Tensor,
        C_TVN: Tensor,
        dt_TV: Tensor,
        z_TVP: Tensor | None,
        cu_seqlens: Tensor,
        plan: ops.Plan,
        backend: str,
    ) -> Tensor:
        """Return y * RoPE(z), or y where z is None, [T, V, P]."""
        A = -torch.exp(self.A_log.float())
        return ops.hydra_scan(
            x_TVP, dt_TV, A, B_TVN, C_TVN, self.D, z_TVP, cu_seqlens,
            dt_bias=self.dt_bias, plan=plan, backend=backend,
        )  # fmt: skip


class FullHeads(nn.Module):
    """Mamba-2 heads as published: the reading closest to Y_i = Mamba-2_i(X_i) [P].

    In-projection to (gate, x, B, C, dt), causal convolution and SiLU of (x, B, C), scan, gated
    RMSNorm, out-projection P x P; then the product with RoPE(Z).
    """

    def __init__(self, heads: int, width: int, state: int) -> None:
        super().__init__()
        self.split = [width, state, state]
        self.in_projection = GroupedLinear(heads, width, 2 * width + 2 * state + 1)
        self.conv = CausalConv(heads * (width + 2 * state))
        self.scan = SelectiveScan(heads)
        self.norm_weight = nn.Parameter(torch.ones(heads * width))
        self.out_projection = GroupedLinear(heads, width, width)

    def forward(
        self, x_TVP: Tensor, z_TVP: Tensor, cu_seqlens: Tensor, plan: ops.Plan, backend: str
    ) -> Tensor:
        """Return Mamba-2(X) * RoPE(Z), [T, V, P]; z comes after SiLU, before RoPE."""
        T, V, P = x_TVP.shape
        gate_TVP, scanned_TVK, dt_TV1 = self.in_projection(x_TVP).split([P, sum(self.split), 1], -1)
        scanned_TK = self.conv(scanned_TVK.reshape(T, -1), cu_seqlens, plan, backend)
        x_TVP, B_TVN, C_TVN = scanned_TK.view(T, V, -1).split(self.split, -1)
        y_TVP = self.scan(x_TVP, B_TVN, C_TVN, dt_TV1.squeeze(-1), None, cu_seqlens, plan, backend)
        y_TVP = functional.rms_norm(y_TVP * functional.silu(gate_TVP), (P,), eps=1e-6)
        y_TVP = self.out_projection(y_TVP * self.norm_weight.view(V, P))
        return y_TVP * ops.rope(z_TVP, cu_seqlens, plan=plan)


class LeanHeads(nn.Module):
    """Heads without gate, norm and out-projection of their own [D].

    Z gates and the block's output projects already, so scan, RoPE and product are one op.
    """

    def __init__(self, heads: int, width: int, state: int) -> None:
        super().__init__()
        self.split = [width, state, state]
        self.in_projection = GroupedLinear(heads, width, 2 * state + 1)
        self.conv = CausalConv(heads * (width + 2 * state))
        self.scan = SelectiveScan(heads)

    def forward(
        self, x_TVP: Tensor, z_TVP: Tensor, cu_seqlens: Tensor, plan: ops.Plan, backend: str
    ) -> Tensor:
        """Return scan(X) * RoPE(Z), [T, V, P]; z comes after SiLU, before RoPE."""
        T, V, _ = x_TVP.shape
        selected_TVK, dt_TV1 = self.in_projection(x_TVP).split([2 * self.split[1], 1], -1)
        scanned_TK = torch.cat([x_TVP, selected_TVK], -1).view(T, -1)
        scanned_TK = self.conv(scanned_TK, cu_seqlens, plan, backend)
        x_TVP, B_TVN, C_TVN = scanned_TK.view(T, V, -1).split(self.split, -1)
        return self.scan(x_TVP, B_TVN, C_TVN, dt_TV1.squeeze(-1), z_TVP, cu_seqlens, plan, backend)
