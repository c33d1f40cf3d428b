"""A linear map of its own for each head on a CPU, as custom ops.

Shapes: T tokens, H heads, P inputs and M outputs of a head, U units of tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from user_model.ops.cpu_memory import ZERO, address, padded, rows, unit_stride
from user_model.ops.cpu_rows import SLACK
from user_model.ops.grouped_linear_cpu_kernels import (
    BLOCK_TOKENS,
    grouped_linear_backward,
    grouped_linear_forward,
)
from user_model.ops.lanes import VECTOR_BYTES
from user_model.ops.result_memory import results
from user_model.ops.threads import spread

# The gradient of the weight is summed unit by unit, whatever the number of threads.
UNIT_TOKENS = 1024


def grouped_linear(x_THP: Tensor, weight_HPM: Tensor) -> Tensor:
    """Do what `grouped_linear.grouped_linear` says, for float32 and float64."""
    out: Tensor = _grouped_linear(unit_stride(x_THP), weight_HPM)
    return out


@torch.library.custom_op("hydrarec::grouped_linear_cpu", mutates_args=())
def _grouped_linear(x: Tensor, weight: Tensor) -> Tensor:
    (T, H, P), M = x.shape, weight.shape[2]
    out = results.empty((H, T, M), x)
    padded_weight = _pad_columns(weight)

    def run(first: int, last: int) -> None:
        inputs, outputs = _block(P, x), _block(M, x)
        grouped_linear_forward(
            ZERO[x.dtype], rows(x), address(padded_weight), address(out), address(inputs),
            address(outputs), T, H, P, M, first * UNIT_TOKENS, min(last * UNIT_TOKENS, T),
        )  # fmt: skip

    _by_units(T, run)
    return out.transpose(0, 1)


def _pad_columns(matrices: Tensor) -> Tensor:
    """Pad the columns of [H, rows, columns] to whole vectors, with zeros."""
    columns = matrices.shape[2]
    return F.pad(matrices, (0, padded(columns) - columns)).contiguous()


def _block(width: int, like: Tensor) -> Tensor:
    """Return memory for a block of rows, zeroed, that begins at a cache line."""
    size = BLOCK_TOKENS * width + SLACK
    line = VECTOR_BYTES // like.dtype.itemsize
    memory = like.new_zeros(size + line)
    return memory[-(memory.data_ptr() // like.dtype.itemsize) % line :][:size]


def _by_units(n_tokens: int, run: Callable[[int, int], None]) -> None:
    firsts = np.arange(0, n_tokens, UNIT_TOKENS)
    spread(run, np.minimum(UNIT_TOKENS, n_tokens - firsts), n_tokens=n_tokens)


@_grouped_linear.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((x.shape[1], x.shape[0], weight.shape[2])).transpose(0, 1)


@torch.library.custom_op("hydrarec::grouped_linear_cpu_backward", mutates_args=())
def _grouped_linear_backward(dout: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    (T, H, P), M = x.shape, weight.shape[2]
    dx = results.empty((T, H, P), x)
    transposed = _pad_columns(weight.mT)
    parts = x.new_zeros((-(-T // UNIT_TOKENS), H, padded(P), padded(M)))

    def run(first: int, last: int) -> None:
        inputs, changes, out = _block(P, x), _block(padded(M), x), _block(P, x)
        for unit in range(first, last):
            grouped_linear_backward(
                ZERO[x.dtype], rows(x), address(transposed), rows(dout), rows(dx),
                address(parts[unit]), address(inputs), address(changes), address(out), H, P, M,
                unit * UNIT_TOKENS, min((unit + 1) * UNIT_TOKENS, T),
            )  # fmt: skip

    _by_units(T, run)
    return dx, parts.sum(0)[:, :P, :M].contiguous()


@_grouped_linear_backward.register_fake
def _(dout: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(tuple(x.shape)), weight.new_empty(tuple(weight.shape))


_grouped_linear.register_autograd(
    lambda ctx, dout: _grouped_linear_backward(unit_stride(dout), *ctx.saved_tensors),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)
