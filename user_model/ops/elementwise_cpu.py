"""Gated norm, product with RoPE(z) and SwiGLU on a CPU, as custom ops.

Shapes: T tokens, S sequences, H heads, P head width, F hidden width, J parts of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from user_model.ops import elementwise_cpu_kernels as kernels
from user_model.ops.cpu_memory import (
    ZERO,
    address,
    pad_columns,
    rows,
    turn_rows,
    turns_table,
    unit_stride,
)
from user_model.ops.cpu_rows import SLACK
from user_model.ops.result_memory import results
from user_model.ops.threads import spread_parts

# Sums over tokens are made part by part, whatever the number of threads.
PART_TOKENS = 512


def _by_parts(n_tokens: int, run: Callable[[int, int, int], None]) -> None:
    """Call `run(part, first token, last token + 1)` for all parts."""

    def run_parts(first: int, last: int) -> None:
        for part in range(first, last):
            begin = part * PART_TOKENS
            run(part, begin, min(begin + PART_TOKENS, n_tokens))

    spread_parts(run_parts, PART_TOKENS, n_tokens=n_tokens)


def _n_parts(n_tokens: int) -> int:
    return -(-n_tokens // PART_TOKENS)


def _memory(like: Tensor, size: int) -> Tensor:
    return like.new_zeros(size + SLACK)


def swiglu(gate_up: Tensor) -> Tensor:
    """Do what `elementwise.swiglu` says, for float32 and float64 [T, 2F]."""
    out: Tensor = _swiglu(unit_stride(gate_up))
    return out


@torch.library.custom_op("hydrarec::swiglu_cpu", mutates_args=())
def _swiglu(gate_up: Tensor) -> Tensor:
    T, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = results.empty((T, width), gate_up)

    def run(part: int, first: int, last: int) -> None:
        memory = _memory(gate_up, 2 * SLACK)
        kernels.swiglu_forward(
            ZERO[out.dtype], rows(gate_up[:, None]), rows(out[:, None]), address(memory), width,
            first, last,
        )  # fmt: skip

    _by_parts(T, run)
    return out


@_swiglu.register_fake
def _(gate_up: Tensor) -> Tensor:
    return gate_up.new_empty((gate_up.shape[0], gate_up.shape[1] // 2))


@torch.library.custom_op("hydrarec::swiglu_cpu_backward", mutates_args=())
def _swiglu_backward(dout: Tensor, gate_up: Tensor) -> Tensor:
    T, width = dout.shape
    din = results.empty((T, 2 * width), dout)

    def run(part: int, first: int, last: int) -> None:
        memory = _memory(gate_up, 3 * SLACK)
        parts = (rows(tensor[:, None]) for tensor in (gate_up, dout, din))
        kernels.swiglu_backward(ZERO[din.dtype], *parts, address(memory), width, first, last)

    _by_parts(T, run)
    return din


@_swiglu_backward.register_fake
def _(dout: Tensor, gate_up: Tensor) -> Tensor:
    return gate_up.new_empty(tuple(gate_up.shape))


_swiglu.register_autograd(
    lambda ctx, dout: _swiglu_backward(unit_stride(dout), *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)


def gated_norm(y_THP: Tensor, gate_THP: Tensor, weight_HP: Tensor, eps: float) -> Tensor:
    """Do what `elementwise.gated_norm` says, for float32 and float64."""
    weight = pad_columns(weight_HP.to(y_THP.dtype))
    out: Tensor = _gated_norm(unit_stride(y_THP), unit_stride(gate_THP), weight, eps)
    return out


@torch.library.custom_op("hydrarec::gated_norm_cpu", mutates_args=())
def _gated_norm(y: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    T, H, P = y.shape
    out = results.empty((T, H, P), y)

    def run(part: int, first: int, last: int) -> None:
        memory = _memory(y, 3 * weight.shape[1])
        kernels.gated_norm_forward(
            ZERO[y.dtype], rows(y), rows(gate), address(weight), rows(out), address(memory), H, P,
            eps, first, last,
        )  # fmt: skip

    _by_parts(T, run)
    return out


@_gated_norm.register_fake
def _(y: Tensor, gate: Tensor, weight: Tensor, eps: float) -> Tensor:
    return y.new_empty(tuple(y.shape))


@torch.library.custom_op("hydrarec::gated_norm_cpu_backward", mutates_args=())
def _gated_norm_backward(
    dout: Tensor, y: Tensor, gate: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    T, H, P = y.shape
    dy, dgate = results.empty((T, H, P), y), results.empty((T, H, P), y)
    sums = weight.new_zeros((_n_parts(T), *weight.shape))

    def run(part: int, first: int, last: int) -> None:
        memory = _memory(y, 6 * weight.shape[1])
        kernels.gated_norm_backward(
            ZERO[y.dtype], rows(y), rows(gate), address(weight), rows(dout), rows(dy), rows(dgate),
            address(sums[part]), address(memory), H, P, eps, first, last,
        )  # fmt: skip

    _by_parts(T, run)
    return dy, dgate, sums.sum(0)


@_gated_norm_backward.register_fake
def _(
    dout: Tensor, y: Tensor, gate: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    shape = tuple(y.shape)
    return y.new_empty(shape), y.new_empty(shape), weight.new_empty(tuple(weight.shape))


def _keep_gated_norm(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.eps = inputs[3]
    ctx.save_for_backward(*inputs[:3])


_gated_norm.register_autograd(
    lambda ctx, dout: (
        *_gated_norm_backward(unit_stride(dout), *ctx.saved_tensors, ctx.eps),
        None,
    ),
    setup_context=_keep_gated_norm,
)


def rope_product(
    y_THP: Tensor,
    z_THP: Tensor,
    positions_T: Tensor,
    segments_T: Tensor,
    position_offset_S: Tensor | None,
) -> Tensor:
    """Do what `elementwise.rope_product` says, for float32 and float64.

    positions_T counts from 0 in each sequence; segments_T is the sequence of each token.
    """
    if position_offset_S is not None:
        positions_T = positions_T + position_offset_S.index_select(0, segments_T)
    listed = position_offset_S is not None
    out: Tensor = _rope_product(unit_stride(y_THP), unit_stride(z_THP), positions_T, listed)
    return out


def _turns(positions: Tensor, listed: bool, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the table of turns and each token's row of it: by position, or token by token."""
    width, dtype = like.shape[-1], like.dtype
    if listed:
        return turn_rows(positions, width, dtype), torch.arange(len(positions))
    longest = int(positions.max()) + 1 if len(positions) else 1
    return turns_table(longest, width, dtype), positions


