"""The causal convolution in Triton: the op, its gradient, and what is compiled ahead of time.

The kernels are in `convolution_kernels`. Not yet run on a device.

Shapes: T packed tokens, S sequences, K channels, W taps, V = W-1.
"""

from itertools import product
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from user_model.ops.backends import BackendUnavailableError
from user_model.ops.convolution_kernels import (
    conv_backward,
    conv_backward_tails,
    conv_final_tails,
    conv_forward,
)
from user_model.ops.packing import Plan
from user_model.ops.triton_devices import NAMES, Signature, check_launchable

WIDTHS = (2, 3, 4)
_WARPS, _STAGES = 4, 1
# Rows and channels of a tile by bytes an element: a row of a tile is one or two 128-byte lines.
_TILES = {2: (32, 64), 4: (32, 32), 8: (32, 32)}


def conv_triton(
    x_TK: Tensor,
    weight_KW: Tensor,
    bias_K: Tensor | None,
    plan: Plan,
    tails_SKV: Tensor | None,
    *,
    silu: bool,
    return_final_state: bool = True,
) -> tuple[Tensor, Tensor]:
    """Do what `conv_reference` does, in Triton.

    x may be a view whose last dimension is contiguous: its rows are read where they are.

    Args:
        x_TK: float [T, K].
        weight_KW: [K, W], W of 2, 3 or 4.
        bias_K: [K] or None.
        plan: of this batch, on the device of x.
        tails_SKV: [S, K, V] or None.
        silu: apply SiLU.
        return_final_state: False spares the tails: they come back as [0, K, V].

    Returns:
        [T, K] and the tails [S, K, V], in the type of x.

    Raises:
        BackendUnavailableError: another W, no GPU and no interpreter, or bfloat16 in the
            interpreter.
    """
    check_launchable("causal_conv", x_TK)
    if weight_KW.shape[1] not in WIDTHS:
        raise BackendUnavailableError(
            f"causal_conv: backend 'triton': weight has {weight_KW.shape[1]} taps, expected one of "
            f"{WIDTHS}; use backend 'torch'"
        )
    y_TK, final_SKV = _conv(
        x_TK, weight_KW, bias_K, tails_SKV, plan.cu_seqlens, plan.positions, plan.segments,
        silu, return_final_state,
    )  # fmt: skip
    return y_TK, final_SKV


@torch.library.custom_op("hydrarec::conv_triton", mutates_args=())
def _conv(
    x_TK: Tensor,
    weight_KW: Tensor,
    bias_K: Tensor | None,
    tails_SKV: Tensor | None,
    cu_seqlens: Tensor,
    positions_T: Tensor,
    segments_T: Tensor,
    silu: bool,
    return_final: bool,
) -> tuple[Tensor, Tensor]:
    x_TK, weight_KW, bias_K, tails_SKV = _readable(x_TK, weight_KW, bias_K, tails_SKV)
    (T, K), W, S = x_TK.shape, weight_KW.shape[1], cu_seqlens.numel() - 1
    y_TK = x_TK.new_empty(T, K)
    final_SKV = x_TK.new_empty(S if return_final else 0, K, W - 1)
    stride = x_TK.stride(0)
    _launch(
        conv_forward, T, K, x_TK, weight_KW, bias_K, tails_SKV, positions_T,
        segments_T, y_TK, T, K, stride, W=W, SILU=silu,
    )  # fmt: skip
    if return_final:
        _launch(
            conv_final_tails, S, K, x_TK, tails_SKV, cu_seqlens, final_SKV, S, K, stride,
            W=W,
        )  # fmt: skip
    return y_TK, final_SKV


