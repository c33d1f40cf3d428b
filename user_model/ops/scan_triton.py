"""The selective scan in Triton: the public backend, its custom ops, and their gradients.

The kernels are in `scan_triton_forward`, `scan_triton_backward` and `scan_triton_long`, how they
are launched in `scan_triton_launch`, what they are compiled with in `scan_triton_configs`. Not yet
run on a device.

Shapes: T packed tokens, S sequences, H heads, P head width, N state, W work items, G tiles.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from user_model.ops import scan_triton_launch as launch
from user_model.ops.packing import Plan
from user_model.ops.scan_triton_configs import aot_signatures, blocks_for, check_supported
from user_model.ops.tiles import TileWork
from user_model.ops.triton_devices import check_launchable

__all__ = ["aot_signatures", "scan_over", "scan_triton"]


def scan_triton(
    x_THP: Tensor,
    dt_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    z_THP: Tensor | None,
    plan: Plan,
    *,
    dt_bias_H: Tensor | None = None,
    initial_SHNP: Tensor | None = None,
    position_offset_S: Tensor | None = None,
    return_final_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Do what `scan_reference` does, with softplus(dt + dt_bias), RoPE(z) and the product.

    x, B, C and z may be views, slices of one projection: they are read where they are if the heads
    of a token lie side by side, and copied if not.

    Args:
        x_THP: [T, H, P], P of 16, 32 or 64; the operand of products, in its type.
        dt_TH: [T, H], before softplus.
        A_H: [H], negative.
        B_THN: [T, H, N], N of 16, 32 or 64, in the type of x.
        C_THN: [T, H, N], in the type of x.
        D_H: [H].
        z_THP: [T, H, P] before RoPE, in the type of x; None returns y alone.
        plan: of this batch, on the device of x.
        dt_bias_H: [H]; None is 0.
        initial_SHNP: [S, H, N, P]; None is 0.
        position_offset_S: int64 [S]; None is 0.
        return_final_state: also return the states after the last tokens.

    Returns:
        y [T, H, P] in the type of x, and the final states [S, H, N, P] in float32 (float64 for
        float64) or None. One sequence's values are bitwise the same packed or alone in the aligned
        mode of `tiles`.

    Raises:
        BackendUnavailableError: another P or N, no GPU and no interpreter, a GPU before compute
            capability 8.0, or bfloat16 in the interpreter.
    """
    check_launchable("hydra_scan", x_THP)
    check_supported(x_THP, B_THN.shape[-1])
    return scan_over(
        plan.tile_work(states=initial_SHNP is not None or return_final_state),
        x_THP, dt_TH, A_H, B_THN, C_THN, D_H, z_THP, plan,
        dt_bias_H=dt_bias_H, initial_SHNP=initial_SHNP, position_offset_S=position_offset_S,
        return_final_state=return_final_state,
    )  # fmt: skip


def scan_over(
    work: TileWork,
    x_THP: Tensor,
    dt_TH: Tensor,
    A_H: Tensor,
    B_THN: Tensor,
    C_THN: Tensor,
    D_H: Tensor,
    z_THP: Tensor | None,
    plan: Plan,
    *,
    dt_bias_H: Tensor | None = None,
    initial_SHNP: Tensor | None = None,
    position_offset_S: Tensor | None = None,
    return_final_state: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Do what `scan_triton` does over a given work list of the same batch."""
    carries = initial_SHNP is not None or return_final_state
    assert not (carries and work.mode == "runs"), "states need one sequence an item"
    inputs = (x_THP, dt_TH, A_H, B_THN, C_THN, D_H, z_THP, dt_bias_H, initial_SHNP)
    learning = any(value is not None and value.requires_grad for value in inputs)
    y_THP, final_SHNP, _, _ = _scan(
        *inputs, position_offset_S, plan.segments, plan.positions, work.items, work.tiles,
        work.groups, work.mode == "runs", plan.max_length, plan.n_sequences,
        return_final_state, learning and torch.is_grad_enabled(),
    )  # fmt: skip
    return y_THP, final_SHNP if return_final_state else None


@torch.library.custom_op("hydrarec::scan_triton", mutates_args=())
def _scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial: Tensor | None,
    position_offset: Tensor | None,
    segments: Tensor,
    positions: Tensor,
    items: Tensor,
    tiles: Tensor,
    groups: Tensor,
    runs: bool,
    longest: int,
    n_sequences: int,
    return_final: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.cuda.device_of(x):
        scan = launch.make_scan(
            x, dt, A, B, C, D, z, dt_bias, initial, position_offset, segments, positions, items,
            tiles, groups, runs, longest, n_sequences,
        )  # fmt: skip
        return launch.forward(scan, final=return_final, save=save)


@_scan.register_fake
def _(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial: Tensor | None,
    position_offset: Tensor | None,
    segments: Tensor,
    positions: Tensor,
    items: Tensor,
    tiles: Tensor,
    groups: Tensor,
    runs: bool,
    longest: int,
    n_sequences: int,
    return_final: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    (T, H, P), N = x.shape, B.shape[2]
    blocks = blocks_for(P, N, x.itemsize)

    def made(wanted: bool, *shape: int) -> Tensor:
        return x.new_empty(shape if wanted else (0,), dtype=dtype)

    return (
        x.new_empty(x.shape),
        made(return_final, n_sequences, H, N, P),
        made(save, tiles.shape[0], H * blocks, N, P // blocks),
        made(save, T, H * blocks),
    )


@torch.library.custom_op("hydrarec::scan_triton_backward", mutates_args=())
def _scan_backward(
    dy: Tensor,
    dfinal: Tensor | None,
    states: Tensor,
    steps: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial: Tensor | None,
    position_offset: Tensor | None,
    segments: Tensor,
    positions: Tensor,
    items: Tensor,
    tiles: Tensor,
    groups: Tensor,
    runs: bool,
    longest: int,
    n_sequences: int,
) -> list[Tensor]:
    with torch.cuda.device_of(x):
        scan = launch.make_scan(
            x, dt, A, B, C, D, z, dt_bias, initial, position_offset, segments, positions, items,
            tiles, groups, runs, longest, n_sequences,
        )  # fmt: skip
        gradients = launch.backward(scan, states, steps, dy, dfinal)
    return [value for value in gradients if value is not None]


@_scan_backward.register_fake
def _(
    dy: Tensor,
    dfinal: Tensor | None,
    states: Tensor,
    steps: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial: Tensor | None,
    *rest: Any,
) -> list[Tensor]:
    inputs = (x, dt, A, B, C, D, z, dt_bias, initial)
    return [value.new_empty(value.shape) for value in inputs if value is not None]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *given, return_final, save = inputs
    _, _, states, steps = output
    tensors, ctx.numbers = given[:15], given[15:]
    ctx.mark_non_differentiable(states, steps)
    ctx.return_final, ctx.saved = return_final, save
    ctx.save_for_backward(states, steps, *tensors)


def _backward(ctx: Any, dy: Tensor, dfinal: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    assert ctx.saved, "the forward saved nothing for a backward"
    states, steps, *tensors = ctx.saved_tensors
    gradients = iter(
        _scan_backward(
            dy, dfinal if ctx.return_final else None, states, steps, *tensors, *ctx.numbers
        )
    )
    of_floats = [None if value is None else next(gradients) for value in tensors[:9]]
    return (*of_floats, *[None] * 11)


_scan.register_autograd(_backward, setup_context=_setup_context)
