"""One linear map of all tokens.

PyTorch's product, or compiled where the batch is large and the weight small, as those of user
models are: tiles in registers and results past the caches are faster there than a library's.

Shapes: T tokens, I inputs and O outputs of the map.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from user_model.ops.backends import runs_compiled_if

# Bytes of the larger of input and result from which on the compiled form is the faster one, 1.1 to
# 1.4 times forward and backward on a Zen 4 (at 4 MiB, 0.9 to 1.1 times), and bytes of a weight to
# which it is: a larger one leaves the second cache (at 2 MiB, 1.0 times; at 4, 0.9).
LEAST_COMPILED, MOST_WEIGHT = 6 << 20, 1 << 20


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Return x @ weight.T + bias, as `torch.nn.functional.linear` does.

    Below float32 PyTorch's product runs.

    Args:
        x: [T, I], floating point.
        weight: [O, I], of x's type.
        bias: [O], of x's type; None adds nothing.
        backend: "torch", "cpu" (compiled) or "auto": by device and by the sizes of input,
            result and weight.

    Returns:
        [T, O].

    Raises:
        ValueError: shapes, types or the backend are not as described.
    """
    _check(x, weight, bias)
    small = weight.numel() * weight.dtype.itemsize <= MOST_WEIGHT
    # In this order: torch.export knows the weight's size, and must not ask for that of the batch.
    pays = small and x.shape[0] * max(weight.shape) * x.dtype.itemsize >= LEAST_COMPILED
    if runs_compiled_if(pays, "linear", backend, x):
        from user_model.ops import grouped_linear_cpu

        heads_bias = None if bias is None else bias[None]
        # By squeeze: the gradient of an index is copied into zeros.
        out = grouped_linear_cpu.grouped_linear(x[:, None], weight.mT[None], heads_bias)
        return out.squeeze(1)
    return functional.linear(x, weight, bias)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"linear: got x {list(x.shape)}, weight {list(weight.shape)}, "
            "expected [T, I] and [O, I]"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear: bias: got {list(bias.shape)}, expected [{weight.shape[0]}]")
    for name, values in (("weight", weight), ("bias", bias)):
        if values is not None and values.dtype != x.dtype:
            raise ValueError(
                f"linear: {name}: got {values.dtype}, expected {x.dtype}, the type of x"
            )
