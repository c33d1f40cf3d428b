"""Tensors as the CPU kernels take them: addresses and strides, and memory to work in.

Shapes: T tokens, S sequences, U units, H heads, K elements of a row.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from user_model.ops.cpu_rows import SLACK, Rows
from user_model.ops.lanes import PADDING, VECTOR_BYTES
from user_model.ops.rotary import turns_at

UNIT_TOKENS = 512
ZERO = {torch.float32: np.float32(0), torch.float64: np.float64(0)}
# Memory of the kernels that does not hold elements of their type: float64 or int64.
_EIGHT_BYTES = frozenset(
    {
        "value", "step", "log_decay", "decay", "weight", "starts", "segments", "scales", "flows",
        "direct", "ended", "back", "begun", "stepped", "slope", "lines",
    }
)  # fmt: skip


def padded(width: int) -> int:
    """Round a width up to whole vectors."""
    return -(-width // PADDING) * PADDING


def pad_columns(values: Tensor) -> Tensor:
    """Pad the last dimension to whole vectors with zeros; contiguous."""
    width = values.shape[-1]
    return F.pad(values, (0, padded(width) - width)).contiguous()


def unit_stride(values: Tensor) -> Tensor:
    """Return the tensor, or a copy whose last stride is 1."""
    return values if values.stride(-1) == 1 else values.contiguous()


def rows(values: Tensor | None) -> Rows:
    """Describe a tensor [T, H, K] of unit last stride; None is absent."""
    if values is None:
        return Rows(0, 0, 0)
    return Rows(values.data_ptr(), values.stride(0), values.stride(1))


def address(values: Tensor | None) -> int:
    """Return where a contiguous tensor lies; 0 for None."""
    if values is None:
        return 0
    assert values.is_contiguous()
    return values.data_ptr()


def allocate(
    kind: Any, sizes: dict[str, int], dtype: torch.dtype, slots: int = 1
) -> tuple[Any, Tensor]:
    """Return memory: a NamedTuple `kind` of addresses, and what keeps the memory alive.

    It is zeroed, but for `marks`: these are written before they are read, and there is room for
    many more than are ever touched.

    Args:
        kind: called with an address for each name of `sizes`, and slot_bytes.
        sizes: number of elements of each part.
        dtype: type of the elements, but for the float64 and int64 parts.
        slots: how many sets of the parts stand one after the other, slot_bytes apart.
    """
    places, end, zeroed = {}, 0, 0
    for name in sorted(sizes, key=lambda name: name == "marks"):
        places[name] = end
        item = 8 if name in _EIGHT_BYTES else dtype.itemsize
        end += -(-(sizes[name] + SLACK) * item // VECTOR_BYTES) * VECTOR_BYTES
        zeroed = zeroed if name == "marks" else end
    assert slots == 1 or zeroed == end
    memory = torch.empty(slots * end + VECTOR_BYTES, dtype=torch.uint8)
    base = -(-memory.data_ptr() // VECTOR_BYTES) * VECTOR_BYTES
    memory[: (slots - 1) * end + zeroed + VECTOR_BYTES].zero_()
    return kind(**{name: base + at for name, at in places.items()}, slot_bytes=end), memory


def units_of(cu_seqlens: Tensor) -> Tensor:
    """Group whole sequences to about UNIT_TOKENS: int64 [U + 1], the first of each, and S.

    Whatever the number of threads, so that sums over units have the same bits.
    """
    number = cu_seqlens[:-1] // UNIT_TOKENS
    begins = torch.cat([number.new_ones(1), number.diff()])[: len(number)].nonzero()[:, 0]
    return torch.cat([begins, begins.new_tensor([len(number)])])


def turn_rows(positions: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Return RoPE's (cosine, sine) of each pair at these positions: [n, width padded]."""
    pairs = torch.view_as_real(turns_at(positions, width, double=dtype == torch.float64)).flatten(1)
    return pad_columns(pairs)


def turns_table(length: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return `turn_rows` of positions 0 .. length - 1 at least; tables are kept."""
    return _kept_table(max(64, 1 << (length - 1).bit_length()), width, dtype)


@functools.lru_cache(maxsize=16)
def _kept_table(length: int, width: int, dtype: torch.dtype) -> Tensor:
    return turn_rows(torch.arange(length), width, dtype)
