"""A linear map of its own for each head on a CPU, as custom ops.

Shapes: T tokens, H heads, P inputs and M outputs of a head, U units of tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from user_model.ops.cpu_memory import (
    ZERO,
    address,
    allocate,
    pad_columns,
    padded,
    rows,
    unit_stride,
)
from user_model.ops.grouped_linear_cpu_kernels import (
    BLOCK_TOKENS,
    grouped_linear_backward,
    grouped_linear_forward,
)
from user_model.ops.result_memory import results
from user_model.ops.threads import spread_parts

# The gradient of the weight is summed unit by unit, whatever the number of threads.
UNIT_TOKENS = 1024


def grouped_linear(x_THP: Tensor, weight_HPM: Tensor, bias_HM: Tensor | None = None) -> Tensor:
    """Do what `grouped_linear.grouped_linear` says, for float32 and float64; add a bias to it."""
    out: Tensor = _grouped_linear(unit_stride(x_THP), weight_HPM, bias_HM)
    return out


@torch.library.custom_op("hydrarec::grouped_linear_cpu", mutates_args=())
def _grouped_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    (T, H, P), M = x.shape, weight.shape[2]
    out = results.empty((H, T, M), x)
    padded_weight, added = pad_columns(weight), None if bias is None else bias.contiguous()

    def run(first: int, last: int) -> None:
        sizes = {"inputs": BLOCK_TOKENS * P, "outputs": BLOCK_TOKENS * M}
        places, _memory = allocate(dict, sizes, x.dtype)
        grouped_linear_forward(
            ZERO[x.dtype], rows(x), address(padded_weight), address(added), address(out),
            places["inputs"], places["outputs"], T, H, P, M,
            first * UNIT_TOKENS, min(last * UNIT_TOKENS, T),
        )  # fmt: skip

    spread_parts(run, UNIT_TOKENS, n_tokens=T)
    return out.transpose(0, 1)


@_grouped_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty((x.shape[1], x.shape[0], weight.shape[2])).transpose(0, 1)


@torch.library.custom_op("hydrarec::grouped_linear_cpu_backward", mutates_args=())
def _grouped_linear_backward(dout: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    (T, H, P), M = x.shape, weight.shape[2]
    dx = results.empty((T, H, P), x)
    transposed = pad_columns(weight.mT)
    parts = x.new_zeros((-(-T // UNIT_TOKENS), H, padded(P), padded(M)))

    def run(first: int, last: int) -> None:
        widths = {"inputs": P, "changes": padded(M), "results": P}
        sizes = {name: BLOCK_TOKENS * width for name, width in widths.items()}
        places, _memory = allocate(dict, sizes, x.dtype)
        for unit in range(first, last):
            grouped_linear_backward(
                ZERO[x.dtype], rows(x), address(transposed), rows(dout), rows(dx),
                address(parts[unit]), places["inputs"], places["changes"], places["results"],
                H, P, M, unit * UNIT_TOKENS, min((unit + 1) * UNIT_TOKENS, T),
            )  # fmt: skip

    spread_parts(run, UNIT_TOKENS, n_tokens=T)
    return dx, parts.sum(0)[:, :P, :M].contiguous()


@_grouped_linear_backward.register_fake
def _(dout: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(tuple(x.shape)), weight.new_empty(tuple(weight.shape))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    x, weight, bias = inputs
    ctx.save_for_backward(x, weight)
    ctx.biased = bias is not None


def _differentiate(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    dx, dweight = _grouped_linear_backward(unit_stride(dout), *ctx.saved_tensors)
    return dx, dweight, dout.sum(0) if ctx.biased else None


_grouped_linear.register_autograd(_differentiate, setup_context=_save)
