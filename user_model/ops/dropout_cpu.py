"""Dropout by tokens' keys on a CPU, as a custom op; its gradient is the op itself.

Shapes: T tokens, d width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from user_model.ops import dropout_cpu_kernels as kernels
from user_model.ops.cpu_memory import ZERO, address, allocate, rows, unit_stride
from user_model.ops.cpu_rows import SLACK
from user_model.ops.dropout import least_kept
from user_model.ops.result_memory import results
from user_model.ops.threads import spread_parts

PART_TOKENS = 512


def token_dropout(x_Td: Tensor, keys_T: Tensor, p: float) -> Tensor:
    """Do what `dropout.token_dropout` says, for float32 and float64."""
    out: Tensor = _token_dropout(unit_stride(x_Td), keys_T.contiguous(), p)
    return out


@torch.library.custom_op("hydrarec::token_dropout_cpu", mutates_args=())
def _token_dropout(x: Tensor, keys: Tensor, p: float) -> Tensor:
    T, d = x.shape
    out, zero = results.empty((T, d), x), ZERO[x.dtype]
    scale = torch.tensor(1.0 / (1.0 - p), dtype=x.dtype).numpy()[()]

    def run(first: int, last: int) -> None:
        places, _memory = allocate(dict, {"row": SLACK}, x.dtype)
        kernels.token_dropout(
            zero, rows(x[:, None]), address(keys), rows(out[:, None]), places["row"], d,
            least_kept(p), scale, first * PART_TOKENS, min(last * PART_TOKENS, T),
        )  # fmt: skip

    spread_parts(run, PART_TOKENS, n_tokens=T)
    return out


@_token_dropout.register_fake
def _(x: Tensor, keys: Tensor, p: float) -> Tensor:
    return x.new_empty(tuple(x.shape))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
    _, keys, ctx.p = inputs
    ctx.save_for_backward(keys)


def _differentiate(ctx: Any, dout: Tensor) -> tuple[Tensor, None, None]:
    (keys,) = ctx.saved_tensors
    return _token_dropout(unit_stride(dout), keys, ctx.p), None, None


_token_dropout.register_autograd(_differentiate, setup_context=_save)
