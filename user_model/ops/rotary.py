"""RoPE on packed sequences: the item stream's absolute position (Hydra, Z = RoPE(SiLU(W_Z H))).

Positions count from 0 at the first token of each sequence (our choice; the paper leaves it open).

Shapes: T packed tokens, S sequences, P width (even), R = P/2 rotated pairs.
"""

from __future__ import annotations

import functools
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from user_model.ops.packing import Plan, planned

BASE = 10_000.0
_SHORTEST_TABLE = 64


def rope(
    x: Tensor,
    cu_seqlens: Tensor,
    position_offset: Tensor | None = None,
    *,
    plan: Plan | None = None,
) -> Tensor:
    """Rotate the interleaved pairs (x[2i], x[2i+1]) by position * 10000^(-2i/P).

    Args:
        x: [T, ..., P] (such as [T, H, P]), P even, floating point.
        cu_seqlens: int64 [S+1].
        position_offset: int64 [S], the position of each sequence's first token; None is 0.
        plan: `plan(cu_seqlens)`, made once a batch; None makes it.

    Returns:
        A tensor as `x`; computed in float32 at least.

    Raises:
        ValueError: a shape or a type is not as described.
    """
    if x.dim() < 2 or x.shape[-1] % 2 or not x.is_floating_point():
        raise ValueError(
            f"rope: x: got {x.dtype} {list(x.shape)}, expected floating point [T, ..., P], P even"
        )
    batch = planned(cu_seqlens, x.shape[0], plan)
    check_offset(position_offset, batch)
    return rope_planned(x, batch, position_offset)


def rope_planned(x: Tensor, batch: Plan, position_offset: Tensor | None) -> Tensor:
    """Do what `rope` does, unchecked."""
    at_T, longest = batch.positions, batch.max_length
    if position_offset is not None:
        at_T, longest = at_T + position_offset[batch.segments], 0
    dtype = torch.promote_types(x.dtype, torch.float32)
    return _rope(x.to(dtype), at_T, longest, False).to(x.dtype)


def check_offset(position_offset: Tensor | None, batch: Plan) -> None:
    """Raise ValueError unless the offset is None or int64 [S]."""
    if position_offset is None:
        return
    if position_offset.dtype != torch.int64 or position_offset.shape != (batch.n_sequences,):
        raise ValueError(
            f"position_offset: got {position_offset.dtype} {list(position_offset.shape)}, "
            f"expected int64 [{batch.n_sequences}], a number for each sequence"
        )


@torch.library.custom_op("hydrarec::rope", mutates_args=())
def _rope(x: Tensor, at_T: Tensor, longest: int, back: bool) -> Tensor:
    """Turn x [T, ..., P] to the positions `at_T`, or back.

    Positions below `longest` are looked up in a table that is kept; 0 computes them, whatever
    they are.
    """
    if longest:
        # A power of two, so that few tables are kept.
        length = max(_SHORTEST_TABLE, 1 << (longest - 1).bit_length())
        turns_TR = _table(length, x.shape[-1], x.dtype, x.device)[at_T]
    else:
        turns_TR = _turns(at_T, x.shape[-1], x.dtype)
    return rotate(x, turns_TR.conj() if back else turns_TR)


@_rope.register_fake
def _(x: Tensor, at_T: Tensor, longest: int, back: bool) -> Tensor:
    return x.new_empty(x.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, at_T, ctx.longest, ctx.back = inputs
    ctx.save_for_backward(at_T)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    # A rotation's transpose is the rotation back.
    return _rope(dy, *ctx.saved_tensors, ctx.longest, not ctx.back), None, None, None


_rope.register_autograd(_differentiate, setup_context=_keep)


def turns_at(at_T: Tensor, width: int, *, double: bool) -> Tensor:
    """Return the rotation at each position, int64 [T], as unit complex numbers [T, R].

    They are complex64, or complex128 if `double`.
    """
    # Angles in float64: at position 10^5 float32 angles are off by 10^-2.
    pairs_R = torch.arange(width // 2, dtype=torch.float64, device=at_T.device)
    angles_TR = at_T.double()[:, None] * BASE ** (-2.0 * pairs_R / width)
    turns_TR = torch.polar(torch.ones_like(angles_TR), angles_TR)
    return turns_TR if double else turns_TR.to(torch.complex64)


def rotate(x: Tensor, turns_TR: Tensor) -> Tensor:
    """Multiply pairs, read as complex numbers, by the turns: one pass over memory each way."""
    pairs = x.unflatten(-1, (-1, 2))
    aligned = x.storage_offset() % 2 == 0 and all(stride % 2 == 0 for stride in pairs.stride()[:-1])
    if not aligned or pairs.stride(-1) != 1:
        # Not .contiguous(): that would return a contiguous tensor at an odd offset as it is.
        pairs = pairs.clone(memory_format=torch.contiguous_format)
    turns = turns_TR.view(-1, *[1] * (x.dim() - 2), turns_TR.shape[-1])
    return torch.view_as_real(torch.view_as_complex(pairs) * turns).flatten(-2)


def rope_reference(x: Tensor, cu_seqlens: Tensor, position_offset: Tensor | None = None) -> Tensor:
    """Do the same token by token, from the definition: the specification of `rope`."""
    R = x.shape[-1] // 2
    rows = []
    for s, (begin, end) in enumerate(pairwise(cu_seqlens.tolist())):
        first = 0 if position_offset is None else int(position_offset[s])
        for t in range(begin, end):
            angle = (first + t - begin) * BASE ** (-torch.arange(R, dtype=torch.float64) / R)
            cos, sin = angle.cos().to(x), angle.sin().to(x)
            even, odd = x[t, ..., 0::2], x[t, ..., 1::2]
            rows.append(
                torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)
            )
    return torch.stack(rows) if rows else x.clone()


def _turns(at_T: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    return turns_at(at_T, width, double=dtype == torch.float64)


@functools.lru_cache(maxsize=16)
def _table(length: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept across calls: made inside inference_mode, it could not be used in training afterwards.
    with torch.inference_mode(False), torch.no_grad():
        return _turns(torch.arange(length, device=device), width, dtype)
