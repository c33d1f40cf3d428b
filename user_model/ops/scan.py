"""The selective scan of all heads with softplus, D-skip, RoPE(z) and the product: the public op.

The heads' Mamba-2 recurrence and Y * RoPE(Z) are the paper's (Hydra's input network and multi-head
latent interaction); one op for all of it is our choice.

Shapes: T packed tokens, S sequences, H heads, P head width, N state.
"""

from __future__ import annotations

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from user_model.ops.backends import resolve
from user_model.ops.packing import Plan, planned
from user_model.ops.rotary import check_offset, rope_reference, rotate, turns_of
from user_model.ops.scan_reference import scan_reference
from user_model.ops.scan_torch import scan_torch

BACKENDS = ("reference", "torch")
# Above it softplus(v) is v to the last bit of float64; torch's own default, 20, is off by 2e-9.
_SOFTPLUS_LINEAR_ABOVE = 40.0


@overload
def hydra_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    cu_seqlens: Tensor,
    *,
    dt_bias: Tensor | None = ...,
    initial_state: Tensor | None = ...,
    position_offset: Tensor | None = ...,
    return_final_state: Literal[False] = ...,
    plan: Plan | None = ...,
    backend: str = ...,
) -> Tensor: ...
@overload
def hydra_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    cu_seqlens: Tensor,
    *,
    dt_bias: Tensor | None = ...,
    initial_state: Tensor | None = ...,
    position_offset: Tensor | None = ...,
    return_final_state: Literal[True],
    plan: Plan | None = ...,
    backend: str = ...,
) -> tuple[Tensor, Tensor]: ...
def hydra_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    cu_seqlens: Tensor,
    *,
    dt_bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    position_offset: Tensor | None = None,
    return_final_state: bool = False,
    plan: Plan | None = None,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan packed sequences: h_t = exp(s_t A) h_(t-1) + s_t B_t x_t^T, y_t = h_t^T C_t + D x_t.

    s_t = softplus(dt_t + dt_bias). The state is zero, or the row of `initial_state`, at the start
    of each sequence. Differentiable in every floating-point argument, and through both results.

    Args:
        x: [T, H, P], the history stream.
        dt: [T, H], before softplus.
        A: [H], negative (from A = -exp(A_log)).
        B: [T, H, N].
        C: [T, H, N].
        D: [H].
        z: [T, H, P], the item stream before RoPE; None returns y alone (full Mamba-2 heads).
        cu_seqlens: int64 [S+1], begins at 0, never decreases, ends at T.
        dt_bias: [H]; None is 0.
        initial_state: [S, H, N, P]; None is 0.
        position_offset: int64 [S], tokens of each sequence that came before (streaming); None is 0.
        return_final_state: also return the state after each sequence's last token.
        plan: `plan(cu_seqlens)`, made once a batch and shared by layers; None makes it.
        backend: "reference" (a loop, the specification), "torch" (chunks) or "auto".

    x, B, C and z share one floating-point type; below float32 all is computed in float32.

    Returns:
        y * RoPE(z) [T, H, P] in the type of x, and, if asked for, the final states [S, H, N, P] in
        the type of the computation.

    Raises:
        ValueError: a shape, a type or a backend is not as described.
    """
    took = resolve("hydra_scan", backend, BACKENDS)
    batch = planned(cu_seqlens, x.shape[0], plan)
    _check(x, dt, A, B, C, D, z, dt_bias, initial_state, batch)
    check_offset(position_offset, batch)

    dtype = torch.promote_types(x.dtype, torch.float32)
    step = F.softplus(
        dt.to(dtype) if dt_bias is None else dt.to(dtype) + dt_bias.to(dtype),
        threshold=_SOFTPLUS_LINEAR_ABOVE,
    )
    initial = None if initial_state is None else initial_state.to(dtype)
    stream = (x.to(dtype), step, A.to(dtype), B.to(dtype), C.to(dtype), D.to(dtype))
    final: Tensor | None
    if took == "reference":
        y, final = scan_reference(*stream, cu_seqlens, initial)
        if z is not None:
            y = y * rope_reference(z.to(dtype), cu_seqlens, position_offset)
    else:
        y, final = scan_torch(*stream, batch, initial, return_final_state=return_final_state)
        if z is not None:
            turns = turns_of(batch, position_offset, z.shape[-1], dtype)
            y = y * rotate(z.to(dtype), turns)
    y = y.to(x.dtype)
    if not return_final_state:
        return y
    assert final is not None
    return y, final


def _check(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    batch: Plan,
) -> None:
    if x.dim() != 3 or not x.is_floating_point():
        raise ValueError(f"hydra_scan: x: got {x.dtype} {list(x.shape)}, expected float [T, H, P]")
    T, H, P = x.shape
    N = B.shape[-1]
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "dt": (dt, (T, H)),
        "A": (A, (H,)),
        "B": (B, (T, H, N)),
        "C": (C, (T, H, N)),
        "D": (D, (H,)),
        "z": (z, (T, H, P)),
        "dt_bias": (dt_bias, (H,)),
        "initial_state": (initial_state, (batch.n_sequences, H, N, P)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tensor.shape != shape or not tensor.is_floating_point():
            raise ValueError(
                f"hydra_scan: {name}: got {tensor.dtype} {list(tensor.shape)}, expected floating "
                f"point {list(shape)} (x is {list(x.shape)})"
            )
        if name in ("B", "C", "z") and tensor.dtype != x.dtype:
            raise ValueError(
                f"hydra_scan: {name}: got {tensor.dtype}, expected {x.dtype}, the type of x"
            )
    if z is not None and P % 2:
        raise ValueError(f"hydra_scan: z: got head width {P}, expected an even one for RoPE")
