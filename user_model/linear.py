"""The linear maps of the user models.

Shapes: T packed tokens, n users with one event each, I inputs and O outputs of a map.
"""

from torch import Tensor, nn

from user_model import ops


class Linear(nn.Linear):
    """torch.nn.Linear for [T, I], by `ops.linear`: the same parameters, drawn in the same way."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, backend: str = "auto"
    ) -> None:
        super().__init__(inputs, outputs, bias)
        self.backend = backend

    def forward(self, x_TI: Tensor) -> Tensor:
        """Map x [T, I] to [T, O]."""
        return ops.linear(x_TI, self.weight, self.bias, backend=self.backend)
