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
from torch.autograd.function import once_differentiable

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
    y_TK = _ShiftedConv.apply(rows_RK, weight_KW, bias, token_rows - (W - 1), silu)
    tails = rows_RK.index_select(0, end_SV.flatten()).view(-1, W - 1, K).mT
    return y_TK, tails


class _ShiftedConv(torch.autograd.Function):
    """Convolve rows [R, K], keep the outputs of `outputs_T`: indices into R - W + 1 windows."""

    @staticmethod
    def forward(
        ctx: Any,
        rows_RK: Tensor,
        weight_KW: Tensor,
        bias_K: Tensor,
        outputs_T: Tensor,
        silu: bool,
    ) -> Tensor:
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
        ctx.silu = silu
        ctx.save_for_backward(rows_RK, taps_WK, outputs_T, before_TK if silu else None)
        return F.silu(before_TK) if silu else before_TK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_TK: Tensor) -> tuple[Tensor | None, ...]:
        rows_RK, taps_WK, outputs_T, before_TK = ctx.saved_tensors
        W, windows = taps_WK.shape[0], max(rows_RK.shape[0] - taps_WK.shape[0] + 1, 0)
        if ctx.silu:
            dy_TK = torch.ops.aten.silu_backward(dy_TK, before_TK)
        dsums = dy_TK.new_zeros(windows, dy_TK.shape[1]).index_copy_(0, outputs_T, dy_TK)
        drows_RK = torch.zeros_like(rows_RK)
        dweight_WK = torch.zeros_like(taps_WK)
        for begin, end in _blocks(windows, rows_RK):
            block = dsums[begin:end]
            for j in range(W):
                drows_RK[begin + j : end + j].addcmul_(block, taps_WK[j])
                dweight_WK[j] += (block * rows_RK[begin + j : end + j]).sum(0)
        return drows_RK, dweight_WK.t(), dy_TK.sum(0), None, None


def _blocks(windows: int, rows_RK: Tensor) -> list[tuple[int, int]]:
    """Cut the windows so that, on CPU, all taps of a block find it in the core's cache."""
    size = max(BLOCK_BYTES // (rows_RK.element_size() * max(rows_RK.shape[1], 1)), 1)
    if rows_RK.is_cuda:
        size = max(windows, 1)
    return [(begin, min(begin + size, windows)) for begin in range(0, windows, size)]