@torch.library.custom_op("hydrarec::conv_triton_backward", mutates_args=())
def _conv_backward(
    dy_TK: Tensor,
    dfinal_SKV: Tensor | None,
    x_TK: Tensor,
    weight_KW: Tensor,
    bias_K: Tensor | None,
    tails_SKV: Tensor | None,
    cu_seqlens: Tensor,
    positions_T: Tensor,
    segments_T: Tensor,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return dx, dweight, dbias and dtails; dtails is empty where there are no tails."""
    x_TK, weight_KW, bias_K, tails_SKV = _readable(x_TK, weight_KW, bias_K, tails_SKV)
    dy_TK = dy_TK if dy_TK.stride(-1) == 1 else dy_TK.contiguous()
    dfinal_SKV = None if dfinal_SKV is None else dfinal_SKV.contiguous()
    (T, K), W, S = x_TK.shape, weight_KW.shape[1], cu_seqlens.numel() - 1
    dx_TK = x_TK.new_empty(T, K)
    n_tiles = triton.cdiv(T, _TILES[x_TK.element_size()][0])
    parts = x_TK.new_empty(n_tiles, W + 1, K, dtype=_accumulator(x_TK))
    strides = (x_TK.stride(0), dy_TK.stride(0))
    read = (x_TK, weight_KW, bias_K, tails_SKV)
    _launch(
        conv_backward, T, K, *read, positions_T, segments_T, cu_seqlens, dy_TK,
        dfinal_SKV, dx_TK, parts, T, K, *strides, W=W, SILU=silu,
    )  # fmt: skip
    dtails_SKV = x_TK.new_empty(0, K, W - 1)
    if tails_SKV is not None:
        dtails_SKV = torch.empty_like(tails_SKV)
        _launch(
            conv_backward_tails, S, K, *read, cu_seqlens, dy_TK, dfinal_SKV, dtails_SKV,
            S, K, *strides, depth=W - 1, W=W, SILU=silu,
        )  # fmt: skip
    total = parts.sum(0).to(weight_KW.dtype)
    return dx_TK, total[:W].t().contiguous(), total[W].clone(), dtails_SKV


def _readable(
    x_TK: Tensor, weight_KW: Tensor, bias_K: Tensor | None, tails_SKV: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Make contiguous what kernels read without strides; of x only the last dimension."""
    return (
        x_TK if x_TK.stride(-1) == 1 else x_TK.contiguous(),
        weight_KW.contiguous(),
        None if bias_K is None else bias_K.contiguous(),
        None if tails_SKV is None else tails_SKV.contiguous(),
    )


def _accumulator(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _launch(
    kernel: Any, n_rows: int, n_channels: int, x: Tensor, *rest: Any, depth: int = 1, **flags: Any
) -> None:
    rows, channels = _TILES[x.element_size()]
    if n_rows == 0 or n_channels == 0:
        return
    grid = (triton.cdiv(n_rows, rows), triton.cdiv(n_channels, channels), depth)
    accumulator = tl.float64 if x.dtype == torch.float64 else tl.float32
    with torch.cuda.device_of(x):
        kernel[grid](
            x,
            *rest,
            **flags,
            ACC=accumulator,
            ROWS=rows,
            CHANNELS=channels,
            num_warps=_WARPS,
            num_stages=_STAGES,
        )


@_conv.register_fake
def _(
    x_TK: Tensor,
    weight_KW: Tensor,
    bias_K: Tensor | None,
    tails_SKV: Tensor | None,
    cu_seqlens: Tensor,
    positions_T: Tensor,
    segments_T: Tensor,
    silu: bool,
    return_final: bool,
) -> tuple[Tensor, Tensor]:
    K, W = weight_KW.shape
    n_tails = cu_seqlens.shape[0] - 1 if return_final else 0
    return x_TK.new_empty(x_TK.shape), x_TK.new_empty(n_tails, K, W - 1)


@_conv_backward.register_fake
def _(
    dy_TK: Tensor,
    dfinal_SKV: Tensor | None,
    x_TK: Tensor,
    weight_KW: Tensor,
    bias_K: Tensor | None,
    tails_SKV: Tensor | None,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    K, W = weight_KW.shape
    n_tails = 0 if tails_SKV is None else tails_SKV.shape[0]
    return (
        x_TK.new_empty(x_TK.shape),
        weight_KW.new_empty(K, W),
        weight_KW.new_empty(K),
        x_TK.new_empty(n_tails, K, W - 1),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.silu, ctx.with_final = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, dy_TK: Tensor, dfinal_SKV: Tensor) -> tuple[Tensor | None, ...]:
    _, _, bias_K, tails_SKV, *_ = ctx.saved_tensors
    dfinal = dfinal_SKV if ctx.with_final else None
    dx_TK, dweight_KW, dbias_K, dtails_SKV = _conv_backward(
        dy_TK, dfinal, *ctx.saved_tensors, ctx.silu
    )
    dbias = None if bias_K is None else dbias_K
    dtails = None if tails_SKV is None else dtails_SKV
    return dx_TK, dweight_KW, dbias, dtails, None, None, None, None, None


_conv.register_autograd(_differentiate, setup_context=_save)


def aot_signatures() -> list[Signature]:
    """Return what is shipped: (kernel, argument types, constants, warps, stages) of each variant.

    Types are Triton's, "*bf16" a pointer, "i32:16" an integer that 16 divides (channels, strides);
    an absent argument is a constant None. The usual variants come first; of those with 2 and 3 taps
    only they are here, and none of float16, which differs from bfloat16 in nothing but the type.
    """
    kernels = (conv_forward, conv_backward, conv_final_tails, conv_backward_tails)
    usual: tuple[tuple[str, ...], ...] = ((), ("TAILS", "DFINAL"))
    rare = (("TAILS",), ("DFINAL",), ("BIAS",))
    found = {}
    for dtype, W, silu, absent, kernel in product(
        (torch.bfloat16, torch.float32), WIDTHS[::-1], (True, False), usual + rare, kernels
    ):
        if max(WIDTHS) != W and (not silu or absent in rare):
            continue
        if kernel is conv_backward_tails and "TAILS" in absent:
            continue
        rows, channels = _TILES[dtype.itemsize]
        constants = {"ACC": tl.float32, "ROWS": rows, "CHANNELS": channels, "W": W, "SILU": silu}
        constants |= dict.fromkeys(absent)
        constants = {n: v for n, v in constants.items() if n in kernel.arg_names}
        signature = (kernel, _types(kernel, constants, dtype), constants, _WARPS, _STAGES)
        found[kernel.__name__, dtype, tuple(constants.items())] = signature
    return list(found.values())


def _types(kernel: Any, constants: dict[str, Any], dtype: torch.dtype) -> dict[str, str]:
    special = {
        "POSITION": "*i64", "SEGMENT": "*i64", "CU": "*i64", "PARTS": "*fp32",
        "T": "i32", "S": "i32", "K": "i32:16", "x_stride": "i32:16", "dy_stride": "i32:16",
    }  # fmt: skip
    names: list[str] = kernel.arg_names
    return {n: special.get(n, f"*{NAMES[dtype]}") for n in names if n not in constants}
