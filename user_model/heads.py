"""The v Mamba-2 heads of a Hydra block, run as one grouped scan.

Shapes: T packed tokens, S sequences, n users with one event each, V heads, P width of a head (d_c),
N state, M = 2 N + 1 (B, C and dt), K = P + 2 N channels of the convolution, O outputs of a
projection.
The v heads are one selective scan with H = V heads and one B, C group a head: the same algebra as
v separate Mamba-2 layers, in one launch.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from user_model import ops
from user_model.streaming import LayerState, conv_step, scan_step

CONV_WIDTH = 4
NORM_EPS = 1e-6
DT_MIN, DT_MAX = 1e-3, 1e-1
A_MIN, A_MAX = 1.0, 16.0


class GroupedLinear(nn.Module):
    """A linear map of its own for each head: x [T, V, P] to [T, V, O]."""

    def __init__(self, heads: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(heads, inputs, outputs).uniform_(-bound, bound))

    def forward(self, x_TVP: Tensor, backend: str = "torch") -> Tensor:
        """Map x [T, V, P] to [T, V, O]; the result's memory order is [V, T, O]."""
        return ops.grouped_linear(x_TVP, self.weight, backend=backend)


@dataclass(frozen=True)
class Packed:
    """A packed batch, as the heads need it.

    Attributes:
        cu_seqlens: int64 [S + 1].
        plan: made from cu_seqlens.
        backend: of the ops.
        state: what the layer remembers of each sequence's user; None: nothing came before.
        position_offset: int64 [S], events that came before; None: none.
        keep_state: whether the state after the batch is asked for.
        gaps: [T], the time channel (`user_model.time_gaps`); None where the heads have none.
    """

    cu_seqlens: Tensor
    plan: ops.Plan
    backend: str
    state: LayerState | None = None
    position_offset: Tensor | None = None
    keep_state: bool = False
    gaps: Tensor | None = None


class CausalConv(nn.Module):
    """Parameters of a depthwise causal convolution of width 4, for [V, P + 2 N] channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(CONV_WIDTH)
        self.weight = nn.Parameter(torch.empty(channels, CONV_WIDTH).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels))


def fresh_dt_bias(*shape: int) -> nn.Parameter:
    """A bias by which softplus gives steps log-uniform from DT_MIN to DT_MAX, as in Mamba."""
    dt = torch.empty(shape).uniform_(math.log(DT_MIN), math.log(DT_MAX)).exp_()
    # The inverse of softplus: softplus(dt_bias) = dt.
    return nn.Parameter(dt + torch.log(-torch.expm1(-dt)))


class SelectiveScan(nn.Module):
    """The scan's own parameters, A, D and the bias of dt, initialised as in Mamba-2."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(A_MIN, A_MAX).log_())
        self.D = nn.Parameter(torch.ones(heads))
        self.dt_bias = fresh_dt_bias(heads)

    @property
    def decay_rates(self) -> Tensor:
        """A [V], negative, in float32."""
        return -torch.exp(self.A_log.float())


def interact(y_TVP: Tensor, z_TVP: Tensor | None, packed: Packed, *, rope: bool) -> Tensor:
    """Return Y * RoPE(SiLU(z)) [P], [T, V, P]: without RoPE, or Y alone, in ablations."""
    if z_TVP is None:
        return y_TVP
    if not rope:
        return y_TVP * functional.silu(z_TVP)
    return ops.rope_product(
        y_TVP, functional.silu(z_TVP), packed.cu_seqlens,
        position_offset=packed.position_offset, plan=packed.plan, backend=packed.backend,
    )  # fmt: skip


class Heads(nn.Module):
    """What both forms of a head share: the convolution of (x, B, C), SiLU and the scan.

    With time_gaps each head has a weight by which the gap before an event is added to dt, before
    softplus: 0 at first, so that the channel begins as no channel [D].
    """

    def __init__(
        self, heads: int, width: int, state: int, *, time_gaps: bool = False, rope: bool = True
    ) -> None:
        super().__init__()
        self.rope = rope
        self.split = [width, state, state]
        self.conv = CausalConv(heads * (width + 2 * state))
        self.scan = SelectiveScan(heads)
        self.gap_weight = nn.Parameter(torch.zeros(heads)) if time_gaps else None

    def _timed(self, projected_TVO: Tensor, gaps_T: Tensor | None) -> Tensor:
        """Add the gaps to dt, the last column of what the in-projection has given, in place."""
        if self.gap_weight is not None:
            assert gaps_T is not None
            projected_TVO[..., -1] += gaps_T[:, None].to(projected_TVO.dtype) * self.gap_weight
        return projected_TVO

    def _mix(
        self, x_TVP: Tensor, selected_TVM: Tensor, z_TVP: Tensor | None, packed: Packed
    ) -> tuple[Tensor, LayerState | None]:
        """Scan a packed batch. Return y, times RoPE(SiLU(z)) where there is a z, and the state.

        Where no state is asked for, None is returned.
        """
        V, before = x_TVP.shape[1], packed.state
        y_TVP, scan, tails = ops.conv_scan(
            x_TVP, selected_TVM, self.scan.decay_rates, self.scan.D, z_TVP,
            self.conv.weight.view(V, -1, CONV_WIDTH), self.conv.bias.view(V, -1),
            packed.cu_seqlens,
            dt_bias=self.scan.dt_bias,
            conv_state=None if before is None else before.tails.permute(0, 2, 3, 1),
            initial_state=None if before is None else before.scan,
            position_offset=packed.position_offset,
            return_final_state=packed.keep_state,
            activate_z=True,
            plan=packed.plan,
            backend=packed.backend,
        )  # fmt: skip
        if scan is None or tails is None:
            return y_TVP, None
        return y_TVP, LayerState(scan, tails.permute(0, 3, 1, 2).contiguous())

    def _mix_one(
        self, x_nVP: Tensor, selected_nVM: Tensor, state: LayerState
    ) -> tuple[Tensor, LayerState]:
        """Do the same with one event of each user, without z."""
        V, scan = x_nVP.shape[1], self.scan
        xbc_nVK, tails = conv_step(
            torch.cat((x_nVP, selected_nVM[..., :-1]), -1),
            state.tails,
            self.conv.weight.view(V, -1, CONV_WIDTH),
            self.conv.bias.view(V, -1),
        )
        x, B, C = xbc_nVK.split(self.split, -1)
        y_nVP, after = scan_step(
            x, selected_nVM[..., -1], scan.decay_rates, B, C, scan.D, scan.dt_bias, state.scan
        )
        return y_nVP, LayerState(after, tails)


