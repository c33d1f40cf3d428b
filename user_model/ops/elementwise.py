"""What stands around the scan and works row by row: gated norm, product with RoPE(z), SwiGLU.

Each is one pass over memory each way in the compiled form; in PyTorch's operations they are four
to six. The gated norm is Mamba-2's (RMSNorm of y * SiLU(gate), over each head's columns).

Below float32 the compiled forms compute in float32.

Shapes: T tokens, S sequences, H heads, P head width, F hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from user_model.ops.backends import runs_compiled
from user_model.ops.packing import Plan, planned
from user_model.ops.rotary import check_offset, rope_planned


def gated_norm(
    y: Tensor, gate: Tensor, weight: Tensor, eps: float, *, backend: str = "auto"
) -> Tensor:
    """Return RMSNorm(y * silu(gate)) over the last dimension, times weight.

    Args:
        y: [T, H, P].
        gate: [T, H, P].
        weight: [H, P].
        eps: added to the mean square.
        backend: "torch", "cpu" (compiled) or "auto": by device.

    Raises:
        ValueError: shapes or the backend are not as described.
    """
    if y.dim() != 3 or gate.shape != y.shape or weight.shape != y.shape[1:]:
        raise ValueError(
            f"gated_norm: got y {list(y.shape)}, gate {list(gate.shape)}, weight "
            f"{list(weight.shape)}, expected [T, H, P] twice and [H, P]"
        )
    _check_type("gated_norm", "gate", gate, y)
    if runs_compiled("gated_norm", backend, y):
        from user_model.ops import elementwise_cpu

        dtype = torch.promote_types(y.dtype, torch.float32)
        return elementwise_cpu.gated_norm(y.to(dtype), gate.to(dtype), weight, eps).to(y.dtype)
    return functional.rms_norm(y * functional.silu(gate), y.shape[-1:], eps=eps) * weight


def rope_product(
    y: Tensor,
    z: Tensor,
    cu_seqlens: Tensor,
    *,
    position_offset: Tensor | None = None,
    plan: Plan | None = None,
    backend: str = "auto",
) -> Tensor:
    """Return y * RoPE(z).

    Args:
        y: [T, H, P].
        z: [T, H, P], P even.
        cu_seqlens: int64 [S+1].
        position_offset: int64 [S]; None is 0.
        plan: `plan(cu_seqlens)`, made once a batch; None makes it.
        backend: "torch", "cpu" (compiled) or "auto": by device.

    Raises:
        ValueError: shapes or the backend are not as described.
    """
    if y.dim() != 3 or z.shape != y.shape or y.shape[2] % 2:
        raise ValueError(
            f"rope_product: got y {list(y.shape)}, z {list(z.shape)}, expected [T, H, P] twice, "
            "P even"
        )
    _check_type("rope_product", "z", z, y)
    batch = planned(cu_seqlens, y.shape[0], plan)
    check_offset(position_offset, batch)
    if runs_compiled("rope_product", backend, y):
        from user_model.ops import elementwise_cpu

        dtype = torch.promote_types(y.dtype, torch.float32)
        places = (batch.positions, batch.segments, position_offset)
        return elementwise_cpu.rope_product(y.to(dtype), z.to(dtype), *places).to(y.dtype)
    return y * rope_planned(z, batch, position_offset)


def swiglu(gate_up: Tensor, *, backend: str = "auto") -> Tensor:
    """Return silu(gate) * up [T, F], from [T, 2F], the gate first.

    Raises:
        ValueError: the shape or the backend is not as described.
    """
    if gate_up.dim() != 2 or gate_up.shape[1] % 2:
        raise ValueError(f"swiglu: got {list(gate_up.shape)}, expected [T, 2F]")
    if runs_compiled("swiglu", backend, gate_up):
        from user_model.ops import elementwise_cpu

        dtype = torch.promote_types(gate_up.dtype, torch.float32)
        return elementwise_cpu.swiglu(gate_up.to(dtype)).to(gate_up.dtype)
    gate, up = gate_up.chunk(2, -1)
    return functional.silu(gate) * up


def _check_type(op: str, name: str, values: Tensor, y: Tensor) -> None:
    if values.dtype != y.dtype:
        raise ValueError(f"{op}: {name}: got {values.dtype}, expected {y.dtype}, the type of y")
