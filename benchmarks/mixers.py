"""The two mixers that `benchmarks.scan` compares: Hydra's, of the product's block, and attention.

Both map packed tokens of equal-length sequences, [T, d] to [T, d], without norm, dropout and
residual, and with the same gated linear unit after them where it is asked for.

Shapes: T tokens, S sequences, L tokens a sequence, d model width, V heads, P head width.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from user_model import HydraConfig, ops
from user_model.feed_forward import GatedFeedForward
from user_model.heads import Packed
from user_model.hydra import HydraBlock
from user_model.layers import Linear

DIM, HEADS, WIDTH = 128, 4, 32
Head = Literal["lean", "full"]


class HydraMixer(nn.Module):
    """A Hydra block's own projections, SiLU, heads and output; its norms are left out."""

    def __init__(self, head: Head, length: int, sequences: int, *, glu: bool = False) -> None:
        """Make it, on the compiled CPU backend.

        Args:
            head: of the block.
            length: L.
            sequences: S.
            glu: whether the block's gated linear unit follows.
        """
        super().__init__()
        torch.manual_seed(0)
        config = HydraConfig(dim=DIM, heads=HEADS, head_dim=WIDTH, head=head, dropout=0.0)
        self.block = HydraBlock(config)
        self.block.register_module("norm", nn.Identity())
        self.block.register_module("ffn_norm", nn.Identity())
        if not glu:
            self.block.register_module("ffn", nn.Identity())
        seams = torch.arange(sequences + 1) * length
        self.packed = Packed(seams, ops.plan(seams), "cpu")

    def forward(self, u_Td: Tensor) -> Tensor:
        """Map u [T, d] to [T, d]."""
        x_TVP, z_TVP = self.block._streams(u_Td)
        mixed_TVP, _ = self.block.interaction(x_TVP, z_TVP, self.packed)
        y_Td: Tensor = self.block.ffn(self.block.output(mixed_TVP.flatten(1)))
        return y_Td


class AttentionMixer(nn.Module):
    """One product for q, k and v, torch's causal scaled_dot_product_attention, one product.

    Its products are as fast as Hydra's: both are `user_model.layers.Linear`.
    """

    def __init__(self, length: int, *, glu: bool = False) -> None:
        """Make it for sequences of L tokens."""
        super().__init__()
        torch.manual_seed(0)
        self.length = length
        self.qkv, self.output = Linear(DIM, 3 * DIM, bias=False), Linear(DIM, DIM, bias=False)
        self.ffn = GatedFeedForward(DIM, HydraConfig(dim=DIM).ffn_width) if glu else nn.Identity()

    def forward(self, u_Td: Tensor) -> Tensor:
        """Map u [T, d] to [T, d]."""
        qkv = self.qkv(u_Td).view(-1, self.length, 3, HEADS, WIDTH)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        mixed_SVLP = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y_Td: Tensor = self.ffn(self.output(mixed_SVLP.transpose(1, 2).reshape(-1, DIM)))
        return y_Td


def tokens(length: int, sequences: int) -> tuple[Tensor, Tensor]:
    """Return u [T, d], a leaf, and a cotangent of a mixer's result [T, d]."""
    generator = torch.Generator().manual_seed(1)
    u_Td = torch.randn(length * sequences, DIM, generator=generator)
    return u_Td.requires_grad_(), torch.randn(u_Td.shape, generator=generator)


def forward_backward(mixer: nn.Module, u_Td: Tensor, dy_Td: Tensor) -> dict[str, Tensor]:
    """Return a mixer's result and the gradients of its input and of every parameter."""
    parameters = dict(mixer.named_parameters())
    y_Td = mixer(u_Td)
    gradients = torch.autograd.grad(y_Td, [u_Td, *parameters.values()], dy_Td)
    named = {f"d{name}": g for name, g in zip(["u", *parameters], gradients, strict=True)}
    return {"y": y_Td.detach()} | named