@torch.library.custom_op("hydrarec::rope_product_cpu", mutates_args=())
def _rope_product(y: Tensor, z: Tensor, positions: Tensor, listed: bool) -> Tensor:
    T, H, P = y.shape
    out = results.empty((T, H, P), y)
    turns, place = _turns(positions, listed, y)

    def run(part: int, first: int, last: int) -> None:
        memory = _memory(y, 2 * turns.shape[1])
        kernels.rope_product_forward(
            ZERO[y.dtype], rows(y), rows(z), address(turns), address(place), rows(out),
            address(memory), H, P, first, last,
        )  # fmt: skip

    _by_parts(T, run)
    return out


@_rope_product.register_fake
def _(y: Tensor, z: Tensor, positions: Tensor, listed: bool) -> Tensor:
    return y.new_empty(tuple(y.shape))


@torch.library.custom_op("hydrarec::rope_product_cpu_backward", mutates_args=())
def _rope_product_backward(
    dout: Tensor, y: Tensor, z: Tensor, positions: Tensor, listed: bool
) -> tuple[Tensor, Tensor]:
    T, H, P = y.shape
    dy, dz = results.empty((T, H, P), y), results.empty((T, H, P), y)
    turns, place = _turns(positions, listed, y)

    def run(part: int, first: int, last: int) -> None:
        memory = _memory(y, 3 * turns.shape[1])
        kernels.rope_product_backward(
            ZERO[y.dtype], rows(y), rows(z), address(turns), address(place), rows(dout), rows(dy),
            rows(dz), address(memory), H, P, first, last,
        )  # fmt: skip

    _by_parts(T, run)
    return dy, dz


@_rope_product_backward.register_fake
def _(dout: Tensor, y: Tensor, z: Tensor, positions: Tensor, listed: bool) -> tuple[Tensor, Tensor]:
    return y.new_empty(tuple(y.shape)), y.new_empty(tuple(y.shape))


def _keep_rope_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.listed = inputs[3]
    ctx.save_for_backward(*inputs[:3])


_rope_product.register_autograd(
    lambda ctx, dout: (
        *_rope_product_backward(unit_stride(dout), *ctx.saved_tensors, ctx.listed), None, None,
    ),
    setup_context=_keep_rope_product,
)  # fmt: skip
