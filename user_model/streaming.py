"""What Hydra remembers of its users between events, and the heads' work on one event.

A state has a fixed size, whatever the length of the history behind it: for each layer the state of
the scan and the last inputs of the convolution, and for each user the number of events seen.
Position counts from the user's first kept event, in training and here alike (our choice; the paper
leaves it open), and RoPE is absolute: the next event's position is that number.

The step works on plain [n, ...] tensors, without packing or plans: at one event a user an op's
checks and index lists would cost more than its arithmetic. The recurrence is the paper's Mamba-2
head for one token; to do it this way is our choice.

Shapes: n users, L layers, d model width, V heads, P width of a head, N state, K = P + 2 N channels
a head of the convolution, T packed tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# As in the scan: above it softplus(v) is v to the last bit of float64.
_SOFTPLUS_LINEAR_ABOVE = 40.0


class LayerState(NamedTuple):
    """What one layer remembers.

    Attributes:
        scan: state of the scan [n, V, N, P], float32 at least.
        tails: the last inputs of the convolution [n, 3, V, K], oldest first.
        sums: sum of what the block has seen [n, d], float32 at least; None without history_mean.
    """

    scan: Tensor
    tails: Tensor
    sums: Tensor | None = None


@dataclass(frozen=True, eq=False)
class HydraState:
    """What a Hydra remembers of n users; made by `init_state`, `prefill` and `step`.

    Attributes:
        scans: L tensors [n, V, N, P], float32 at least.
        tails: L tensors [n, 3, V, K], oldest first, in the type of the model.
        positions: int64 [n], events seen; the position of the user's next one.
        times: int64 [n], unix seconds of the last one; None where the model has no time_gaps.
        sums: L tensors [n, d], float32 at least; none where the model has no history_mean.
    """

    scans: tuple[Tensor, ...]
    tails: tuple[Tensor, ...]
    positions: Tensor
    times: Tensor | None = None
    sums: tuple[Tensor, ...] = ()

    @property
    def n_users(self) -> int:
        """Number of users n."""
        return len(self.positions)

    @property
    def layers(self) -> tuple[LayerState, ...]:
        """The state by layer."""
        sums = self.sums or [None] * len(self.scans)
        return tuple(map(LayerState, self.scans, self.tails, sums))

    @property
    def bytes_per_user(self) -> int:
        """Bytes that one user's state takes."""
        return sum(t.element_size() * t.shape[1:].numel() for t in self.to_dict().values())

    @classmethod
    def of_layers(
        cls, layers: list[LayerState], positions: Tensor, times: Tensor | None = None
    ) -> HydraState:
        """Put together what each layer remembers."""
        sums = tuple(s.sums for s in layers if s.sums is not None)
        scans, tails = tuple(s.scan for s in layers), tuple(s.tails for s in layers)
        return cls(scans, tails, positions, times, sums)

    def select(self, rows: Tensor) -> HydraState:
        """Return the state of the users at `rows`, int64 [m], in that order, as a copy."""
        return self._map(lambda t: t.index_select(0, rows))

    def detach(self) -> HydraState:
        """Return the state without the graph that computed it."""
        return self._map(Tensor.detach)

    def to(self, device: torch.device | str) -> HydraState:
        """Return the state on this device; its types stay, as the model's do."""
        return self._map(lambda t: t.to(device))

    def to_dict(self) -> dict[str, Tensor]:
        """Return a flat dict of tensors, such as safetensors saves; row i of each is user i."""
        named = {f"layers.{i}.scan": t for i, t in enumerate(self.scans)}
        named |= {f"layers.{i}.tails": t for i, t in enumerate(self.tails)}
        named |= {f"layers.{i}.sums": t for i, t in enumerate(self.sums)}
        named |= {} if self.times is None else {"times": self.times}
        return named | {"positions": self.positions}

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> HydraState:
        """Return the state that `to_dict` turned into these tensors.

        Raises:
            ValueError: names are missing, or there are others; the model that the state is given
                to checks the shapes.
        """
        others = {"positions"} | (tensors.keys() & {"times"})
        parts = ["scan", "tails"] + ["sums"] * ("layers.0.sums" in tensors)
        layers = range((len(tensors) - len(others)) // len(parts))
        names = {part: [f"layers.{i}.{part}" for i in layers] for part in parts}
        expected = {*others, *chain.from_iterable(names.values())}
        if set(tensors) != expected:
            raise ValueError(
                f"state: got tensors {sorted(tensors)}, expected {sorted(expected)}; "
                "pass the dict that HydraState.to_dict() returned"
            )
        scans, tails, *sums = (tuple(tensors[name] for name in names[part]) for part in parts)
        return cls(scans, tails, tensors["positions"], tensors.get("times"), *sums)

    def check(self, n_users: int, expected: HydraState) -> None:
        """Raise ValueError unless this is a state of `n_users` users, otherwise like `expected`."""
        got, wanted = self.to_dict(), expected.to_dict()
        if (self.times is None) != (expected.times is None):
            raise ValueError(
                f"state: got one {'without' if self.times is None else 'with'} times, expected "
                "the other; pass a state of this model, whose time_gaps decides"
            )
        if bool(self.sums) != bool(expected.sums):
            raise ValueError(
                f"state: got one {'with' if self.sums else 'without'} sums, expected the other; "
                "pass a state of this model, whose history_mean decides"
            )
        if got.keys() != wanted.keys():
            raise ValueError(
                f"state: got {len(self.scans)} layers, expected {len(expected.scans)}; pass a "
                "state of this model"
            )
        for name, want in wanted.items():
            have, shape = got[name], (n_users, *want.shape[1:])
            if (have.shape, have.dtype, have.device) != (shape, want.dtype, want.device):
                raise ValueError(
                    f"state: {name}: got {have.dtype} {list(have.shape)} on {have.device}, "
                    f"expected {want.dtype} {list(shape)} on {want.device}; pass a state of this "
                    "model with a row for each user"
                )

    def _map(self, change: Callable[[Tensor], Tensor]) -> HydraState:
        times = None if self.times is None else change(self.times)
        scans, tails = tuple(map(change, self.scans)), tuple(map(change, self.tails))
        return HydraState(
            scans, tails, change(self.positions), times, tuple(map(change, self.sums))
        )


def conv_step(
    x_nVK: Tensor, tails_n3VK: Tensor, weight_VK4: Tensor, bias_VK: Tensor
) -> tuple[Tensor, Tensor]:
    """Convolve one token of each user, then SiLU; return the result and the tails after it."""
    taps_4VK = weight_VK4.permute(2, 0, 1).contiguous()
    y_nVK = torch.addcmul(bias_VK, x_nVK, taps_4VK[-1])
    for before_nVK, tap_VK in zip(tails_n3VK.unbind(1), taps_4VK[:-1], strict=True):
        y_nVK = torch.addcmul(y_nVK, before_nVK, tap_VK)
    return functional.silu(y_nVK), torch.cat((tails_n3VK[:, 1:], x_nVK[:, None]), 1)


def scan_step(
    x_nVP: Tensor,
    dt_nV: Tensor,
    A_V: Tensor,
    B_nVN: Tensor,
    C_nVN: Tensor,
    D_V: Tensor,
    dt_bias_V: Tensor,
    state_nVNP: Tensor,
) -> tuple[Tensor, Tensor]:
    """Run one token of the scan: h = exp(s A) h + s B x^T, y = h^T C + D x; return y and h."""
    dtype = state_nVNP.dtype
    x, B, C = x_nVP.to(dtype), B_nVN.to(dtype), C_nVN.to(dtype)
    s_nV = functional.softplus(dt_nV.to(dtype) + dt_bias_V, threshold=_SOFTPLUS_LINEAR_ABOVE)
    decay_nV = torch.exp(s_nV * A_V)
    state_nVNP = torch.addcmul(
        state_nVNP * decay_nV[..., None, None], (s_nV[..., None] * B)[..., None], x[..., None, :]
    )
    y_nVP = torch.matmul(C[..., None, :], state_nVNP).squeeze(-2) + D_V[:, None] * x
    return y_nVP.to(x_nVP.dtype), state_nVNP
