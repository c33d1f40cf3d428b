"""Hydra: multi-head latent interaction of a selective scan and a rotated item stream.

The paper is arXiv 2504.07398; [P] marks its equations, [D] our decision where it is silent.
Shapes: T packed tokens, S sequences, n users with one event each, d model width, V heads, P width
of a head (d_c), R = P/2 rotated pairs, N state.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from user_model import ops
from user_model.dropout import TokenDropout
from user_model.feed_forward import GatedFeedForward
from user_model.heads import CONV_WIDTH, FullHeads, LeanHeads, Packed
from user_model.history_mean import HistoryMean
from user_model.layers import Linear, RMSNorm
from user_model.mamba1_heads import Mamba1Heads
from user_model.ops.rotary import rotate, turns_at
from user_model.sequence import check_packed, sequence_lengths
from user_model.streaming import HydraState, LayerState
from user_model.time_gaps import (
    GAP_BUCKETS,
    NO_EVENT,
    check_times,
    gap_buckets,
    last_times,
    log_gaps,
    packed_gaps,
)


class HydraConfig(BaseModel):
    """Shape of a Hydra user model."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    CAME_LATER: ClassVar[Mapping[str, Any]] = {"history_mean": False}

    dim: int = Field(64, gt=0, description="Model width d; also the width of the item vectors.")
    layers: int = Field(2, ge=1, description="Number of Hydra blocks.")
    heads: int = Field(4, ge=1, description="Heads v of the latent interaction.")
    head_dim: int | None = Field(
        None, ge=2, description="Width d_c of a head, even for RoPE; null = dim / 4."
    )
    state_dim: int | None = Field(None, ge=1, description="State N of a head; null = head_dim.")
    head: Literal["full", "lean", "mamba1"] = Field(
        "full",
        description="full: Mamba-2 as published; lean: conv and scan, gated by Z alone; mamba1: "
        "Mamba-1, slow, for ablations.",
    )
    interaction: bool = Field(
        True, description="Multiply the heads' results by the item stream Z; false: an ablation."
    )
    rope: bool = Field(
        True, description="Turn Z by its event's position (RoPE); false: an ablation."
    )
    ffn_dim: int | None = Field(
        None, ge=1, description="Hidden width of the gated linear unit; null = 2 x dim."
    )
    history_mean: bool = Field(
        False,
        description="Add to each block a linear map of the mean of the user's events so far: it "
        "learns faster and better from short histories.",
    )
    time_gaps: bool = Field(
        False,
        description="Time channel: the log of the gap before each event goes into its heads' dt, "
        "and a vector of the gap's bucket into its input.",
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

    @property
    def conv_channels(self) -> int:
        """Channels of a head's convolution: x, B and C, or with Mamba-1 heads x alone."""
        return self.head_width + (0 if self.head == "mamba1" else 2 * self.state_width)

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

    @model_validator(mode="after")
    def _check_time_gaps(self) -> Self:
        if self.time_gaps and self.head == "mamba1":
            raise ValueError(
                "time_gaps: got true with head: mamba1, expected false; its steps are of channels "
                "and the time channel is of heads: use head: full or lean"
            )
        return self


class HydraBlock(nn.Module):
    """Pre-norm latent interaction, then pre-norm feed-forward, each with a residual [D]."""

    def __init__(self, config: HydraConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads, self.width, self.rope = config.heads, config.head_width, config.rope
        self.streams = 2 if config.interaction else 1
        self.norm = RMSNorm(config.dim, eps=1e-6, backend=config.backend)
        self.input = Linear(config.dim, self.streams * inner, bias=False, backend=config.backend)
        self.interaction = _heads(config)
        self.output = Linear(inner, config.dim, bias=False, backend=config.backend)
        self.history_mean = HistoryMean(config.dim, config.backend) if config.history_mean else None
        self.ffn_norm = RMSNorm(config.dim, eps=1e-6, backend=config.backend)
        self.ffn = GatedFeedForward(config.dim, config.ffn_width, config.backend)
        self.dropout = TokenDropout(config.dropout)
        self.ffn_dropout = TokenDropout(config.dropout)

    def forward(
        self,
        h_Td: Tensor,
        cu_seqlens: Tensor,
        plan: ops.Plan,
        backend: str,
        gaps_T: Tensor | None = None,
    ) -> Tensor:
        """Map h [T, d] to [T, d]; nothing crosses the seams of cu_seqlens [S + 1]."""
        return self.extend(h_Td, Packed(cu_seqlens, plan, backend, gaps=gaps_T))[0]

    def extend(self, h_Td: Tensor, packed: Packed) -> tuple[Tensor, LayerState | None]:
        """Do the same from the state in `packed`; return the state after it too, if asked for."""
        normed_Td = self.norm(h_Td)
        x_TVP, z_TVP = self._streams(normed_Td)
        mixed_TVP, state = self.interaction(x_TVP, z_TVP, packed)
        mixed_Td = self.output(mixed_TVP.flatten(1))
        if self.history_mean is not None:
            mean_Td, sums_Sd = self.history_mean(normed_Td, packed)
            mixed_Td = mixed_Td + mean_Td
            state = None if state is None else state._replace(sums=sums_Sd)
        return self._finish(h_Td, mixed_Td), state

    def step(
        self, h_nd: Tensor, at_n: Tensor, turns_nR: Tensor, state: LayerState, gaps_n: Tensor | None
    ) -> tuple[Tensor, LayerState]:
        """Do the same with one event of each user at positions at_n, where RoPE is turns_nR."""
        normed_nd = self.norm(h_nd)
        x_nVP, z_nVP = self._streams(normed_nd)
        if z_nVP is not None:
            z_nVP = functional.silu(z_nVP)
            z_nVP = rotate(z_nVP, turns_nR) if self.rope else z_nVP
        mixed_nVP, after = self.interaction.step(x_nVP, z_nVP, state, gaps_n)
        mixed_nd = self.output(mixed_nVP.flatten(1))
        if self.history_mean is not None:
            mean_nd, sums_nd = self.history_mean.step(normed_nd, at_n, state.sums)
            mixed_nd, after = mixed_nd + mean_nd, after._replace(sums=sums_nd)
        return self._finish(h_nd, mixed_nd), after

    def _streams(self, normed_Td: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return X = SiLU(W_X n) and W_Z n, [T, V, P] each; the heads apply SiLU to the latter."""
        shape = (normed_Td.shape[0], self.streams, self.heads, self.width)
        x_TVP, *z_TVP = self.input(normed_Td).view(shape).unbind(1)
        return functional.silu(x_TVP), z_TVP[0] if z_TVP else None

    def _finish(self, h_Td: Tensor, mixed_Td: Tensor) -> Tensor:
        h_Td = h_Td + self.dropout(mixed_Td)
        return h_Td + self.ffn_dropout(self.ffn(self.ffn_norm(h_Td)))


def _heads(config: HydraConfig) -> FullHeads | LeanHeads | Mamba1Heads:
    shape = config.heads, config.head_width, config.state_width
    if config.head == "mamba1":
        return Mamba1Heads(*shape, rope=config.rope)
    form = FullHeads if config.head == "full" else LeanHeads
    return form(*shape, time_gaps=config.time_gaps, rope=config.rope)


class Hydra(nn.Module):
    """The Hydra user model: `layers` blocks over RMSNorm(Dropout(item vectors)) [P].

    Called with packed item vectors float [T, d] and their seams int64 [S + 1] (running sum of the
    lengths), it returns the user's vector after each item, [T, d], not normalised. Item t of a
    sequence has position t: counted from the first kept event. With time_gaps it takes the events'
    times too, int64 [T], unix seconds.
    """

    def __init__(self, config: HydraConfig) -> None:
        super().__init__()
        self.config, self.reads_times = config, config.time_gaps
        self.input_dropout = TokenDropout(config.dropout)
        self.input_norm = RMSNorm(config.dim, eps=1e-6, backend=config.backend)
        self.gap_vectors: nn.Parameter | None = None
        if config.time_gaps:
            self.gap_vectors = nn.Parameter(torch.zeros(GAP_BUCKETS, config.dim))
        self.blocks = nn.ModuleList(HydraBlock(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.dim, eps=1e-6, backend=config.backend)

    def forward(
        self, vectors_Td: Tensor, cu_seqlens: Tensor, times_T: Tensor | None = None
    ) -> Tensor:
        """Return user vectors [T, d].

        Raises:
            ValueError: where the width of the vectors, the seams or the times do not fit.
        """
        check_packed(vectors_Td, cu_seqlens, self.config.dim)
        check_times(times_T, vectors_Td.shape[:1], wanted=self.reads_times)
        gaps_T, plan = self._gaps(times_T, cu_seqlens), ops.plan(cu_seqlens)
        h_Td = self._inputs(vectors_Td, gaps_T)
        for block in self.blocks:
            h_Td = block(h_Td, cu_seqlens, plan, self.config.backend, gaps_T)
        return self.norm(h_Td)

    def init_state(self, n_users: int) -> HydraState:
        """Return the state of users without events, of the model's type and on its device."""
        config, weight = self.config, self.norm.weight
        V, P, N = config.heads, config.head_width, config.state_width
        precise = torch.promote_types(weight.dtype, torch.float32)
        layers = [
            LayerState(
                weight.new_zeros(n_users, V, N, P, dtype=precise),
                weight.new_zeros(n_users, CONV_WIDTH - 1, V, config.conv_channels),
                weight.new_zeros(n_users, config.dim, dtype=precise)
                if config.history_mean
                else None,
            )
            for _ in self.blocks
        ]
        positions = weight.new_zeros(n_users, dtype=torch.int64)
        times = torch.full_like(positions, NO_EVENT) if self.reads_times else None
        return HydraState.of_layers(layers, positions, times)

    def prefill(
        self,
        vectors: Tensor,
        cu_seqlens: Tensor,
        state: HydraState | None = None,
        times: Tensor | None = None,
    ) -> HydraState:
        """Return the state after whole histories, in one pass: `extend` without user vectors."""
        return self.extend(vectors, cu_seqlens, state, times)[1]

    def extend(
        self,
        vectors: Tensor,
        cu_seqlens: Tensor,
        state: HydraState | None = None,
        times: Tensor | None = None,
    ) -> tuple[Tensor, HydraState]:
        """Continue n users by any number of events each, none included.

        The user vectors are those that one call over the whole histories would give for these
        events. Differentiable, through the state too.

        Args:
            vectors: item vectors of the new events, packed, [T, d].
            cu_seqlens: their seams, int64 [n + 1].
            state: after the earlier events; None: there are none.
            times: int64 [T], unix seconds of the new events; needed with time_gaps.

        Returns:
            The user's vector after each event, [T, d], and the state after the last one.

        Raises:
            ValueError: a shape, a type or a device does not fit.
        """
        check_packed(vectors, cu_seqlens, self.config.dim)
        check_times(times, vectors.shape[:1], wanted=self.reads_times)
        lengths = sequence_lengths(cu_seqlens)
        if state is not None:
            state.check(len(lengths), self.init_state(0))
        packed = Packed(
            cu_seqlens, ops.plan(cu_seqlens), self.config.backend, keep_state=True,
            position_offset=None if state is None else state.positions,
            gaps=self._gaps(times, cu_seqlens, state),
        )  # fmt: skip
        h_Td, layers = self._inputs(vectors, packed.gaps), []
        for i, block in enumerate(self._hydra_blocks()):
            before = None if state is None else state.layers[i]
            h_Td, after = block.extend(h_Td, replace(packed, state=before))
            assert after is not None
            layers.append(after)
        positions = lengths if state is None else state.positions + lengths
        last = None
        if self.reads_times and times is not None:
            last = last_times(times, cu_seqlens, None if state is None else state.times)
        return self.norm(h_Td), HydraState.of_layers(layers, positions, last)

    def step(
        self, state: HydraState, vector: Tensor, times: Tensor | None = None
    ) -> tuple[HydraState, Tensor]:
        """Continue n users by one event each; the cost does not depend on what came before.

        Equal to `extend` with sequences of one event. Differentiable; serve under torch.no_grad.

        Args:
            state: of n users.
            vector: item vectors of their new events, [n, d].
            times: int64 [n], unix seconds of the new events; needed with time_gaps. The state knows
                those of the events before, so that the gap is found here.

        Returns:
            The state after the event, and the users' vectors [n, d].

        Raises:
            ValueError: a shape, a type or a device does not fit.
        """
        if vector.dim() != 2 or vector.shape[1] != self.config.dim:
            raise ValueError(
                f"vector: got shape {list(vector.shape)}, expected [users, {self.config.dim}], "
                "the item vector of each user's event"
            )
        check_times(times, vector.shape[:1], wanted=self.reads_times)
        state.check(vector.shape[0], self.init_state(0))
        gaps_n = None
        if self.reads_times and times is not None and state.times is not None:
            gaps_n = log_gaps(torch.where(state.times == NO_EVENT, 0, times - state.times))
        h_nd = self._inputs(vector, gaps_n)
        double = h_nd.dtype == torch.float64
        turns_nR = turns_at(state.positions, self.config.head_width, double=double)
        layers = []
        for block, before in zip(self._hydra_blocks(), state.layers, strict=True):
            h_nd, after = block.step(h_nd, state.positions, turns_nR, before, gaps_n)
            layers.append(after)
        last = times if self.reads_times else None
        return HydraState.of_layers(layers, state.positions + 1, last), self.norm(h_nd)

    def _gaps(
        self, times_T: Tensor | None, cu_seqlens: Tensor, state: HydraState | None = None
    ) -> Tensor | None:
        """The time channel of packed events, [T]; None without time_gaps."""
        if not self.reads_times or times_T is None:
            return None
        return packed_gaps(times_T, cu_seqlens, None if state is None else state.times)

    def _inputs(self, vectors_Td: Tensor, gaps_T: Tensor | None) -> Tensor:
        """RMSNorm(Dropout(item vectors)) [P], plus the vector of the gap before each event."""
        h_Td = self.input_norm(self.input_dropout(vectors_Td))
        if self.gap_vectors is None:
            return h_Td
        assert gaps_T is not None
        return h_Td + functional.embedding(gap_buckets(gaps_T), self.gap_vectors)

    def _hydra_blocks(self) -> list[HydraBlock]:
        return [block for block in self.blocks if isinstance(block, HydraBlock)]
