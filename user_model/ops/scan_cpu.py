"""The scan on a CPU, as custom ops: what stands between torch and the compiled kernels.

One pair of ops serves `hydra_scan` and `conv_scan`: with taps, x, B and C are convolved first.

Shapes: T tokens, S sequences, H heads, P head width, N state, U units, I work items (unit, head),
W padded columns of a row (x, B, C), K = P + 2N channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from user_model.ops.cpu_memory import (
    ZERO,
    address,
    allocate,
    padded,
    rows,
    turn_rows,
    turns_table,
    unit_stride,
    units_of,
)  # fmt: skip
from user_model.ops.scan_cpu_backward import Gradients, Sweep, backward, sweep_sizes
from user_model.ops.scan_cpu_block import Block, Problem, block_sizes
from user_model.ops.scan_cpu_forward import forward
from user_model.ops.threads import spread


def scan_cpu(
    x_THP: Tensor,
    dt_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    z_THP: Tensor | None,
    cu_seqlens: Tensor,
    *,
    dt_bias_H: Tensor | None,
    initial_SHNP: Tensor | None,
    position_offset_S: Tensor | None,
    return_final_state: bool,
    taps_HK4: Tensor | None = None,
    bias_HK: Tensor | None = None,
    tails_SHK3: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Do what `hydra_scan` does, in float32 or float64; with taps, convolve and SiLU first.

    Returns:
        y * RoPE(z), or y without z, and the final states if asked for.
    """
    dtype = x_THP.dtype
    taps_H4W = bias_HW = tails_SH3W = None
    if taps_HK4 is not None:
        P, N = x_THP.shape[2], B_THN.shape[2]
        taps_H4W = _pad_channels(taps_HK4.mT, P, N)
        bias_HW = _pad_channels(taps_HK4.new_zeros(()) if bias_HK is None else bias_HK, P, N)
        tails_SH3W = None if tails_SHK3 is None else _pad_channels(tails_SHK3.mT, P, N)
    keep = torch.is_grad_enabled() and z_THP is not None
    y_THP, final_SHNP, _ = _scan(
        unit_stride(x_THP), dt_TH.to(dtype), A_H.double(), unit_stride(B_THN),
        unit_stride(C_THN), D_H.double(), None if z_THP is None else unit_stride(z_THP),
        cu_seqlens, None if dt_bias_H is None else dt_bias_H.double(),
        None if initial_SHNP is None else initial_SHNP.to(dtype).contiguous(), position_offset_S,
        taps_H4W, bias_HW, tails_SH3W, return_final_state, keep,
    )  # fmt: skip
    return y_THP, final_SHNP if return_final_state else None


def _pad_channels(values: Tensor, P: int, N: int) -> Tensor:
    """Pad the x, B and C channels of [..., K] each to whole vectors: [..., W], contiguous."""
    parts = zip(values.split([P, N, N], -1), (P, N, N), strict=True)
    return torch.cat([F.pad(part, (0, padded(width) - width)) for part, width in parts], -1)


@torch.library.custom_op("hydrarec::scan_cpu", mutates_args=())
def _scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    cu_seqlens: Tensor,
    dt_bias: Tensor | None,
    initial: Tensor | None,
    offset: Tensor | None,
    taps: Tensor | None,
    bias: Tensor | None,
    tails: Tensor | None,
    want_final: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    call = _Call.of(x, dt, A, B, C, D, z, cu_seqlens, dt_bias, initial, offset, taps, bias, tails)
    y, final, kept = _outputs(x, B, cu_seqlens, want_final, keep)
    ends = (rows(y), rows(kept if keep else None), address(final if want_final else None))

    def run(first: int, last: int) -> None:
        block, _memory = allocate(Block, call.block_sizes(), x.dtype)
        forward(call.problem, block, *ends, first, last)

    spread(run, call.weights, n_tokens=x.shape[0])
    return y, final, kept


