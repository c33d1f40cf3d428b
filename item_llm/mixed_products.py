"""Matrix products in bfloat16 on a model whose weights and activations are float32.

Processors with native bfloat16 (AVX512-BF16, AMX) multiply it some times faster than float32. Only
the inputs of the products are rounded: sums, residuals, norms and attention stay in float32, which
keeps an encoder's vectors nearer to float32's than a model that is bfloat16 throughout.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class MixedLinear(nn.Module):
    """y = W x + b with W and x rounded to bfloat16; x and y float32 [..., d]."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().to(torch.bfloat16))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply; without gradients."""
        y = F.linear(x.to(torch.bfloat16), self.get_buffer("weight")).float()
        return y if self.bias is None else y.add_(self.bias)


def use_mixed_products(model: nn.Module) -> None:
    """Replace every linear layer of a frozen float32 model, in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, MixedLinear(child))
