"""The gated feed-forward of a Hydra block.

The paper is arXiv 2504.07398; [P] marks its equations, [D] our decision where it is silent.
Shapes: T packed tokens, d model width, F hidden width.
"""

from torch import Tensor, nn

from user_model import ops
from user_model.layers import Linear


class GatedFeedForward(nn.Module):
    """W_down(SiLU(W_gate h) * W_up h): a gated linear unit [P], exact form [D].

    `up` holds W_gate and W_up, so that both are one matrix product.
    """

    def __init__(self, dim: int, hidden: int, backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        self.up = Linear(dim, 2 * hidden, bias=False, backend=backend)
        self.down = Linear(hidden, dim, bias=False, backend=backend)

    def forward(self, h_Td: Tensor) -> Tensor:
        """Map h [T, d] to [T, d]."""
        return self.down(ops.swiglu(self.up(h_Td), backend=self.backend))
