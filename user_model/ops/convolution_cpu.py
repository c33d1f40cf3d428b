"""The causal convolution on a CPU, as custom ops.

Shapes: T tokens, S sequences, U units, K channels, W = K padded, V = taps - 1.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from user_model.ops.convolution_cpu_kernels import (
    TAPS,
    Convolution,
    convolve_backward,
    convolve_forward,
)
from user_model.ops.cpu_memory import (
    ZERO,
    address,
    allocate,
    pad_columns,
    rows,
    unit_stride,
    units_of,
)  # fmt: skip
from user_model.ops.cpu_rows import BLOCK
from user_model.ops.result_memory import results
from user_model.ops.threads import spread


def conv_cpu(
    x_TK: Tensor,
    weight_K4: Tensor,
    bias_K: Tensor | None,
    cu_seqlens: Tensor,
    tails_SKV: Tensor | None,
    *,
    silu: bool,
) -> Tensor:
    """Do what `conv_reference` does for the outputs, with at most TAPS taps."""
    K, taps = weight_K4.shape
    bias = x_TK.new_zeros(K) if bias_K is None else bias_K
    tails = None
    if tails_SKV is not None:  # fewer taps are the last of TAPS
        tails = pad_columns(F.pad(tails_SKV, (TAPS - taps, 0)).mT)
    y_TK: Tensor = _conv(
        unit_stride(x_TK), pad_columns(F.pad(weight_K4, (TAPS - taps, 0)).mT), pad_columns(bias),
        cu_seqlens, tails, silu,
    )  # fmt: skip
    return y_TK


@torch.library.custom_op("hydrarec::conv_cpu", mutates_args=())
def _conv(
    x: Tensor, taps: Tensor, bias: Tensor, cu_seqlens: Tensor, tails: Tensor | None, silu: bool
) -> Tensor:
    y, units = results.empty(x.shape, x), units_of(cu_seqlens)

    def run(first: int, last: int) -> None:
        conv, _memory = _describe(x, taps, bias, cu_seqlens, units, tails, silu)
        convolve_forward(conv, rows(y[:, None]), first, last)

    spread(run, cu_seqlens.index_select(0, units).diff().numpy(), n_tokens=x.shape[0])
    return y


@_conv.register_fake
def _(
    x: Tensor, taps: Tensor, bias: Tensor, cu_seqlens: Tensor, tails: Tensor | None, silu: bool
) -> Tensor:
    return x.new_empty(tuple(x.shape))


@torch.library.custom_op("hydrarec::conv_cpu_backward", mutates_args=())
def _conv_backward(
    dy: Tensor,
    x: Tensor,
    taps: Tensor,
    bias: Tensor,
    cu_seqlens: Tensor,
    tails: Tensor | None,
    silu: bool,
) -> list[Tensor]:
    """Return the gradients of x, taps, bias and tails."""
    units = units_of(cu_seqlens)
    dx = results.empty(x.shape, x)
    dtails = x.new_empty((0,) if tails is None else tuple(tails.shape))
    tap_sums = taps.new_zeros((len(units) - 1, *taps.shape))
    bias_sums = bias.new_zeros((len(units) - 1, *bias.shape))

    def run(first: int, last: int) -> None:
        conv, _memory = _describe(x, taps, bias, cu_seqlens, units, tails, silu)
        ends = (None if tails is None else dtails, tap_sums, bias_sums)
        convolve_backward(
            conv, rows(dy[:, None]), rows(dx[:, None]), *map(address, ends), first, last
        )

    spread(run, cu_seqlens.index_select(0, units).diff().numpy(), n_tokens=x.shape[0])
    return [dx, tap_sums.sum(0), bias_sums.sum(0), dtails]


@_conv_backward.register_fake
def _(
    dy: Tensor, x: Tensor, taps: Tensor, bias: Tensor, cu_seqlens: Tensor, tails: Tensor | None,
    silu: bool,
) -> list[Tensor]:  # fmt: skip
    dtails = x.new_empty((0,) if tails is None else tuple(tails.shape))
    return [x.new_empty(tuple(x.shape)), torch.empty_like(taps), torch.empty_like(bias), dtails]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.silu = inputs[5]
    ctx.save_for_backward(*inputs[:5])


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    tails = ctx.saved_tensors[4]
    found = _conv_backward(unit_stride(dy), *ctx.saved_tensors, ctx.silu)
    return (*found[:3], None, None if tails is None else found[3], None)


_conv.register_autograd(_differentiate, setup_context=_setup)


def _describe(
    x: Tensor,
    taps: Tensor,
    bias: Tensor,
    cu_seqlens: Tensor,
    units: Tensor,
    tails: Tensor | None,
    silu: bool,
) -> tuple[Convolution, Tensor]:
    """Return the kernels' view of a call, with memory of its own for one thread."""
    row, inputs = taps.shape[1], (taps, bias, cu_seqlens, units, tails)
    sizes = {"raw": (TAPS - 1 + BLOCK) * row, "pre": BLOCK * row, "mixed": BLOCK * row}
    sizes["grad"] = (BLOCK + TAPS - 1) * row

    def build(slot_bytes: int, **memory: int) -> Convolution:
        given = map(address, inputs)
        return Convolution(ZERO[x.dtype], x.shape[1], silu, rows(x[:, None]), *given, **memory)

    return allocate(build, sizes, x.dtype)
