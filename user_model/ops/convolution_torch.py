"""The causal convolution as shifted products over rows with gaps, with its own backward.

Every sequence gets V = W-1 rows in front, its tail or zeros. Over these rows a shift never reaches
another sequence, so that each tap is one multiply-add without a mask.

Shapes: T packed tokens, S sequences, K channels, W taps, V = W-1, R = T + V*S rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from user_model.ops.packing import Plan

BLOCK_BYTES = 1 << 18


def conv_torch(
    x_TK: Tensor,
    weight_KW: Tensor,
    bias_K: Tensor | None,
    plan: Plan,
    tails_SKV: Tensor | None,
    *,
    silu: bool,
) -> tuple[Tensor, Tensor]:
    """Do what `conv_reference` does."""
    K, W = weight_KW.shape
    # Row of each token, and of the V rows in front of, and at the end of, each sequence.
    token_rows = torch.arange(plan.n_tokens, device=x_TK.device) + (W - 1) * (plan.segments + 1)
    sequences = torch.arange(plan.n_sequences, device=x_TK.device)
    offsets = torch.arange(W - 1, device=x_TK.device)
    front_SV = (plan.cu_seqlens[:-1] + (W - 1) * sequences)[:, None] + offsets
    end_SV = (plan.cu_seqlens[1:] + (W - 1) * sequences)[:, None] + offsets

    rows_RK = x_TK.new_zeros(plan.n_tokens + (W - 1) * plan.n_sequences, K)
    rows_RK = rows_RK.index_copy(0, token_rows, x_TK)
    if tails_SKV is not None:
        rows_RK = rows_RK.index_copy(0, front_SV.flatten(), tails_SKV.mT.reshape(-1, K))
    bias = x_TK.new_zeros(K) if bias_K is None else bias_K
    y_TK, _ = _shifted(rows_RK, weight_KW, bias, token_rows - (W - 1), silu)
    tails = rows_RK.index_select(0, end_SV.flatten()).view(-1, W - 1, K).mT
    return y_TK, tails


@torch.library.custom_op("hydrarec::conv_torch", mutates_args=())
def _shifted(
    rows_RK: Tensor, weight_KW: Tensor, bias_K: Tensor, outputs_T: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    """Convolve rows; keep the windows `outputs_T` of R - W + 1.

    Returns:
        The outputs [T, K] and, for the backward, the sums before SiLU (empty without SiLU).
    """
    W = weight_KW.shape[1]
    windows = max(rows_RK.shape[0] - W + 1, 0)
    taps_WK = weight_KW.t().contiguous()
    sums = rows_RK.new_empty(windows, rows_RK.shape[1])
    for begin, end in _blocks(windows, rows_RK):
        block = sums[begin:end]
        torch.addcmul(bias_K, rows_RK[begin:end], taps_WK[0], out=block)
        for j in range(1, W):
            block.addcmul_(rows_RK[begin + j : end + j], taps_WK[j])
    before_TK = sums.index_select(0, outputs_T)
    return (F.silu(before_TK), before_TK) if silu else (before_TK, rows_RK.new_empty(0))


@_shifted.register_fake
def _(
    rows_RK: Tensor, weight_KW: Tensor, bias_K: Tensor, outputs_T: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    shape = (outputs_T.shape[0], rows_RK.shape[1])
    return rows_RK.new_empty(shape), rows_RK.new_empty(shape if silu else (0,))


@torch.library.custom_op("hydrarec::conv_torch_backward", mutates_args=())
def _shifted_backward(
    dy_TK: Tensor,
    rows_RK: Tensor,
    weight_KW: Tensor,
    outputs_T: Tensor,
    before_TK: Tensor,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of rows, weight and bias."""
    K, W = weight_KW.shape
    windows, taps_WK = max(rows_RK.shape[0] - W + 1, 0), weight_KW.t().contiguous()
    if silu:
        dy_TK = torch.ops.aten.silu_backward(dy_TK, before_TK)
    dsums = dy_TK.new_zeros(windows, K).index_copy_(0, outputs_T, dy_TK)
    drows_RK = torch.zeros_like(rows_RK)
    dweight_WK = torch.zeros_like(taps_WK)
    for begin, end in _blocks(windows, rows_RK):
        block = dsums[begin:end]
        for j in range(W):
            drows_RK[begin + j : end + j].addcmul_(block, taps_WK[j])
            dweight_WK[j] += (block * rows_RK[begin + j : end + j]).sum(0)
    return drows_RK, dweight_WK.t().contiguous(), dy_TK.sum(0)


@_shifted_backward.register_fake
def _(
    dy_TK: Tensor,
    rows_RK: Tensor,
    weight_KW: Tensor,
    outputs_T: Tensor,
    before_TK: Tensor,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(rows_RK),
        rows_RK.new_empty(weight_KW.shape),
        rows_RK.new_empty(weight_KW.shape[0]),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    rows_RK, weight_KW, _, outputs_T, ctx.silu = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(rows_RK, weight_KW, outputs_T, output[1])


def _differentiate(ctx: Any, dy_TK: Tensor | None, _before: None) -> tuple[Any, ...]:
    if dy_TK is None:  # only the tails were used
        return None, None, None, None, None
    return *_shifted_backward(dy_TK, *ctx.saved_tensors, ctx.silu), None, None


_shifted.register_autograd(_differentiate, setup_context=_keep)


def _blocks(windows: int, rows_RK: Tensor) -> list[tuple[int, int]]:
    """Cut the windows so that, on CPU, all taps of a block find it in the core's cache."""
    size = max(BLOCK_BYTES // (rows_RK.element_size() * max(rows_RK.shape[1], 1)), 1)
    if rows_RK.is_cuda:
        size = max(windows, 1)
    return [(begin, min(begin + size, windows)) for begin in range(0, windows, size)]
