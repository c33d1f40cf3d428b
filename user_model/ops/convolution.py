"""The short causal convolution in front of the scan (Mamba-2: depthwise, width 4, then SiLU).

Shapes: T packed tokens, S sequences, K channels, W taps.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from user_model.ops.backends import BackendUnavailableError, resolve
from user_model.ops.convolution_torch import conv_torch
from user_model.ops.packing import Plan, planned

BACKENDS = ("reference", "torch", "cpu", "triton")
Activation = Literal["silu"]
CPU_TAPS = 4


@overload
def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor,
    *,
    initial_state: Tensor | None = ...,
    return_final_state: Literal[False] = ...,
    activation: Activation | None = ...,
    plan: Plan | None = ...,
    backend: str = ...,
) -> Tensor: ...
@overload
def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor,
    *,
    initial_state: Tensor | None = ...,
    return_final_state: Literal[True],
    activation: Activation | None = ...,
    plan: Plan | None = ...,
    backend: str = ...,
) -> tuple[Tensor, Tensor]: ...
def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor,
    *,
    initial_state: Tensor | None = None,
    return_final_state: bool = False,
    activation: Activation | None = "silu",
    plan: Plan | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Convolve each channel over the last W tokens of its own sequence, then apply SiLU.

    y_t = silu(bias + sum over j of weight[:, j] x_(t-W+1+j)); before the start of a sequence stands
    its tail of `initial_state`, or zeros. Differentiable in every floating-point argument, and
    through both results.

    Args:
        x: [T, K].
        weight: [K, W], the last tap on the token itself; Mamba-2 has W = 4.
        bias: [K] or None.
        cu_seqlens: int64 [S+1], begins at 0, never decreases, ends at T.
        initial_state: tails [S, K, W-1], the tokens before each sequence, oldest first.
        return_final_state: also return the tails after each sequence.
        activation: "silu" or None.
        plan: `plan(cu_seqlens)`, made once a batch and shared by layers; None makes it.
        backend: "reference" (token by token, the specification), "torch", "cpu" (compiled; up to
            4 taps), "triton" or "auto": by device.

    x, weight, bias and tails share one floating-point type.

    Returns:
        [T, K] and, if asked for, the tails [S, K, W-1].

    Raises:
        ValueError: a shape, a type, the activation or the backend is not as described.
    """
    batch = planned(cu_seqlens, x.shape[0], plan)
    _check(x, weight, bias, initial_state, activation, batch)
    many = backend == "auto" and weight.shape[1] > CPU_TAPS
    fitting = [name for name in BACKENDS if name != "cpu"] if many else BACKENDS
    took = resolve("causal_conv", backend, fitting, x.device)
    silu = activation == "silu"
    if took == "reference":
        y, tails = conv_reference(x, weight, bias, cu_seqlens, initial_state, silu=silu)
    elif took == "torch":
        y, tails = conv_torch(x, weight, bias, batch, initial_state, silu=silu)
    elif took == "triton":
        from user_model.ops.convolution_triton import conv_triton

        y, tails = conv_triton(
            x, weight, bias, batch, initial_state, silu=silu, return_final_state=return_final_state
        )
    else:
        y = _on_cpu(x, weight, bias, cu_seqlens, initial_state, silu=silu)
        if not return_final_state:
            return y
        tails = tails_after(x, cu_seqlens, initial_state, weight.shape[1] - 1)
    return (y, tails) if return_final_state else y


def _on_cpu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cu_seqlens: Tensor,
    tails: Tensor | None,
    *,
    silu: bool,
) -> Tensor:
    from user_model.ops.convolution_cpu import conv_cpu

    if weight.shape[1] > CPU_TAPS:
        raise BackendUnavailableError(
            f"causal_conv: backend 'cpu' got {weight.shape[1]} taps, expected at most {CPU_TAPS}; "
            "use backend 'torch'"
        )
    dtype = torch.promote_types(x.dtype, torch.float32)
    bias = None if bias is None else bias.to(dtype)
    tails = None if tails is None else tails.to(dtype)
    y = conv_cpu(x.to(dtype), weight.to(dtype), bias, cu_seqlens, tails, silu=silu)
    return y.to(x.dtype)


def tails_after(x: Tensor, cu_seqlens: Tensor, tails: Tensor | None, count: int) -> Tensor:
    """Return the last `count` rows of each sequence, [S, K, count], oldest first.

    Args:
        x: [T, K].
        cu_seqlens: int64 [S + 1].
        tails: [S, K, count], what stood before each sequence; None is zeros.
        count: V, the taps but one.
    """
    T, K = x.shape
    S = cu_seqlens.shape[0] - 1
    before = x.new_zeros(S * count, K) if tails is None else tails.mT.reshape(S * count, K)
    begin, end = cu_seqlens[:-1, None], cu_seqlens[1:, None]
    token = end - count + torch.arange(count, device=x.device)
    # A token before the sequence is a row of its tail, which stands behind all tokens here.
    first = T + count * torch.arange(S, device=x.device)[:, None]
    row = torch.where(token >= begin, token, first + count + token - begin)
    return torch.cat((x, before)).index_select(0, row.flatten()).view(S, count, K).mT


def conv_reference(
    x_TK: Tensor,
    weight_KW: Tensor,
    bias_K: Tensor | None,
    cu_seqlens: Tensor,
    tails_SKV: Tensor | None,
    *,
    silu: bool,
) -> tuple[Tensor, Tensor]:
    """Convolve token by token: the specification of every faster form; V = W-1."""
    K, W = weight_KW.shape
    outputs, tails = [x_TK.new_zeros(0, K)], [x_TK.new_zeros(0, K, W - 1)]
    for s, (begin, end) in enumerate(pairwise(cu_seqlens.tolist())):
        window_KV = x_TK.new_zeros(K, W - 1) if tails_SKV is None else tails_SKV[s]
        for t in range(begin, end):
            window_KW = torch.cat((window_KV, x_TK[t][:, None]), 1)
            y_K = (window_KW * weight_KW).sum(1)
            y_K = y_K if bias_K is None else y_K + bias_K
            outputs.append((F.silu(y_K) if silu else y_K)[None])
            window_KV = window_KW[:, 1:]
        tails.append(window_KV[None])
    return torch.cat(outputs), torch.cat(tails)


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    activation: str | None,
    batch: Plan,
) -> None:
    if activation not in ("silu", None):
        raise ValueError(f"causal_conv: activation: got {activation!r}, expected 'silu' or None")
    if x.dim() != 2 or not x.is_floating_point():
        raise ValueError(f"causal_conv: x: got {x.dtype} {list(x.shape)}, expected float [T, K]")
    K = x.shape[1]
    if weight.dim() != 2 or weight.shape[0] != K or weight.shape[1] < 2:
        raise ValueError(
            f"causal_conv: weight: got {list(weight.shape)}, expected [{K}, W], W at least 2"
        )
    tails = (batch.n_sequences, K, weight.shape[1] - 1)
    for name, tensor, shape in (
        ("weight", weight, tuple(weight.shape)),
        ("bias", bias, (K,)),
        ("initial_state", initial_state, tails),
    ):
        if tensor is not None and (tensor.shape != shape or tensor.dtype != x.dtype):
            raise ValueError(
                f"causal_conv: {name}: got {tensor.dtype} {list(tensor.shape)}, expected "
                f"{x.dtype} {list(shape)} (x is {x.dtype} {list(x.shape)})"
            )
