"""A linear map of its own for each head.

As one batched product, or compiled: a library's product is made for larger matrices, and stalls
where its results leave the caches. Below float32 PyTorch's product runs.

Shapes: T tokens, H heads, P inputs and M outputs of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from user_model.ops.backends import runs_compiled_if

# Bytes of a result from which on the compiled form is the faster one (1.3 to 2.5 times forward and
# backward, on a Zen 4 with 1 MiB of second cache); below it a batched product is, up to 2 times.
LEAST_COMPILED = 4 << 20


def grouped_linear(x: Tensor, weight: Tensor, *, backend: str = "auto") -> Tensor:
    """Return x[t, h] @ weight[h] for every token and head.

    Args:
        x: [T, H, P], floating point.
        weight: [H, P, M], of x's type.
        backend: "torch" (one batched product), "cpu" (compiled) or "auto": by device and by the
            size of the result.

    Returns:
        [T, H, M]; in memory the heads come first, [H, T, M].

    Raises:
        ValueError: shapes, types or the backend are not as described.
    """
    if x.dim() != 3 or weight.dim() != 3 or x.shape[1:] != weight.shape[:2]:
        raise ValueError(
            f"grouped_linear: got x {list(x.shape)}, weight {list(weight.shape)}, "
            "expected [T, H, P] and [H, P, M]"
        )
    if weight.dtype != x.dtype:
        raise ValueError(
            f"grouped_linear: weight: got {weight.dtype}, expected {x.dtype}, the type of x"
        )
    result_bytes = x.shape[0] * weight.shape[0] * weight.shape[2] * x.dtype.itemsize
    if runs_compiled_if(result_bytes >= LEAST_COMPILED, "grouped_linear", backend, x):
        from user_model.ops import grouped_linear_cpu

        return grouped_linear_cpu.grouped_linear(x, weight)
    return torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)
