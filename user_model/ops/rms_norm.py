"""Root mean square norm: PyTorch's, which is a chain of passes on a CPU, or compiled, one pass.

Shapes: T tokens, d width.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from user_model.ops.backends import runs_compiled_if

# Bytes of a result from which on the compiled form runs: forward and backward 1.1 times as fast at
# 1 MiB, 3 times at 4 (a Zen 4).
LEAST_COMPILED = 2 << 20


def rms_norm(x: Tensor, weight: Tensor, eps: float, *, backend: str = "auto") -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight, the mean over the last dimension.

    Below float32 PyTorch's norm runs.

    Args:
        x: [T, d], floating point.
        weight: [d], of x's type.
        eps: added to the mean of squares.
        backend: "torch", "cpu" (compiled) or "auto": by device and by the size of the result.

    Returns:
        [T, d].

    Raises:
        ValueError: shapes, types or the backend are not as described.
    """
    if x.dim() != 2 or weight.shape != x.shape[1:]:
        raise ValueError(
            f"rms_norm: got x {list(x.shape)}, weight {list(weight.shape)}, expected [T, d] and [d]"
        )
    if weight.dtype != x.dtype:
        raise ValueError(f"rms_norm: weight: got {weight.dtype}, expected {x.dtype}, the type of x")
    large = x.numel() * x.dtype.itemsize >= LEAST_COMPILED
    if runs_compiled_if(large, "rms_norm", backend, x):
        from user_model.ops import rms_norm_cpu

        return rms_norm_cpu.rms_norm(x, weight, eps)
    return functional.rms_norm(x, x.shape[1:], weight, eps)
