"""The selective scan of all heads with softplus, D-skip, RoPE(z) and the product: the public op.

The heads' Mamba-2 recurrence and Y * RoPE(Z) are the paper's (Hydra's input network and multi-head
latent interaction); one op for all of it is our choice.

Shapes: T packed tokens, S sequences, H heads, P head width, N state.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from user_model.ops.backends import resolve
from user_model.ops.packing import Plan, planned
from user_model.ops.rotary import check_offset, rope_planned, rope_reference
from user_model.ops.scan_reference import scan_reference
from user_model.ops.scan_torch import scan_torch

BACKENDS = ("reference", "torch", "cpu", "triton", "mamba_ssm")
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
        backend: "reference" (a loop, the specification), "torch" (chunks), "cpu" (the compiled
            recurrence), "triton", "mamba_ssm" (the peer's kernels), or "auto": by device.

    x, B, C and z share one floating-point type; below float32 all is computed in float32.

    Returns:
        y * RoPE(z) [T, H, P] in the type of x, and, if asked for, the final states [S, H, N, P] in
        the type of the computation.

    Raises:
        ValueError: a shape, a type or a backend is not as described.
    """
    took = resolve("hydra_scan", backend, BACKENDS, x.device)
    batch = planned(cu_seqlens, x.shape[0], plan)
    given = Inputs(x, dt, A, B, C, D, z, dt_bias, initial_state, position_offset)
    y, final = run(given, batch, return_final_state, took)
    if not return_final_state:
        return y
    assert final is not None
    return y, final


class Inputs(NamedTuple):
    """The tensors of a call, as its caller gave them."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    z: Tensor | None
    dt_bias: Tensor | None
    initial_state: Tensor | None
    position_offset: Tensor | None

    def stream(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return x, step, A, B, C, D in the type of the computation."""
        dtype = torch.promote_types(self.x.dtype, torch.float32)
        dt = self.dt.to(dtype)
        step = F.softplus(
            dt if self.dt_bias is None else dt + self.dt_bias.to(dtype),
            threshold=_SOFTPLUS_LINEAR_ABOVE,
        )
        x, A, B, C, D = (value.to(dtype) for value in (self.x, self.A, self.B, self.C, self.D))
        return x, step, A, B, C, D


def run(
    given: Inputs, batch: Plan, return_final_state: bool, backend: str
) -> tuple[Tensor, Tensor | None]:
    """Do as `hydra_scan`, with a plan that was checked and a backend that was resolved.

    Raises:
        ValueError: a shape or a type is not as described there.
    """
    _check(*given[:9], batch)
    check_offset(given.position_offset, batch)
    return _RUN[backend](given, batch, return_final_state)


def _run_reference(given: Inputs, batch: Plan, want_final: bool) -> tuple[Tensor, Tensor | None]:
    stream = given.stream()
    initial = None if given.initial_state is None else given.initial_state.to(stream[0].dtype)
    y, final = scan_reference(*stream, batch.cu_seqlens, initial)
    if given.z is not None:
        z = given.z.to(y.dtype)
        y = y * rope_reference(z, batch.cu_seqlens, given.position_offset)
    return y.to(given.x.dtype), final


def _run_torch(given: Inputs, batch: Plan, want_final: bool) -> tuple[Tensor, Tensor | None]:
    stream = given.stream()
    initial = None if given.initial_state is None else given.initial_state.to(stream[0].dtype)
    y, final = scan_torch(*stream, batch, initial, return_final_state=want_final)
    if given.z is not None:
        y = y * rope_planned(given.z.to(y.dtype), batch, given.position_offset)
    return y.to(given.x.dtype), final


def _run_cpu(given: Inputs, batch: Plan, want_final: bool) -> tuple[Tensor, Tensor | None]:
    from user_model.ops.scan_cpu import scan_cpu

    dtype = torch.promote_types(given.x.dtype, torch.float32)
    z = None if given.z is None else given.z.to(dtype)
    x, B, C = (value.to(dtype) for value in (given.x, given.B, given.C))
    y, final = scan_cpu(
        x, given.dt, given.A, B, C, given.D, z, batch.cu_seqlens,
        dt_bias_H=given.dt_bias, initial_SHNP=given.initial_state,
        position_offset_S=given.position_offset, return_final_state=want_final,
    )  # fmt: skip
    return y.to(given.x.dtype), final


def _run_triton(given: Inputs, batch: Plan, want_final: bool) -> tuple[Tensor, Tensor | None]:
    from user_model.ops.scan_triton import scan_triton

    return scan_triton(
        *given[:7], batch, dt_bias_H=given.dt_bias, initial_SHNP=given.initial_state,
        position_offset_S=given.position_offset, return_final_state=want_final,
    )  # fmt: skip


def _run_mamba_ssm(given: Inputs, batch: Plan, want_final: bool) -> tuple[Tensor, Tensor | None]:
    from user_model.ops.scan_mamba_ssm import scan_mamba_ssm

    return scan_mamba_ssm(
        *given[:7], batch, dt_bias_H=given.dt_bias, initial_SHNP=given.initial_state,
        position_offset_S=given.position_offset, return_final_state=want_final,
    )  # fmt: skip


_RUN = {
    "reference": _run_reference,
    "torch": _run_torch,
    "cpu": _run_cpu,
    "triton": _run_triton,
    "mamba_ssm": _run_mamba_ssm,
}


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
