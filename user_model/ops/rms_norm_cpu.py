"""Root mean square norm on a CPU, as custom ops.

Shapes: T tokens, d width, J parts of the tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from user_model.ops.cpu_memory import ZERO, address, allocate, pad_columns, rows, unit_stride
from user_model.ops.result_memory import results
from user_model.ops.rms_norm_cpu_kernels import rms_norm_backward, rms_norm_forward
from user_model.ops.threads import spread_parts

# The gradient of the weight is summed part by part, whatever the number of threads.
PART_TOKENS = 512


def rms_norm(x_Td: Tensor, weight_d: Tensor, eps: float) -> Tensor:
    """Do what `rms_norm.rms_norm` says, for float32 and float64."""
    out: Tensor = _rms_norm(unit_stride(x_Td), weight_d, eps)
    return out


@torch.library.custom_op("hydrarec::rms_norm_cpu", mutates_args=())
def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    T, d = x.shape
    out, padded = results.empty((T, d), x), pad_columns(weight)

    def run(first: int, last: int) -> None:
        places, _memory = allocate(dict, {"rows": 2 * len(padded)}, x.dtype)
        rms_norm_forward(
            ZERO[x.dtype], rows(x[:, None]), address(padded), rows(out[:, None]), places["rows"],
            d, eps, first * PART_TOKENS, min(last * PART_TOKENS, T),
        )  # fmt: skip

    spread_parts(run, PART_TOKENS, n_tokens=T)
    return out


@_rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x.new_empty(tuple(x.shape))


@torch.library.custom_op("hydrarec::rms_norm_cpu_backward", mutates_args=())
def _rms_norm_backward(
    dout: Tensor, x: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    T, d = x.shape
    dx, padded = results.empty((T, d), x), pad_columns(weight)
    sums_Jd = x.new_zeros((-(-T // PART_TOKENS), len(padded)))

    def run(first: int, last: int) -> None:
        places, _memory = allocate(dict, {"rows": 3 * len(padded)}, x.dtype)
        for part in range(first, last):
            rms_norm_backward(
                ZERO[x.dtype], rows(x[:, None]), address(padded), rows(dout[:, None]),
                rows(dx[:, None]), address(sums_Jd[part]), places["rows"], d, eps,
                part * PART_TOKENS, min((part + 1) * PART_TOKENS, T),
            )  # fmt: skip

    spread_parts(run, PART_TOKENS, n_tokens=T)
    return dx, sums_Jd.sum(0)[:d].clone()


@_rms_norm_backward.register_fake
def _(dout: Tensor, x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(tuple(x.shape)), weight.new_empty(tuple(weight.shape))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.eps = inputs[2]


def _differentiate(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, None]:
    dx, dweight = _rms_norm_backward(unit_stride(dout), *ctx.saved_tensors, ctx.eps)
    return dx, dweight, None


_rms_norm.register_autograd(_differentiate, setup_context=_save)
