"""Hydra: multi-head latent interaction of a selective scan and a rotated item stream.

The paper is arXiv 2504.07398; [P] marks its equations, [D] our decision where it is silent.
Shapes: T packed tokens, S sequences, d model width, V heads, P width of a head (d_c), N state.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from user_model import ops
from user_model.dropout import TokenDropout
from user_model.heads import FullHeads, LeanHeads
from user_model.sequence import check_packed


class HydraConfig(BaseModel):
    """Shape of a Hydra user model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(64, gt=0, description="Model width d; also the width of the item vectors.")
    layers: int = Field(2, ge=1, description="Number of Hydra blocks.")
    heads: int = Field(4, ge=1, description="Heads v of the latent interaction.")
    head_dim: int | None = Field(
        None, ge=2, description="Width d_c of a head, even for RoPE; null = dim / 4."
    )
    state_dim: int | None = Field(None, ge=1, description="State N of a head; null = head_dim.")
    head: Literal["full", "lean"] = Field(
        "full", description="full: Mamba-2 as published; lean: conv and scan, gated by Z alone."
    )
    ffn_dim: int | None = Field(
        None, ge=1, description="Hidden width of the gated linear unit; null = 2 x dim."
    )
    dropout: float = Field(0.2, ge=0.0, lt=1.0, description="Dropout of inputs and of branches.")
    backend: str = Field("auto", description="Backend of the ops; an absent one raises.")

    @property
    def head_width(self) -> int:
        """Width d_c of a head: `head_dim`, or d / 4 [P]."""
        return self.head_dim if self.head_dim is not None else self.dim // 4

    @property
    def state_width(self) -> int:
        """State N of a head: `state_dim`, or d_c [D]."""
        return self.state_dim if self.state_dim is not None else self.head_width

    @property
    def ffn_width(self) -> int:
        """Hidden width of the gated linear unit: `ffn_dim`, or 2 d [D]."""
        return self.ffn_dim if self.ffn_dim is not None else 2 * self.dim

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        width, heads = self.head_width, self.heads
        if width % 2 or width < 2:
            raise ValueError(
                f"head_dim: got {width} (dim {self.dim}), expected an even number of 2 or more, "
                "since RoPE turns pairs; set head_dim, or make dim a multiple of 8"
            )
        if heads * width**2 >= self.dim**2:
            raise ValueError(
                f"heads, head_dim: got {heads} x {width}^2 = {heads * width**2}, expected less "
                f"than dim^2 = {self.dim**2}, or the heads cost more than they save; "
                "use fewer or narrower heads"
            )
        return self


class GatedFeedForward(nn.Module):
    """W_down(SiLU(W_gate h) * W_up h): a gated linear unit [P], exact form [D]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, h_Td: Tensor) -> Tensor:
        """Map h [T, d] to [T, d]."""
        gate_TF, up_TF = self.up(h_Td).chunk(2, dim=-1)
        return self.down(functional.silu(gate_TF) * up_TF)


class HydraBlock(nn.Module):
    """Pre-norm latent interaction, then pre-norm feed-forward, each with a residual [D]."""

    def __init__(self, config: HydraConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads, self.width = config.heads, config.head_width
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.input = nn.Linear(config.dim, 2 * inner, bias=False)
        heads = FullHeads if config.head == "full" else LeanHeads
        self.interaction = heads(config.heads, config.head_width, config.state_width)
        self.output = nn.Linear(inner, config.dim, bias=False)
        self.ffn_norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.ffn = GatedFeedForward(config.dim, config.ffn_width)
        self.dropout = TokenDropout(config.dropout)
        self.ffn_dropout = TokenDropout(config.dropout)

    def forward(self, h_Td: Tensor, cu_seqlens: Tensor, plan: ops.Plan, backend: str) -> Tensor:
        """Map h [T, d] to [T, d]; nothing crosses the seams of cu_seqlens [S + 1]."""
        streams = functional.silu(self.input(self.norm(h_Td)))
        x_TVP, z_TVP = streams.view(len(h_Td), 2, self.heads, self.width).unbind(1)
        mixed_TVP = self.interaction(x_TVP, z_TVP, cu_seqlens, plan, backend)
        h_Td = h_Td + self.dropout(self.output(mixed_TVP.flatten(1)))
        return h_Td + self.ffn_dropout(self.ffn(self.ffn_norm(h_Td)))


class Hydra(nn.Module):
    """The Hydra user model: `layers` blocks over RMSNorm(Dropout(item vectors)) [P].

    Called with packed item vectors float [T, d] and their seams int64 [S + 1] (running sum of the
    lengths), it returns the user's vector after each item, [T, d], not normalised. Item t of a
    sequence has position t: counted from the first kept event.
    """

    def __init__(self, config: HydraConfig) -> None:
        super().__init__()
        self.config = config
        self.input_dropout = TokenDropout(config.dropout)
        self.input_norm = nn.RMSNorm(config.dim, eps=1e-6)
        self.blocks = nn.ModuleList(HydraBlock(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dim, eps=1e-6)

    def forward(self, vectors_Td: Tensor, cu_seqlens: Tensor) -> Tensor:
        """Return user vectors [T, d].

        Raises:
            ValueError: where the width of the vectors or the seams do not fit.
        """
        check_packed(vectors_Td, cu_seqlens, self.config.dim)
        plan = ops.plan(cu_seqlens)
        h_Td = self.input_norm(self.input_dropout(vectors_Td))
        for block in self.blocks:
            h_Td = block(h_Td, cu_seqlens, plan, self.config.backend)
        return self.norm(h_Td)
