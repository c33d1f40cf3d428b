"""InfoNCE with negatives shared by tiles, in matrix products over a few tiles at a time.

Forward keeps one number a position (the log of the sum); backward computes the logits again. The
table's gradient is one segmented sum (embedding's own backward): the same bits each time. Both are
custom ops, so that a compiled step calls them instead of tracing the loop over parts.

Shapes: T positions, V items, d width, K negatives, G tiles, M positions a tile, R = G*K + T rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

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
    loss_T, _ = _forward(
        query_Td, table_Vd, positive_T, negative_GK, log_q_V, float(temperature), shared
    )
    return loss_T


@torch.library.custom_op("hydrarec::infonce_torch", mutates_args=())
def _forward(
    query_Td: Tensor,
    table_Vd: Tensor,
    positive_T: Tensor,
    negative_GK: Tensor,
    log_q_V: Tensor | None,
    temperature: float,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """Return the loss [T] and, for the backward alone, the log of each position's sum [T]."""
    batch = _Batch(query_Td, table_Vd, positive_T, negative_GK, log_q_V, temperature, tile)
    target_T = (query_Td * table_Vd.index_select(0, positive_T)).sum(-1).div_(temperature)
    if log_q_V is not None:
        target_T -= log_q_V.index_select(0, positive_T)
    others_T = torch.empty_like(target_T)
    for part in batch.parts():
        others_T[part.positions] = part.untile(part.logits.logsumexp(-1))
    # log(1 + e^gap), not a difference of two logs: exact for a loss near 0.
    loss_T = F.softplus(others_T - target_T, threshold=40.0)
    return loss_T, target_T + loss_T


@_forward.register_fake
def _(
    query_Td: Tensor,
    table_Vd: Tensor,
    positive_T: Tensor,
    negative_GK: Tensor,
    log_q_V: Tensor | None,
    temperature: float,
    tile: int,
) -> tuple[Tensor, Tensor]:
    T = query_Td.shape[0]
    return query_Td.new_empty(T), query_Td.new_empty(T)


@torch.library.custom_op("hydrarec::infonce_torch_backward", mutates_args=())
def _backward(
    dloss_T: Tensor,
    log_sum_T: Tensor,
    query_Td: Tensor,
    table_Vd: Tensor,
    positive_T: Tensor,
    negative_GK: Tensor,
    log_q_V: Tensor | None,
    temperature: float,
    tile: int,
    of_table: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of query [T, d] and of table [V, d], or [0, d] unless `of_table`."""
    batch = _Batch(query_Td, table_Vd, positive_T, negative_GK, log_q_V, temperature, tile)
    scale_T = dloss_T / temperature
    dquery_Td, weight_T = torch.empty_like(query_Td), torch.empty_like(scale_T)
    d, sampled = query_Td.shape[1], negative_GK.numel()
    rows_Rd = query_Td.new_empty(sampled + query_Td.shape[0] if of_table else 0, d)
    for part in batch.parts():
        weights_GMK = part.logits.sub_(part.tile(log_sum_T)[..., None]).exp_()
        weights_GMK.mul_(part.tile(scale_T)[..., None])
        dquery_Td[part.positions] = part.untile(torch.bmm(weights_GMK, part.negatives))
        weight_T[part.positions] = part.untile(weights_GMK.sum(-1))
        if of_table:
            dnegatives_GKd = rows_Rd[:sampled].view(*negative_GK.shape, d)[part.tiles]
            torch.bmm(weights_GMK.mT, part.query, out=dnegatives_GKd)
    # The positive's gradient is minus the sum of the negatives', never p - 1: where p is close
    # to 1, p - 1 is rounding error.
    weight_T.neg_()
    dquery_Td.addcmul_(table_Vd.index_select(0, positive_T), weight_T[:, None])
    if not of_table:
        return dquery_Td, rows_Rd
    torch.mul(query_Td, weight_T[:, None], out=rows_Rd[sampled:])
    items_R = torch.cat((negative_GK.flatten(), positive_T))
    return dquery_Td, torch.ops.aten.embedding_dense_backward(
        rows_Rd, items_R, table_Vd.shape[0], -1, False
    )


@_backward.register_fake
def _(
    dloss_T: Tensor,
    log_sum_T: Tensor,
    query_Td: Tensor,
    table_Vd: Tensor,
    positive_T: Tensor,
    negative_GK: Tensor,
    log_q_V: Tensor | None,
    temperature: float,
    tile: int,
    of_table: bool,
) -> tuple[Tensor, Tensor]:
    V, d = table_Vd.shape
    return torch.empty_like(query_Td), table_Vd.new_empty(V if of_table else 0, d)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, temperature, tile = inputs
    ctx.arguments = (temperature, tile)
    ctx.save_for_backward(output[1], *tensors)


def _differentiate(ctx: Any, dloss_T: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    of_table = ctx.needs_input_grad[1]
    dquery_Td, dtable_Vd = _backward(dloss_T, *ctx.saved_tensors, *ctx.arguments, of_table)
    return dquery_Td, dtable_Vd if of_table else None, None, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)


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