def _outputs(
    x: Tensor, B: Tensor, cu_seqlens: Tensor, want_final: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    _, H, P = x.shape
    final = (cu_seqlens.shape[0] - 1, H, B.shape[2], P) if want_final else (0,)
    shape = tuple(x.shape)
    return x.new_empty(shape), x.new_empty(final), x.new_empty(shape if keep else (0,))


@_scan.register_fake
def _(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None,
    cu_seqlens: Tensor, dt_bias: Tensor | None, initial: Tensor | None, offset: Tensor | None,
    taps: Tensor | None, bias: Tensor | None, tails: Tensor | None, want_final: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _outputs(x, B, cu_seqlens, want_final, keep)


@torch.library.custom_op("hydrarec::scan_cpu_backward", mutates_args=())
def _scan_backward(
    dy: Tensor,
    dfinal: Tensor | None,
    kept: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    cu_seqlens: Tensor,
    dt_bias: Tensor | None,
    initial: Tensor | None,
    offset: Tensor | None,
    taps: Tensor | None,
    bias: Tensor | None,
    tails: Tensor | None,
) -> list[Tensor]:
    """Return the gradients of x, dt, A, B, C, D, z, dt_bias, initial, taps, bias and tails."""
    call = _Call.of(x, dt, A, B, C, D, z, cu_seqlens, dt_bias, initial, offset, taps, bias, tails)
    out = _gradient_outputs(x, dt, A, B, C, D, z, dt_bias, initial, taps, bias, tails)
    dx, ddt, dA, dB, dC, dD, dz, ddt_bias, dinitial, dtaps, dbias, dtails = out
    items, groups = len(call.weights), len(call.weights) // max(x.shape[1], 1)
    partial = torch.zeros(3, items, dtype=torch.float64)
    tap_sums = x.new_zeros((items, *dtaps.shape[1:]))
    bias_sums = x.new_zeros((items, *dbias.shape[1:]))
    dfinal = None if dfinal is None else dfinal.contiguous()
    gradients = Gradients(
        rows(kept if z is not None else None), rows(dy), address(dfinal), rows(dx), rows(dB),
        rows(dC), rows(dz if z is not None else None), ddt.data_ptr(),
        address(None if initial is None else dinitial), address(None if tails is None else dtails),
        address(partial[0]), address(partial[1]), address(partial[2]),
        tap_sums.data_ptr(), bias_sums.data_ptr(),
    )  # fmt: skip
    longest = int(cu_seqlens.diff().max()) if len(cu_seqlens) > 1 else 0

    def run(first: int, last: int) -> None:
        block, _block_memory = allocate(Block, call.block_sizes(), x.dtype)
        sweep, _sweep_memory = allocate(Sweep, call.sweep_sizes(longest), x.dtype)
        backward(call.problem, gradients, block, sweep, first, last)

    spread(run, call.weights, n_tokens=x.shape[0])
    for total, part in ((dA, partial[0]), (dD, partial[1]), (ddt_bias, partial[2])):
        if total.numel():
            total.copy_(part.view(groups, *total.shape).sum(0))
    for total, part in ((dtaps, tap_sums), (dbias, bias_sums)):
        if total.numel():
            total.copy_(part.view(groups, *total.shape).sum(0))
    return out


def _gradient_outputs(x: Tensor, dt: Tensor, *others: Tensor | None) -> list[Tensor]:
    """Return memory for the gradients of all inputs; one of no elements for an absent input."""
    return [
        x.new_empty((0,)) if value is None else value.new_empty(tuple(value.shape))
        for value in (x, dt, *others)
    ]


@_scan_backward.register_fake
def _(
    dy: Tensor, dfinal: Tensor | None, kept: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor,
    C: Tensor, D: Tensor, z: Tensor | None, cu_seqlens: Tensor, dt_bias: Tensor | None,
    initial: Tensor | None, offset: Tensor | None, taps: Tensor | None, bias: Tensor | None,
    tails: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    return _gradient_outputs(x, dt, A, B, C, D, z, dt_bias, initial, taps, bias, tails)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.want_final = inputs[14]
    ctx.save_for_backward(output[2], *inputs[:14])


def _differentiate(
    ctx: Any, dy: Tensor, dfinal: Tensor, dkept: Tensor
) -> tuple[Tensor | None, ...]:
    kept, *inputs = ctx.saved_tensors
    dy = dy if dy.stride(-1) == 1 else dy.contiguous()
    found = _scan_backward(dy, dfinal if ctx.want_final else None, kept, *inputs)
    names = (0, 1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13)
    gradients: list[Tensor | None] = [None] * 16
    for place, gradient in zip(names, found, strict=True):
        if inputs[place] is not None and ctx.needs_input_grad[place]:
            gradients[place] = gradient
    return tuple(gradients)


_scan.register_autograd(_differentiate, setup_context=_setup)


@dataclass(frozen=True)
class _Call:
    """A problem in the kernels' terms, and the tensors that its addresses point into."""

    problem: Problem
    weights: NDArray[np.int64]
    memory: tuple[Tensor, ...]

    @classmethod
    def of(
        cls, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None,
        cu_seqlens: Tensor, dt_bias: Tensor | None, initial: Tensor | None, offset: Tensor | None,
        taps: Tensor | None, bias: Tensor | None, tails: Tensor | None,
    ) -> _Call:  # fmt: skip
        _, H, P = x.shape
        units = units_of(cu_seqlens)
        turns, first_turn = _turns(cu_seqlens, offset, P, x.dtype)
        no_bias = A.new_zeros(H) if dt_bias is None else dt_bias
        problem = Problem(
            ZERO[x.dtype], H, P, B.shape[2], rows(x), rows(B), rows(C), rows(z), rows(dt),
            address(A), address(D), address(no_bias), address(cu_seqlens), address(units),
            address(turns), address(first_turn), address(taps), address(bias),
            address(tails), address(initial),
        )  # fmt: skip
        tokens = cu_seqlens.index_select(0, units).diff()
        weights = torch.repeat_interleave(tokens, H).numpy()
        return cls(problem, weights, (units, turns, first_turn, no_bias))

    def block_sizes(self) -> dict[str, int]:
        return block_sizes(padded(self.problem.width), padded(self.problem.state))

    def sweep_sizes(self, longest: int) -> dict[str, int]:
        return sweep_sizes(padded(self.problem.width), padded(self.problem.state), longest)


def _turns(
    cu_seqlens: Tensor, offset: Tensor | None, width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return (cosine, sine) of each pair [rows, padded P], and each sequence's first row [S]."""
    lengths = cu_seqlens.diff()
    if offset is None:
        longest = int(lengths.max()) if len(lengths) else 0
        return turns_table(longest, width, dtype), torch.zeros_like(lengths)
    first = torch.repeat_interleave(offset - cu_seqlens[:-1], lengths)
    return turn_rows(torch.arange(len(first)) + first, width, dtype), cu_seqlens[:-1]
