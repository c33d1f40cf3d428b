"""The scan with the causal convolution before it: all that stands between a head's projections.

On a CPU one compiled op does all of it on a block of tokens at a time; elsewhere `causal_conv` and
`hydra_scan` run one after the other.  Our choice: fusing saves writing and reading x, B and C.

Shapes: T packed tokens, S sequences, H heads, P head width, N state, K = P + 2N channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

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
    selected: Tensor,
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
    activate_z: bool = False,
    plan: Plan | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Convolve (x, B, C) over 4 tokens, apply SiLU, then do as `hydra_scan`.

    Args:
        x: [T, H, P], before the convolution.
        selected: [T, H, 2N+1], what a head's projection selects by: B and C before the
            convolution, and dt before softplus, which is not convolved.
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
        activate_z: apply SiLU to z first.
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
    _check(x, selected, z, weight, bias, conv_state, batch)
    states = (conv_state, initial_state, position_offset)
    arguments = (x, selected, A, D, z, weight, bias, batch, dt_bias, states, return_final_state)
    y, final = (
        _fused(*arguments, activate_z) if took == "cpu" else _in_turn(*arguments, activate_z, took)
    )
    if not return_final_state:
        return y, None, None
    tails = None if conv_state is None else conv_state.flatten(1, 2)
    channels = torch.cat((x, selected[..., :-1]), -1).flatten(1)
    after = convolution.tails_after(channels, cu_seqlens, tails, TAPS - 1)
    return y, final, after.unflatten(1, weight.shape[:2])


def _in_turn(
    x: Tensor,
    selected: Tensor,
    A: Tensor,
    D: Tensor,
    z: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    batch: Plan,
    dt_bias: Tensor | None,
    states: States,
    return_final_state: bool,
    activate_z: bool,
    backend: str,
) -> tuple[Tensor, Tensor | None]:
    """Run `causal_conv`, then `hydra_scan`."""
    conv_state, initial_state, offset = states
    (_, H, P), N = x.shape, selected.shape[2] // 2
    mixed = convolution.causal_conv(
        torch.cat((x, selected[..., :-1]), -1).flatten(1), weight.flatten(0, 1), bias.flatten(),
        batch.cu_seqlens, initial_state=None if conv_state is None else conv_state.flatten(1, 2),
        plan=batch, backend=backend,
    )  # fmt: skip
    if z is not None and activate_z:
        z = functional.silu(z)
    x, B, C = mixed.unflatten(1, (H, -1)).split([P, N, N], -1)
    dt = selected[..., -1]
    given = scan.Inputs(x, dt, A, B, C, D, z, dt_bias, initial_state, offset)
    return scan.run(given, batch, return_final_state, backend)


def _fused(
    x: Tensor,
    selected: Tensor,
    A: Tensor,
    D: Tensor,
    z: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    batch: Plan,
    dt_bias: Tensor | None,
    states: States,
    return_final_state: bool,
    activate_z: bool,
) -> tuple[Tensor, Tensor | None]:
    """Run the compiled op that does all of it."""
    from user_model.ops.scan_cpu import conv_scan_cpu

    conv_state, initial_state, offset = states
    (_, H, P), N, S = x.shape, selected.shape[2] // 2, batch.n_sequences
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "A": (A, (H,)),
        "D": (D, (H,)),
        "z": (z, tuple(x.shape)),
        "dt_bias": (dt_bias, (H,)),
        "initial_state": (initial_state, (S, H, N, P)),
    }
    _check_shapes(expected, x, selected)
    check_offset(offset, batch)
    dtype = torch.promote_types(x.dtype, torch.float32)
    y, final = conv_scan_cpu(
        x.to(dtype), selected.to(dtype), A, D, None if z is None else z.to(dtype),
        weight.to(dtype), bias.to(dtype), batch.cu_seqlens, dt_bias_H=dt_bias,
        tails_SHK3=None if conv_state is None else conv_state.to(dtype),
        initial_SHNP=initial_state, position_offset_S=offset,
        return_final_state=return_final_state, activate_z=activate_z,
    )  # fmt: skip
    return y.to(x.dtype), final


def _check(
    x: Tensor,
    selected: Tensor,
    z: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    conv_state: Tensor | None,
    batch: Plan,
) -> None:
    fits = x.dim() == 3 and selected.dim() == 3 and selected.shape[:2] == x.shape[:2]
    if (
        not fits
        or not x.is_floating_point()
        or selected.shape[2] % 2 == 0
        or selected.dtype != x.dtype
    ):
        raise ValueError(
            f"conv_scan: x, selected: got {x.dtype} {list(x.shape)} and {selected.dtype} "
            f"{list(selected.shape)}, expected one type, [T, H, P] and [T, H, 2N + 1]"
        )
    H, K = x.shape[1], x.shape[2] + selected.shape[2] - 1
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "weight": (weight, (H, K, TAPS)),
        "bias": (bias, (H, K)),
        "conv_state": (conv_state, (batch.n_sequences, H, K, TAPS - 1)),
    }
    _check_shapes(expected, x, selected)
    for name, tensor in (("z", z), ("weight", weight), ("bias", bias), ("conv_state", conv_state)):
        if tensor is not None and tensor.dtype != x.dtype:
            raise ValueError(
                f"conv_scan: {name}: got {tensor.dtype}, expected {x.dtype}, the type of x"
            )
    if z is not None and x.shape[2] % 2:
        raise ValueError(
            f"conv_scan: z: got head width {x.shape[2]}, expected an even one for RoPE"
        )


def _check_shapes(
    expected: dict[str, tuple[Tensor | None, tuple[int, ...]]], x: Tensor, selected: Tensor
) -> None:
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"conv_scan: {name}: got {list(tensor.shape)}, expected {list(shape)} "
                f"(x is {list(x.shape)}, selected is {list(selected.shape)})"
            )
