"""The scan with the causal convolution before it: all that stands between a head's projections.

On a CPU one compiled op does all of it on a block of tokens at a time; elsewhere `causal_conv` and
`hydra_scan` run one after the other.  Our choice: fusing saves writing and reading x, B and C.

Shapes: T packed tokens, S sequences, H heads, P head width, N state, K = P + 2N channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from user_model.ops import convolution, scan
from user_model.ops.backends import resolve
from user_model.ops.packing import Plan, planned
from user_model.ops.rotary import check_offset

BACKENDS = ("reference", "torch", "cpu", "triton")
TAPS = 4
# The rows before each sequence, the states before it, and its first position.
States = tuple[Tensor | None, Tensor | None, Tensor | None]


def conv_scan(
    x: Tensor,
    bc: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor,
    z: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    cu_seqlens: Tensor,
    *,
    dt_bias: Tensor | None = None,
    conv_state: Tensor | None = None,
    initial_state: Tensor | None = None,
    position_offset: Tensor | None = None,
    return_final_state: bool = False,
    plan: Plan | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Convolve (x, B, C) over 4 tokens, apply SiLU, then do as `hydra_scan`.

    Args:
        x: [T, H, P], before the convolution.
        bc: [T, H, 2N], B and C before the convolution.
        dt: [T, H], before softplus.
        A: [H], negative.
        D: [H].
        z: [T, H, P], the item stream before RoPE; None returns y alone.
        weight: [H, K, 4], the taps of x's, then B's, then C's channels.
        bias: [H, K].
        cu_seqlens: int64 [S+1], begins at 0, never decreases, ends at T.
        dt_bias: [H]; None is 0.
        conv_state: [S, H, K, 3], the rows before each sequence, oldest first; None is 0.
        initial_state: [S, H, N, P]; None is 0.
        position_offset: int64 [S], tokens of each sequence that came before; None is 0.
        return_final_state: also return the states after each sequence.
        plan: `plan(cu_seqlens)`, made once a batch and shared by layers; None makes it.
        backend: "reference", "torch", "cpu", "triton" or "auto": by device.

    Returns:
        y * RoPE(z), or y where z is None, [T, H, P]; the final states [S, H, N, P] and the rows
        for the next conv_state [S, H, K, 3], or None twice.

    Raises:
        ValueError: a shape, a type or the backend is not as described.
    """
    took = resolve("conv_scan", backend, BACKENDS, x.device)
    batch = planned(cu_seqlens, x.shape[0], plan)
    _check(x, bc, weight, bias, conv_state, batch)
    check_offset(position_offset, batch)
    states = (conv_state, initial_state, position_offset)
    run = _fused if took == "cpu" else _in_turn
    y, final = run(
        x, bc, dt, A, D, z, weight, bias, batch, dt_bias, states, return_final_state, took
    )
    if not return_final_state:
        return y, None, None
    tails = None if conv_state is None else conv_state.flatten(1, 2)
    rows = torch.cat((x, bc), -1).flatten(1)
    after = convolution.tails_after(rows, cu_seqlens, tails, TAPS - 1)
    return y, final, after.unflatten(1, weight.shape[:2])


def _in_turn(
    x: Tensor,
    bc: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor,
    z: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    batch: Plan,
    dt_bias: Tensor | None,
    states: States,
    return_final_state: bool,
    backend: str,
) -> tuple[Tensor, Tensor | None]:
    """Run `causal_conv`, then `hydra_scan`."""
    conv_state, initial_state, offset = states
    (_, H, P), N = x.shape, bc.shape[2] // 2
    mixed = convolution.causal_conv(
        torch.cat((x, bc), -1).flatten(1), weight.flatten(0, 1), bias.flatten(), batch.cu_seqlens,
        initial_state=None if conv_state is None else conv_state.flatten(1, 2), plan=batch,
        backend=backend,
    )  # fmt: skip
    x, B, C = mixed.unflatten(1, (H, -1)).split([P, N, N], -1)
    given = scan.Inputs(x, dt, A, B, C, D, z, dt_bias, initial_state, offset)
    return scan.run(given, batch, return_final_state, backend)


def _fused(
    x: Tensor,
    bc: Tensor,
    dt: Tensor,
    A: Tensor,
    D: Tensor,
    z: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    batch: Plan,
    dt_bias: Tensor | None,
    states: States,
    return_final_state: bool,
    backend: str,
) -> tuple[Tensor, Tensor | None]:
    """Run the compiled op that does both."""
    from user_model.ops.scan_cpu import scan_cpu

    conv_state, initial_state, offset = states
    dtype = torch.promote_types(x.dtype, torch.float32)
    B, C = bc.to(dtype).chunk(2, -1)
    y, final = scan_cpu(
        x.to(dtype), dt, A, B, C, D, None if z is None else z.to(dtype), batch.cu_seqlens,
        dt_bias_H=dt_bias, initial_SHNP=initial_state, position_offset_S=offset,
        return_final_state=return_final_state, taps_HK4=weight.to(dtype), bias_HK=bias.to(dtype),
        tails_SHK3=None if conv_state is None else conv_state.to(dtype),
    )  # fmt: skip
    return y.to(x.dtype), final


def _check(
    x: Tensor, bc: Tensor, weight: Tensor, bias: Tensor, conv_state: Tensor | None, batch: Plan
) -> None:
    if x.dim() != 3 or bc.dim() != 3 or bc.shape[:2] != x.shape[:2] or bc.shape[2] % 2:
        raise ValueError(
            f"conv_scan: x, bc: got {list(x.shape)} and {list(bc.shape)}, expected [T, H, P] and "
            "[T, H, 2N]"
        )
    H, K = x.shape[1], x.shape[2] + bc.shape[2]
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "weight": (weight, (H, K, TAPS)),
        "bias": (bias, (H, K)),
        "conv_state": (conv_state, (batch.n_sequences, H, K, TAPS - 1)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"conv_scan: {name}: got {list(tensor.shape)}, expected {list(shape)} "
                f"(x is {list(x.shape)}, bc is {list(bc.shape)})"
            )
