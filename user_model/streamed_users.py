"""Users event by event, as scores take them: Hydra's state, and beside it that of the text channel.

`Recommender.user_vectors` in another form: of item vectors that are there already, without a table
of items, and going on from a state of fixed size. With a text channel (`user_model.text_channel`)
the state holds one more row a user, the decayed sum of the history's texts.

Shapes: n users, T packed tokens, d model width, t columns of the text channel, 0 without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from user_model.compiled_step import CompiledStep
from user_model.hydra import Hydra
from user_model.streaming import HydraState
from user_model.text_channel import last_sums, mean_of_sums

_TEXTS, _LAST = "texts", "last"


@dataclass(frozen=True)
class ChannelSettings:
    """A text channel in one domain: how fast the history's texts fade, and their weight."""

    width: int
    decay: float
    weight: float


@dataclass(frozen=True, eq=False)
class StreamedUsers:
    """All that is remembered of n users of one domain.

    Attributes:
        hydra: of the sequence model.
        texts: decayed sum of the texts so far, [n, t].
        last: the sequence model's vector after the last event, [n, d], not normalised.
    """

    hydra: HydraState
    texts: Tensor
    last: Tensor

    @property
    def n_users(self) -> int:
        """Number of users n."""
        return self.hydra.n_users

    @property
    def events(self) -> Tensor:
        """Events of each user so far, int64 [n]."""
        return self.hydra.positions

    @property
    def bytes_per_user(self) -> int:
        """Bytes that one user's state takes."""
        return sum(t.element_size() * t.shape[1:].numel() for t in self.to_dict().values())

    def select(self, rows: Tensor) -> StreamedUsers:
        """The state of the users at `rows`, int64 [m], in that order, as a copy."""
        return self.map(lambda tensor: tensor.index_select(0, rows))

    def map(self, change: Callable[[Tensor], Tensor]) -> StreamedUsers:
        """The state with each tensor changed, the users its rows."""
        return StreamedUsers.from_dict({name: change(t) for name, t in self.to_dict().items()})

    def to_dict(self) -> dict[str, Tensor]:
        """A flat dict of tensors, such as safetensors saves; row i of each is user i."""
        return {_TEXTS: self.texts, _LAST: self.last, **self.hydra.to_dict()}

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> StreamedUsers:
        """The state that `to_dict` turned into these tensors.

        Raises:
            ValueError: names are missing, or there are others.
        """
        own = {_TEXTS, _LAST}
        if missing := own - tensors.keys():
            raise ValueError(
                f"state: got no tensor {sorted(missing)[0]!r} among {sorted(tensors)}; pass the "
                "dict that StreamedUsers.to_dict() returned"
            )
        rest = {name: tensor for name, tensor in tensors.items() if name not in own}
        return cls(HydraState.from_dict(rest), tensors[_TEXTS], tensors[_LAST])


class UserStream:
    """A trained Hydra, with its text channel in one domain, that follows users.

    Args:
        hydra: in evaluation mode.
        channel: the text beside the learned vectors, in scores; None: there is none.
        normalise: as in `Recommender`.
        compiled: the compiled form of the model's step; None: the model's own, in torch.
    """

    def __init__(
        self,
        hydra: Hydra,
        channel: ChannelSettings | None,
        *,
        normalise: bool = True,
        compiled: CompiledStep | None = None,
    ) -> None:
        self.hydra, self.channel, self.normalise = hydra, channel, normalise
        self._step = hydra.step if compiled is None else compiled

    @property
    def text_width(self) -> int:
        """Columns t of the text channel."""
        return 0 if self.channel is None else self.channel.width

    @property
    def width(self) -> int:
        """Columns of a user's vector as scores take it, d + t."""
        return self.hydra.config.dim + self.text_width

    def start(self, n_users: int) -> StreamedUsers:
        """The state of users without events."""
        hydra = self.hydra.init_state(n_users)
        weight = self.hydra.norm.weight
        texts = weight.new_zeros(n_users, self.text_width).detach()
        return StreamedUsers(hydra, texts, weight.new_zeros(n_users, self.hydra.config.dim))

    @torch.inference_mode()
    def extend(
        self,
        before: StreamedUsers,
        inputs_Td: Tensor,
        texts_Tt: Tensor,
        cu_seqlens: Tensor,
        times_T: Tensor | None = None,
    ) -> StreamedUsers:
        """Continue n users by any number of events each, none included.

        Args:
            before: of the n users.
            inputs_Td: the items' vectors as the sequence model reads them, packed.
            texts_Tt: the items' columns of the text channel.
            cu_seqlens: int64 [n + 1], seams.
            times_T: int64 [T], unix seconds, for a model that reads times.

        Raises:
            ValueError: a shape, a type or a device does not fit.
        """
        users_Td, hydra = self.hydra.extend(inputs_Td, cu_seqlens, before.hydra, times_T)
        filled_n = cu_seqlens[1:] > cu_seqlens[:-1]
        last_nd = before.last.clone()
        last_nd[filled_n] = users_Td[cu_seqlens[1:][filled_n] - 1]
        texts_nt = before.texts
        if self.channel is not None:
            texts_nt = last_sums(texts_Tt, cu_seqlens, self.channel.decay, before.texts)
        return StreamedUsers(hydra, texts_nt, last_nd)

    @torch.inference_mode()
    def step(
        self,
        before: StreamedUsers,
        inputs_nd: Tensor,
        texts_nt: Tensor,
        times_n: Tensor | None = None,
    ) -> StreamedUsers:
        """Continue n users by one event each, at a cost that does not depend on what came before.

        Equal to `extend` with one event a user; raises as it does.
        """
        hydra, last_nd = self._step(before.hydra, inputs_nd, times_n)
        sums_nt = before.texts
        if self.channel is not None:
            sums_nt = torch.add(texts_nt, before.texts, alpha=self.channel.decay)
        return StreamedUsers(hydra, sums_nt, last_nd)

    @torch.inference_mode()
    def item_vectors(self, inputs_Md: Tensor, texts_Mt: Tensor) -> Tensor:
        """Items' vectors [M, d + t] as scores take them, from what the sequence model reads.

        Args:
            inputs_Md: float [M, d].
            texts_Mt: their columns of the text channel.
        """
        scored_Md = functional.normalize(inputs_Md, dim=-1) if self.normalise else inputs_Md
        return scored_Md if self.channel is None else torch.cat([scored_Md, texts_Mt], 1)

    @torch.inference_mode()
    def vectors(self, users: StreamedUsers) -> Tensor:
        """The users' vectors [n, d + t] as scores take them; zeros where there is no event."""
        last_nd = functional.normalize(users.last, dim=-1) if self.normalise else users.last
        if self.channel is None:
            return last_nd
        counts_n = users.events.clamp_min(1)
        means_nt = mean_of_sums(users.texts, counts_n, self.channel.decay)
        return torch.cat([last_nd, self.channel.weight * means_nt], 1)
