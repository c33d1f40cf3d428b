"""The scan on a CPU, as custom ops: what stands between torch and the compiled kernels.

One pair of ops serves `hydra_scan` and `conv_scan`. With taps, x, B and C are convolved first; B, C
and dt then come as one tensor, `selected`, as the projection makes them, and so does its gradient.

Shapes: T tokens, S sequences, H heads, P head width, N state, U units, I work items (unit, head),
W padded columns of a row (x, B, C), K = P + 2N channels of a head.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from user_model.ops.cpu_memory import (
    ZERO,
    address,
    allocate,
    pad_columns,
    padded,
    rows,
    turn_rows,
    turns_table,
    unit_stride,
    units_of,
)  # fmt: skip
from user_model.ops.cpu_rows import BLOCK
from user_model.ops.result_memory import results
from user_model.ops.scan_cpu_backward import backward
from user_model.ops.scan_cpu_block import (
    Block,
    Problem,
    Stretches,
    Work,
    block_sizes,
    work_sizes,
)
from user_model.ops.scan_cpu_forward import forward
from user_model.ops.scan_cpu_sweep import Gradients, Sweep, sweep_sizes
from user_model.ops.threads import spread

logger = logging.getLogger(__name__)

# Tokens of a sequence that the backward takes at a time: what its first sweep leaves to its second
# is some 820 KB at P = N = 32 and float32, about a core's second cache.
STRETCH_TOKENS = 512


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
) -> tuple[Tensor, Tensor | None]:
    """Do what `hydra_scan` does, in float32 or float64.

    Returns:
        y * RoPE(z), or y without z, and the final states if asked for.
    """
    y_THP, final_SHNP, _, _ = _scan(
        unit_stride(x_THP), None, dt_TH.to(x_THP.dtype), A_H.double(), unit_stride(B_THN),
        unit_stride(C_THN), D_H.double(), None if z_THP is None else unit_stride(z_THP), cu_seqlens,
        None if dt_bias_H is None else dt_bias_H.double(), _state(initial_SHNP, x_THP.dtype),
        position_offset_S, None, None, None, return_final_state, torch.is_grad_enabled(), False,
    )  # fmt: skip
    return y_THP, final_SHNP if return_final_state else None


def conv_scan_cpu(
    x_THP: Tensor,
    selected_THM: Tensor,
    A_H: Tensor,
    D_H: Tensor,
    z_THP: Tensor | None,
    taps_HK4: Tensor,
    bias_HK: Tensor,
    cu_seqlens: Tensor,
    *,
    dt_bias_H: Tensor | None,
    tails_SHK3: Tensor | None,
    initial_SHNP: Tensor | None,
    position_offset_S: Tensor | None,
    return_final_state: bool,
    activate_z: bool,
) -> tuple[Tensor, Tensor | None]:
    """Do what `conv_scan` does, in float32 or float64; M = 2N + 1: B, C and dt."""
    P, N = x_THP.shape[2], selected_THM.shape[2] // 2
    y_THP, final_SHNP, _, _ = _scan(
        unit_stride(x_THP), unit_stride(selected_THM), None, A_H.double(), None, None, D_H.double(),
        None if z_THP is None else unit_stride(z_THP), cu_seqlens,
        None if dt_bias_H is None else dt_bias_H.double(), _state(initial_SHNP, x_THP.dtype),
        position_offset_S, _pad_channels(taps_HK4.mT, P, N), _pad_channels(bias_HK, P, N),
        None if tails_SHK3 is None else _pad_channels(tails_SHK3.mT, P, N),
        return_final_state, torch.is_grad_enabled(), activate_z,
    )  # fmt: skip
    return y_THP, final_SHNP if return_final_state else None


def _state(state: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if state is None else state.to(dtype).contiguous()


def _pad_channels(values: Tensor, P: int, N: int) -> Tensor:
    """Pad the x, B and C channels of [..., K] each to whole vectors: [..., W], contiguous."""
    return torch.cat([pad_columns(part) for part in values.split([P, N, N], -1)], -1)


@torch.library.custom_op("hydrarec::scan_cpu", mutates_args=())
def _scan(
    x: Tensor,
    selected: Tensor | None,
    dt: Tensor | None,
    A: Tensor,
    B: Tensor | None,
    C: Tensor | None,
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
    activate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the result, the final states, and what the backward wants of it, if one follows.

    With `keep`: y before the product, if there is one, and the states before the stretches.
    """
    call = _Call.of(
        x, selected, dt, A, B, C, D, z, cu_seqlens, dt_bias, initial, offset, taps, bias, tails,
        activate,
    )  # fmt: skip
    N = call.problem.state
    y, kept = results.empty(x.shape, x), results.empty(_kept_shape(x, z, keep), x)
    final = x.new_empty(_final_shape(x, N, cu_seqlens, want_final))
    states = x.new_empty(_states_shape(x, N, keep))
    ends = (
        rows(y), rows(kept if kept.numel() else None),
        Stretches(STRETCH_TOKENS, address(states if states.numel() else None)),
        address(final if want_final else None),
    )  # fmt: skip

    _say_once(str(x.dtype))

    def run(first: int, last: int) -> None:
        block, _block = allocate(Block, call.block_sizes(backward=False), x.dtype)
        work, _work = allocate(Work, work_sizes(*call.widths), x.dtype)
        forward(call.problem, block, work, *ends, first, last)

    spread(run, call.weights, n_tokens=x.shape[0])
    return y, final, kept, states


