"""Vectors of items that a table has no rows of, from their texts, as training sees unseen items.

An item that training has never seen is what its text says (`ItemTable.mark_seen`), and in one
domain both parts of its vector are affine maps of its text vector: the learned part, through the
projection, and the columns of the text channel, whitened as the domain's own are.

    learned part              where the table has
    projection of the text    text
    the leading components    no text, but ids that began as components of it (ids: from_text)
    zeros, which say nothing  no text, but a text channel

Shapes: M items, d width of the model, t columns of the text channel, 0 without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from user_model.items import ItemTable, ItemTableConfig
from user_model.whitening import Whitening


@dataclass(frozen=True, eq=False)
class AffineMap:
    """x -> (x - mean) @ matrix + bias, in float64: whitening divides by small deviations.

    Attributes:
        mean: float64 [d_text].
        matrix: float64 [d_text, width].
        bias: float64 [width].
    """

    mean: Tensor
    matrix: Tensor
    bias: Tensor

    def __call__(self, text_Mt: Tensor) -> Tensor:
        """Float32 [M, width] of text vectors [M, d_text]."""
        return ((text_Mt.double() - self.mean) @ self.matrix + self.bias).float()


@dataclass(frozen=True, eq=False)
class NewItems:
    """How a domain's new items get their vectors.

    Attributes:
        learned: text vector -> what the sequence model reads, [M, d].
        texts: text vector -> the columns of the text channel, [M, t] before they get length 1.
    """

    learned: AffineMap
    texts: AffineMap

    @classmethod
    @torch.no_grad()
    def of(
        cls, table: ItemTable, config: ItemTableConfig, text_Vt: Tensor, number: int, items: slice
    ) -> NewItems | None:
        """What a trained table does with a text in one of its domains; None: texts say nothing.

        Args:
            table: after training.
            config: what it was built by.
            text_Vt: float [V, d_text], the text vectors of all its items.
            number: of the domain among the table's.
            items: its rows of the table.
        """
        if not (config.text or config.ids == "from_text" or config.text_channel):
            return None
        own = Whitening.of(text_Vt[items], text_Vt.shape[1])
        directions_tk = own.directions if config.text_channel else own.directions[:, :0]
        if table.channel is not None and len(table.channel.directions):
            turn_tt = table.channel.directions[number].double()
            directions_tk = directions_tk @ turn_tt[: directions_tk.shape[1]]
        width = 0 if table.channel is None else table.channel.width
        spare = width - directions_tk.shape[1]
        channel_tt = functional.pad(directions_tk, (0, spare))
        return cls(
            _learned(table, config, text_Vt, number),
            AffineMap(own.mean, channel_tt, channel_tt.new_zeros(width)),
        )

    def inputs(self, text_Mt: Tensor) -> Tensor:
        """What the sequence model reads of the items, float32 [M, d]."""
        return self.learned(text_Mt)

    def columns(self, text_Mt: Tensor) -> Tensor:
        """The items' columns of the text channel, of length 1, float32 [M, t]."""
        return functional.normalize(self.texts(text_Mt), dim=1)

    def to_dict(self) -> dict[str, Tensor]:
        """A flat dict of tensors, such as safetensors saves."""
        parts = {"learned": self.learned, "texts": self.texts}
        return {f"{name}.{key}": t for name, part in parts.items() for key, t in vars(part).items()}

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> NewItems:
        """What `to_dict` turned into these tensors; raises KeyError where one is absent."""
        names = ("mean", "matrix", "bias")
        maps = [
            AffineMap(*(tensors[f"{part}.{n}"] for n in names)) for part in ("learned", "texts")
        ]
        return cls(*maps)


def _learned(table: ItemTable, config: ItemTableConfig, text_Vt: Tensor, number: int) -> AffineMap:
    if table.text_projection is not None:
        return _projection(table, number)
    zeros_d = torch.zeros(table.dim, dtype=torch.float64)
    if config.ids != "from_text":
        mean_t = torch.zeros(text_Vt.shape[1], dtype=torch.float64)
        return AffineMap(mean_t, mean_t.new_zeros(len(mean_t), table.dim), zeros_d)
    start = Whitening.of(text_Vt, table.dim)
    spare = table.dim - start.directions.shape[1]
    return AffineMap(
        start.mean, functional.pad(table.id_std * start.directions, (0, spare)), zeros_d
    )


def _projection(table: ItemTable, number: int) -> AffineMap:
    assert table.text_projection is not None
    weight_td, bias_d = table.text_projection.weight.T.double(), table.text_projection.bias.double()
    domains = table.domains
    if domains is not None and domains.projections is not None:
        weight_td = weight_td + domains.projections[number].double()
    if domains is not None and domains.vectors is not None:
        bias_d = bias_d + domains.vectors[number].double()
    scale_t1 = table.text_scale.double()[:, None]
    return AffineMap(table.text_mean.double(), scale_t1 * weight_td, bias_d)
