"""What the Triton backends ask of a device, and how Triton names types."""

from typing import Any

import torch
import triton
from torch import Tensor

from user_model.ops.backends import BackendUnavailableError

# Triton decides between compiler and interpreter when a kernel is decorated, which is when this
# module is imported too: later changes of the environment change neither.
INTERPRETED: bool = triton.knobs.runtime.interpret
NAMES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}

# What an op ships for the ahead-of-time gate: kernel, types of arguments, constants, warps, stages.
Signature = tuple[Any, dict[str, str], dict[str, Any], int, int]


def check_launchable(op: str, tensor: Tensor) -> None:
    """Raise BackendUnavailableError unless Triton can run on what `tensor` is.

    Args:
        op: name of the public function, for the message.
        tensor: one of its arguments, of the type and on the device that count.
    """
    if not INTERPRETED and not tensor.is_cuda:
        raise BackendUnavailableError(
            f"{op}: backend 'triton' needs tensors on a GPU, got {tensor.device}; use another "
            "backend, or set TRITON_INTERPRET=1 before Python starts (slow, for tests)"
        )
    if INTERPRETED and tensor.dtype == torch.bfloat16:
        raise BackendUnavailableError(
            f"{op}: backend 'triton': Triton's interpreter computes wrongly in bfloat16; use "
            "float32, float16 or float64, or unset TRITON_INTERPRET and use a GPU"
        )