@functools.cache
def _say_once(dtype: str) -> None:
    logger.info(
        "loading the CPU scan for %s; where it is not cached yet, compiling takes half a minute",
        dtype,
    )


def _final_shape(x: Tensor, N: int, cu_seqlens: Tensor, want_final: bool) -> tuple[int, ...]:
    return (cu_seqlens.shape[0] - 1, x.shape[1], N, x.shape[2]) if want_final else (0,)


def _kept_shape(x: Tensor, z: Tensor | None, keep: bool) -> tuple[int, ...]:
    return tuple(x.shape) if keep and z is not None else (0,)


def _states_shape(x: Tensor, N: int, keep: bool) -> tuple[int, ...]:
    T, H, P = x.shape
    return (T // STRETCH_TOKENS, H, N, P) if keep else (0,)


@_scan.register_fake
def _(
    x: Tensor, selected: Tensor | None, dt: Tensor | None, A: Tensor, B: Tensor | None,
    C: Tensor | None, D: Tensor, z: Tensor | None, cu_seqlens: Tensor, dt_bias: Tensor | None,
    initial: Tensor | None, offset: Tensor | None, taps: Tensor | None, bias: Tensor | None,
    tails: Tensor | None, want_final: bool, keep: bool, activate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    N = _state_width(selected, B)
    return (
        x.new_empty(x.shape),
        x.new_empty(_final_shape(x, N, cu_seqlens, want_final)),
        x.new_empty(_kept_shape(x, z, keep)),
        x.new_empty(_states_shape(x, N, keep)),
    )


def _state_width(selected: Tensor | None, B: Tensor | None) -> int:
    if selected is not None:
        return selected.shape[2] // 2
    assert B is not None
    return B.shape[2]


@torch.library.custom_op("hydrarec::scan_cpu_backward", mutates_args=())
def _scan_backward(
    dy: Tensor,
    dfinal: Tensor | None,
    kept: Tensor,
    states: Tensor,
    x: Tensor,
    selected: Tensor | None,
    dt: Tensor | None,
    A: Tensor,
    B: Tensor | None,
    C: Tensor | None,
    D: Tensor,
    z: Tensor | None,
    cu_seqlens: Tensor,
    dt_bias: Tensor | None,
    initial: Tensor | None,
    offset: Tensor | None,
    taps: Tensor | None,
    bias: Tensor | None,
    tails: Tensor | None,
    activate: bool,
) -> list[Tensor]:
    """Return the gradients of the inputs from x to tails, but for cu_seqlens and offset."""
    call = _Call.of(
        x, selected, dt, A, B, C, D, z, cu_seqlens, dt_bias, initial, offset, taps, bias, tails,
        activate,
    )  # fmt: skip
    out = _gradients(
        results.empty_like, x, selected, dt, A, B, C, D, z, dt_bias, initial, taps, bias, tails
    )
    dx, dselected, ddt, dA, dB, dC, dD, dz, ddt_bias, dinitial, dtaps, dbias, dtails = out
    if selected is not None:
        dB, dC, ddt = _parts(dselected)
    items, groups = len(call.weights), len(call.weights) // max(x.shape[1], 1)
    partial = torch.zeros(3, items, dtype=torch.float64)
    tap_sums = x.new_zeros((items, *dtaps.shape[1:]))
    bias_sums = x.new_zeros((items, *dbias.shape[1:]))
    dfinal = None if dfinal is None else dfinal.contiguous()
    gradients = Gradients(
        rows(kept if z is not None else None), rows(dy), address(dfinal), rows(dx), rows(dB),
        rows(dC), rows(dz if z is not None else None), rows(ddt),
        address(None if initial is None else dinitial), address(None if tails is None else dtails),
        address(partial[0]), address(partial[1]), address(partial[2]), address(tap_sums),
        address(bias_sums),
    )  # fmt: skip
    stretches = Stretches(STRETCH_TOKENS, address(states if states.numel() else None))
    longest = int(cu_seqlens.diff().max()) if len(cu_seqlens) > 1 else 0
    longest = min(longest, STRETCH_TOKENS)
    blocks = max(1, -(-longest // BLOCK))

    def run(first: int, last: int) -> None:
        block, _block = allocate(Block, call.block_sizes(backward=True), x.dtype, blocks)
        work, _work = allocate(Work, work_sizes(*call.widths), x.dtype)
        sweep, _sweep = allocate(Sweep, sweep_sizes(*call.widths, longest), x.dtype)
        backward(call.problem, gradients, stretches, block, work, sweep, first, last)

    spread(run, call.weights, n_tokens=x.shape[0])
    for total, part in ((dA, partial[0]), (dD, partial[1]), (ddt_bias, partial[2])):
        if total.numel():
            total.copy_(part.view(groups, *total.shape).sum(0))
    for total, part in ((dtaps, tap_sums), (dbias, bias_sums)):
        if total.numel():
            total.copy_(part.view(groups, *total.shape).sum(0))
    return out


def _gradients(
    empty_like: Callable[[Tensor], Tensor], x: Tensor, *others: Tensor | None
) -> list[Tensor]:
    """Return memory for the gradients of all inputs; one of no elements for an absent input.

    Dense inputs keep their strides: the projection that made `selected` wants them back so.
    """
    return [x.new_empty((0,)) if value is None else empty_like(value) for value in (x, *others)]


def _parts(selected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the views B, C [T, H, N] and dt [T, H] of [T, H, 2N + 1]."""
    N = selected.shape[2] // 2
    B, C, dt = selected.split([N, N, 1], -1)
    return B, C, dt.squeeze(-1)


@_scan_backward.register_fake
def _(
    dy: Tensor, dfinal: Tensor | None, kept: Tensor, states: Tensor, x: Tensor,
    selected: Tensor | None, dt: Tensor | None, A: Tensor, B: Tensor | None, C: Tensor | None,
    D: Tensor, z: Tensor | None, cu_seqlens: Tensor, dt_bias: Tensor | None,
    initial: Tensor | None, offset: Tensor | None, taps: Tensor | None, bias: Tensor | None,
    tails: Tensor | None, activate: bool,
) -> list[Tensor]:  # fmt: skip
    return _gradients(
        torch.empty_like, x, selected, dt, A, B, C, D, z, dt_bias, initial, taps, bias, tails
    )


_CU_SEQLENS, _OFFSET, _TENSORS = 8, 11, 15


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.want_final, _, ctx.activate = inputs[_TENSORS:]
    # Zeros for what is kept, which no one differentiates, would be another pass over memory.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[2:], *inputs[:_TENSORS])


def _differentiate(
    ctx: Any, dy: Tensor | None, dfinal: Tensor | None, dkept: None, dstates: None
) -> tuple[Tensor | None, ...]:
    kept, states, *inputs = ctx.saved_tensors
    final = dfinal if ctx.want_final else None
    dy = torch.zeros_like(inputs[0]) if dy is None else dy
    found = iter(_scan_backward(unit_stride(dy), final, kept, states, *inputs, ctx.activate))
    gradients: list[Tensor | None] = []
    for place, value in enumerate(inputs):
        gradient = None if place in (_CU_SEQLENS, _OFFSET) else next(found)
        gradients.append(None if value is None else gradient)
    return (*gradients, None, None, None)


_scan.register_autograd(_differentiate, setup_context=_setup)


@dataclass(frozen=True)
class _Call:
    """A problem in the kernels' terms, and the tensors that its addresses point into."""

    problem: Problem
    weights: NDArray[np.int64]
    memory: tuple[Tensor, ...]

    @classmethod
    def of(
        cls, x: Tensor, selected: Tensor | None, dt: Tensor | None, A: Tensor, B: Tensor | None,
        C: Tensor | None, D: Tensor, z: Tensor | None, cu_seqlens: Tensor, dt_bias: Tensor | None,
        initial: Tensor | None, offset: Tensor | None, taps: Tensor | None, bias: Tensor | None,
        tails: Tensor | None, activate: bool,
    ) -> _Call:  # fmt: skip
        _, H, P = x.shape
        if selected is not None:
            B, C, dt = _parts(selected)
        units = units_of(cu_seqlens)
        turns, first_turn = _turns(cu_seqlens, offset, P, x.dtype)
        no_bias = A.new_zeros(H) if dt_bias is None else dt_bias
        problem = Problem(
            ZERO[x.dtype], H, P, _state_width(selected, B), rows(x), rows(B), rows(C), rows(z),
            rows(dt), address(A), address(D), address(no_bias), address(cu_seqlens),
            address(units), address(turns), address(first_turn), address(taps), address(bias),
            address(tails), address(initial), activate,
        )  # fmt: skip
        tokens = cu_seqlens.index_select(0, units).diff()
        weights = torch.repeat_interleave(tokens, H).numpy()
        return cls(problem, weights, (units, turns, first_turn, no_bias))

    @property
    def widths(self) -> tuple[int, int]:
        """Padded P and N."""
        return padded(self.problem.width), padded(self.problem.state)

    def block_sizes(self, *, backward: bool) -> dict[str, int]:
        convolves = self.problem.taps != 0
        return block_sizes(*self.widths, convolves=convolves, backward=backward)


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
