"""Mamba-1 heads for a Hydra block: the ablation that asks what Mamba-2's heads give up.

The scan is that of Mamba (Gu and Dao, arXiv 2312.00752, algorithm 2): a step and a decay rate for
each channel, where Mamba-2 has one of each a head. It is written in plain torch, an event of all
sequences at a time, and there is no fast path: it is there to be measured, not to be served fast.

Shapes: T packed tokens, S sequences, n users with one event each, V heads, P width of a head (d_c),
N state, Q rank of the step's projection, O outputs of a projection.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from user_model import ops
from user_model.heads import (
    CONV_WIDTH,
    CausalConv,
    GroupedLinear,
    Packed,
    fresh_dt_bias,
    interact,
)
from user_model.sequence import sequence_lengths
from user_model.streaming import LayerState, conv_step

_CHANNELS_A_RANK = 16


class Mamba1Heads(nn.Module):
    """v Mamba-1 layers of width P, each on its own stream; then the product with RoPE(Z) [D].

    In-projection to (gate, x), causal convolution and SiLU of x, then B, C and the step from x,
    scan, gate, out-projection.
    """

    def __init__(self, heads: int, width: int, state: int, *, rope: bool = True) -> None:
        super().__init__()
        self.rope = rope
        rank = math.ceil(width / _CHANNELS_A_RANK)
        self.split = [rank, state, state]
        self.in_projection = GroupedLinear(heads, width, 2 * width)
        self.conv = CausalConv(heads * width)
        self.selection = GroupedLinear(heads, width, sum(self.split))
        self.step_projection = GroupedLinear(heads, rank, width)
        self.dt_bias = fresh_dt_bias(heads, width)
        rates = torch.arange(1.0, state + 1.0).log()
        self.A_log = nn.Parameter(rates[:, None].repeat(heads, 1, width))
        self.D = nn.Parameter(torch.ones(heads, width))
        self.out_projection = GroupedLinear(heads, width, width)

    def forward(
        self, x_TVP: Tensor, z_TVP: Tensor | None, packed: Packed
    ) -> tuple[Tensor, LayerState | None]:
        """Return Mamba(X) * RoPE(Z), [T, V, P], and the state if asked; z is before SiLU."""
        V, before = x_TVP.shape[1], packed.state
        gate_TVP, x_TVP = self.in_projection(x_TVP, packed.backend).chunk(2, -1)
        x_TK, tails = ops.causal_conv(
            x_TVP.flatten(1), self.conv.weight, self.conv.bias, packed.cu_seqlens,
            initial_state=None if before is None else before.tails.flatten(2).mT,
            return_final_state=True, plan=packed.plan, backend=packed.backend,
        )  # fmt: skip
        x_TVP = x_TK.unflatten(1, (V, -1))
        y_TVP, scan = scan_channels(
            x_TVP, *self._selected(x_TVP), -self.A_log.float().exp(), packed.cu_seqlens,
            None if before is None else before.scan,
        )  # fmt: skip
        y_TVP = interact(self._finish(y_TVP, x_TVP, gate_TVP), z_TVP, packed, rope=self.rope)
        if not packed.keep_state:
            return y_TVP, None
        return y_TVP, LayerState(scan, tails.mT.unflatten(2, (V, -1)).contiguous())

    def step(
        self, x_nVP: Tensor, z_nVP: Tensor | None, state: LayerState, gaps_n: Tensor | None = None
    ) -> tuple[Tensor, LayerState]:
        """Do the same with one event of each user; z_nVP is after RoPE."""
        assert gaps_n is None
        V = x_nVP.shape[1]
        gate_nVP, x_nVP = self.in_projection(x_nVP).chunk(2, -1)
        weight, bias = self.conv.weight.view(V, -1, CONV_WIDTH), self.conv.bias.view(V, -1)
        x_nVP, tails = conv_step(x_nVP, state.tails, weight, bias)
        scan, y_nVP = _event(state.scan, x_nVP, *self._selected(x_nVP), -self.A_log.float().exp())
        y_nVP = self._finish(y_nVP, x_nVP, gate_nVP)
        return (y_nVP if z_nVP is None else y_nVP * z_nVP), LayerState(scan, tails)

    def _selected(self, x_TVP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the step [T, V, P], B and C [T, V, N] of each event."""
        low_TVQ, B_TVN, C_TVN = self.selection(x_TVP).split(self.split, -1)
        return functional.softplus(self.step_projection(low_TVQ) + self.dt_bias), B_TVN, C_TVN

    def _finish(self, y_TVP: Tensor, x_TVP: Tensor, gate_TVP: Tensor) -> Tensor:
        return self.out_projection((y_TVP + self.D * x_TVP) * functional.silu(gate_TVP))


def scan_channels(
    x_TVP: Tensor,
    dt_TVP: Tensor,
    B_TVN: Tensor,
    C_TVN: Tensor,
    A_VNP: Tensor,
    cu_seqlens: Tensor,
    initial: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run h = exp(dt A) h + dt B x, y = C h, with a dt and an A of each channel.

    Costs as many steps as the longest sequence has events, and memory for every state on the way.

    Args:
        x_TVP: packed inputs.
        dt_TVP: steps, positive.
        B_TVN: what each event writes.
        C_TVN: what each event reads.
        A_VNP: decay rates, negative.
        cu_seqlens: int64 [S + 1].
        initial: states before, [S, V, N, P]; None: zeros.

    Returns:
        y [T, V, P], and the states after the last events, [S, V, N, P].
    """
    lengths = sequence_lengths(cu_seqlens)
    order = torch.argsort(lengths, descending=True, stable=True)
    starts, sorted_lengths = cu_seqlens[:-1][order], lengths[order]
    if initial is None:
        initial = x_TVP.new_zeros(len(lengths), *A_VNP.shape)
    running, ended, y, places = initial[order], [], [], []
    for position in range(int(lengths.max()) if len(lengths) else 0):
        going = int((sorted_lengths > position).sum())
        ended.append(running[going:])
        rows = starts[:going] + position
        running, y_nVP = _event(
            running[:going], x_TVP[rows], dt_TVP[rows], B_TVN[rows], C_TVN[rows], A_VNP
        )
        y.append(y_nVP)
        places.append(rows)
    states = torch.cat([running, *reversed(ended)])[torch.argsort(order)]
    if not y:
        return x_TVP, states
    return torch.cat(y)[torch.argsort(torch.cat(places))], states


def _event(
    state_nVNP: Tensor,
    x_nVP: Tensor,
    dt_nVP: Tensor,
    B_nVN: Tensor,
    C_nVN: Tensor,
    A_VNP: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the states after one event of each user, and what they read, y [n, V, P]."""
    dtype = state_nVNP.dtype
    decay_nVNP = torch.exp(dt_nVP.to(dtype)[..., None, :] * A_VNP)
    written = B_nVN.to(dtype)[..., None] * (dt_nVP * x_nVP).to(dtype)[..., None, :]
    state_nVNP = torch.addcmul(written, state_nVNP, decay_nVNP)
    y_nVP = torch.matmul(C_nVN.to(dtype)[..., None, :], state_nVNP).squeeze(-2)
    return state_nVNP, y_nVP.to(x_nVP.dtype)