class FullHeads(Heads):
    """Mamba-2 heads as published: the reading closest to Y_i = Mamba-2_i(X_i) [P].

    In-projection to (gate, x, B, C, dt), causal convolution and SiLU of (x, B, C), scan, gated
    RMSNorm, out-projection P x P; then the product with RoPE(Z).
    """

    def __init__(
        self, heads: int, width: int, state: int, *, time_gaps: bool = False, rope: bool = True
    ) -> None:
        super().__init__(heads, width, state, time_gaps=time_gaps, rope=rope)
        self.in_projection = GroupedLinear(heads, width, 2 * width + 2 * state + 1)
        self.norm_weight = nn.Parameter(torch.ones(heads * width))
        self.out_projection = GroupedLinear(heads, width, width)

    def forward(
        self, x_TVP: Tensor, z_TVP: Tensor | None, packed: Packed
    ) -> tuple[Tensor, LayerState | None]:
        """Return Mamba-2(X) * RoPE(Z), [T, V, P], and the state if asked; z is before SiLU."""
        gate_TVP, x_TVP, selected_TVM = self._project(x_TVP, packed.gaps, packed.backend)
        y_TVP, state = self._mix(x_TVP, selected_TVM, None, packed)
        y_TVP = self._gate(y_TVP, gate_TVP, packed.backend)
        return interact(y_TVP, z_TVP, packed, rope=self.rope), state

    def step(
        self, x_nVP: Tensor, z_nVP: Tensor | None, state: LayerState, gaps_n: Tensor | None = None
    ) -> tuple[Tensor, LayerState]:
        """Do the same with one event of each user; z_nVP is after RoPE."""
        gate_nVP, x_nVP, selected_nVM = self._project(x_nVP, gaps_n, "torch")
        y_nVP, state = self._mix_one(x_nVP, selected_nVM, state)
        y_nVP = self._gate(y_nVP, gate_nVP, "torch")
        return (y_nVP if z_nVP is None else y_nVP * z_nVP), state

    def _project(self, x_TVP: Tensor, gaps_T: Tensor | None, backend: str) -> tuple[Tensor, ...]:
        P, N, _ = self.split
        return self._timed(self.in_projection(x_TVP, backend), gaps_T).split([P, P, 2 * N + 1], -1)

    def _gate(self, y_TVP: Tensor, gate_TVP: Tensor, backend: str) -> Tensor:
        weight_VP = self.norm_weight.view(y_TVP.shape[1:])
        y_TVP = ops.gated_norm(y_TVP, gate_TVP, weight_VP, NORM_EPS, backend=backend)
        return self.out_projection(y_TVP, backend)


class LeanHeads(Heads):
    """Heads without gate, norm and out-projection of their own [D].

    Z gates and the block's output projects already, so scan, RoPE and product are one op.
    """

    def __init__(
        self, heads: int, width: int, state: int, *, time_gaps: bool = False, rope: bool = True
    ) -> None:
        super().__init__(heads, width, state, time_gaps=time_gaps, rope=rope)
        self.in_projection = GroupedLinear(heads, width, 2 * state + 1)

    def forward(
        self, x_TVP: Tensor, z_TVP: Tensor | None, packed: Packed
    ) -> tuple[Tensor, LayerState | None]:
        """Return scan(X) * RoPE(Z), [T, V, P], and the state if asked; z is before SiLU."""
        selected_TVM = self._timed(self.in_projection(x_TVP, packed.backend), packed.gaps)
        if self.rope:
            return self._mix(x_TVP, selected_TVM, z_TVP, packed)
        y_TVP, state = self._mix(x_TVP, selected_TVM, None, packed)
        return interact(y_TVP, z_TVP, packed, rope=False), state

    def step(
        self, x_nVP: Tensor, z_nVP: Tensor | None, state: LayerState, gaps_n: Tensor | None = None
    ) -> tuple[Tensor, LayerState]:
        """Do the same with one event of each user; z_nVP is after RoPE."""
        selected_nVM = self._timed(self.in_projection(x_nVP), gaps_n)
        y_nVP, state = self._mix_one(x_nVP, selected_nVM, state)
        return (y_nVP if z_nVP is None else y_nVP * z_nVP), state
