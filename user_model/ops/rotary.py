"""RoPE on packed sequences: the item stream's absolute position (Hydra, Z = RoPE(SiLU(W_Z H))).

Positions count from 0 at the first token of each sequence (our choice; the paper leaves it open).

Shapes: T packed tokens, S sequences, P width (even), R = P/2 rotated pairs.
"""

from __future__ import annotations

import functools
from itertools import pairwise

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
    dtype = torch.promote_types(x.dtype, torch.float32)
    turns = turns_of(batch, position_offset, x.shape[-1], dtype)
    return rotate(x.to(dtype), turns).to(x.dtype)


def check_offset(position_offset: Tensor | None, batch: Plan) -> None:
    """Raise ValueError unless the offset is None or int64 [S]."""
    if position_offset is None:
        return
    if position_offset.dtype != torch.int64 or position_offset.shape != (batch.n_sequences,):
        raise ValueError(
            f"position_offset: got {position_offset.dtype} {list(position_offset.shape)}, "
            f"expected int64 [{batch.n_sequences}], a number for each sequence"
        )


def turns_of(batch: Plan, position_offset: Tensor | None, width: int, dtype: torch.dtype) -> Tensor:
    """Return the rotation of each token as unit complex numbers [T, R]."""
    if position_offset is not None:
        return _turns(batch.positions + position_offset[batch.segments], width, dtype)
    # A power of two, so that few tables are kept.
    length = max(_SHORTEST_TABLE, 1 << (batch.max_length - 1).bit_length())
    return _table(length, width, dtype, batch.positions.device)[batch.positions]


def rotate(x: Tensor, turns_TR: Tensor) -> Tensor:
    """Multiply pairs, read as complex numbers, by the turns: one pass over memory each way."""
    pairs = x.unflatten(-1, (-1, 2))
    aligned = x.storage_offset() % 2 == 0 and all(stride % 2 == 0 for stride in pairs.stride()[:-1])
    if not aligned or pairs.stride(-1) != 1:
        pairs = pairs.contiguous()
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


def _turns(positions: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    # Angles in float64: at position 10^5 float32 angles are off by 10^-2.
    pairs = torch.arange(width // 2, dtype=torch.float64, device=positions.device)
    angles = positions.double()[:, None] * BASE ** (-2.0 * pairs / width)
    complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    return torch.polar(torch.ones_like(angles), angles).to(complex_dtype)


@functools.lru_cache(maxsize=16)
def _table(length: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept across calls: made inside inference_mode, it could not be used in training afterwards.
    with torch.inference_mode(False), torch.no_grad():
        return _turns(torch.arange(length, device=device), width, dtype)
