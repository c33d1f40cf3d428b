"""Running sums on a CPU: one pass over memory.

Shapes: T packed tokens, d columns.
"""

from __future__ import annotations

from torch import Tensor

from user_model.ops import running_sum_cpu_kernels as kernels


def running_sum(x: Tensor, at_T: Tensor, *, back: bool) -> Tensor:
    """Do what `running_sum._running_sum` does, for float32 and float64 [T, ...]."""
    values = x.detach().contiguous()
    sums = values.new_empty(values.shape)
    if values.numel():
        arrays = (values.view(len(x), -1), at_T.contiguous(), sums.view(len(x), -1))
        (kernels.sum_back if back else kernels.sum_on)(*(array.numpy() for array in arrays))
    return sums
