"""The layers of the user models that torch has too: the same parameters, run by our ops.

Shapes: T packed tokens (or users with one event each), I inputs and O outputs of a map, d width.
"""

from torch import Tensor, nn

from user_model import ops


class Linear(nn.Linear):
    """torch.nn.Linear for [T, I], by `ops.linear`."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, backend: str = "auto"
    ) -> None:
        super().__init__(inputs, outputs, bias)
        self.backend = backend

    def forward(self, x_TI: Tensor) -> Tensor:
        """Map x [T, I] to [T, O]."""
        return ops.linear(x_TI, self.weight, self.bias, backend=self.backend)


class RMSNorm(nn.RMSNorm):
    """torch.nn.RMSNorm for [T, d], by `ops.rms_norm`."""

    def __init__(self, dim: int, *, eps: float, backend: str = "auto") -> None:
        super().__init__(dim, eps=eps)
        self.backend = backend

    def forward(self, x_Td: Tensor) -> Tensor:
        """Map x [T, d] to [T, d]."""
        assert self.eps is not None
        return ops.rms_norm(x_Td, self.weight, self.eps, backend=self.backend)
