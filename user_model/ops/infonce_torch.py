"""InfoNCE with negatives shared by tiles, in matrix products over a few tiles at a time.

Forward keeps one number a position (the log of the sum); backward computes the logits again. The
table's gradient is one segmented sum (embedding's own backward): the same bits each time.

Shapes: T positions, V items, d width, K negatives, G tiles, M positions a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits held at once: small enough for a core's cache, and a bound on memory whatever T is.
LOGITS_AT_ONCE = 1 << 19


def infonce_torch(
    query_Td: Tensor,
    table_Vd: Tensor,
    positive_T: Tensor,
    negative_GK: Tensor,
    log_q_V: Tensor | None,
    temperature: float,
    tile: int,
) -> Tensor:
    """Do what `infonce_reference` does."""
    shared = max(min(tile, query_Td.shape[0]), 1)  # one short tile needs no padding
    loss_T: Tensor = _TiledInfoNCE.apply(
        query_Td, table_Vd, positive_T, negative_GK, log_q_V, temperature, shared
    )
    return loss_T


class _TiledInfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query_Td: Tensor,
        table_Vd: Tensor,
        positive_T: Tensor,
        negative_GK: Tensor,
        log_q_V: Tensor | None,
        temperature: float,
        tile: int,
    ) -> Tensor:
        batch = _Batch(query_Td, table_Vd, positive_T, negative_GK, log_q_V, temperature, tile)
        target_T = (query_Td * table_Vd.index_select(0, positive_T)).sum(-1).div_(temperature)
        if log_q_V is not None:
            target_T -= log_q_V.index_select(0, positive_T)
        others_T = torch.empty_like(target_T)
        for part in batch.parts():
            others_T[part.positions] = part.untile(part.logits.logsumexp(-1))
        # log(1 + e^gap), not a difference of two logs: exact for a loss near 0.
        loss_T = F.softplus(others_T - target_T, threshold=40.0)
        ctx.arguments = (temperature, tile)
        ctx.save_for_backward(
            query_Td, table_Vd, positive_T, negative_GK, log_q_V, target_T + loss_T
        )
        return loss_T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss_T: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, log_sum_T = ctx.saved_tensors
        batch = _Batch(*tensors, *ctx.arguments)
        query_Td, table_Vd, positive_T, negative_GK = tensors[:4]
        scale_T = dloss_T / batch.temperature
        dquery_Td, weight_T = torch.empty_like(query_Td), torch.empty_like(scale_T)
        dnegatives_GKd = query_Td.new_empty(*negative_GK.shape, query_Td.shape[1])
        for part in batch.parts():
            weights_GMK = part.logits.sub_(part.tile(log_sum_T)[..., None]).exp_()
            weights_GMK.mul_(part.tile(scale_T)[..., None])
            torch.bmm(weights_GMK.mT, part.query, out=dnegatives_GKd[part.tiles])
            dquery_Td[part.positions] = part.untile(torch.bmm(weights_GMK, part.negatives))
            weight_T[part.positions] = part.untile(weights_GMK.sum(-1))
        # The positive's gradient is minus the sum of the negatives', never p - 1: where p is close
        # to 1, p - 1 is rounding error.
        dquery_Td.addcmul_(table_Vd.index_select(0, positive_T), weight_T[:, None], value=-1)
        dtable_Vd = None
        if ctx.needs_input_grad[1]:
            rows = torch.cat((dnegatives_GKd.flatten(0, 1), query_Td * -weight_T[:, None]))
            items = torch.cat((negative_GK.flatten(), positive_T))
            dtable_Vd = torch.ops.aten.embedding_dense_backward(
                rows, items, table_Vd.shape[0], -1, False
            )
        return dquery_Td, dtable_Vd, None, None, None, None, None


@dataclass(frozen=True)
class _Part:
    """A few tiles: their logits [G, M, K], masked, and what they were made of.

    query is [G, M, d], zeros after the last position; negatives is [G, K, d].
    """

    positions: slice
    tiles: slice
    query: Tensor
    negatives: Tensor
    logits: Tensor

    def tile(self, values: Tensor) -> Tensor:
        return _tile(values[self.positions], self.query.shape[1])

    def untile(self, values: Tensor) -> Tensor:
        return values.flatten(0, 1)[: self.positions.stop - self.positions.start]


@dataclass(frozen=True)
class _Batch:
    """The arguments of `infonce_torch`, cut into parts of bounded size."""

    query: Tensor
    table: Tensor
    positive: Tensor
    negative: Tensor
    log_q: Tensor | None
    temperature: float
    tile: int

    def parts(self) -> Iterator[_Part]:
        G, K = self.negative.shape
        at_once = max(1, LOGITS_AT_ONCE // max(self.tile * K, 1))
        for first in range(0, G, at_once):
            yield self._part(slice(first, min(first + at_once, G)))

    def _part(self, tiles: slice) -> _Part:
        last = min(tiles.stop * self.tile, self.query.shape[0])
        positions = slice(tiles.start * self.tile, last)
        negative = self.negative[tiles]
        query = _tile(self.query[positions], self.tile)
        negatives = self.table.index_select(0, negative.flatten()).view(*negative.shape, -1)
        logits = torch.bmm(query, negatives.mT).div_(self.temperature)
        if self.log_q is not None:
            logits -= self.log_q[negative][:, None]
        collision = negative[:, None] == _tile(self.positive[positions], self.tile)[..., None]
        return _Part(positions, tiles, query, negatives, logits.masked_fill_(collision, -torch.inf))


def _tile(values: Tensor, tile: int) -> Tensor:
    """View [n, ...] as [G, M, ...]; zeros fill the last tile."""
    missing = -values.shape[0] % tile
    if missing:
        values = torch.cat((values, values.new_zeros(missing, *values.shape[1:])))
    return values.reshape(-1, tile, *values.shape[1:])
