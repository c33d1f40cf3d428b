"""Losses over sampled negatives, a value for each position.

Shapes: N positions, V items of the step, d width, K negatives, G tiles.
"""

import torch
from torch import Tensor
from torch.nn import functional

from user_model import ops
from user_model.training_config import TrainingConfig

_LEFT_OUT = -1e30


def sampled_loss(
    query_Nd: Tensor,
    table_Vd: Tensor,
    positive_N: Tensor,
    negative_GK: Tensor,
    config: TrainingConfig,
    *,
    log_q_V: Tensor | None = None,
) -> Tensor:
    """Return the loss of each position, [N], as `config.loss` says.

    infonce: softmax of the positive among the negatives of its tile [P], or the hardest of them.
    bce: -log sigmoid(positive) - log sigmoid(-negative) with one negative of the position's own, as
    in the published SASRec, on scores over the temperature [D]. A negative that is the positive
    counts for nothing.
    """
    if config.hard_negatives is not None:
        return hard_infonce(
            query_Nd, table_Vd, positive_N, negative_GK,
            temperature=config.temperature, hardest=config.hard_negatives,
        )  # fmt: skip
    if config.loss == "infonce":
        return ops.sampled_infonce(
            query_Nd, table_Vd, positive_N, negative_GK,
            log_q=log_q_V, temperature=config.temperature, tile=loss_tile(config),
        )  # fmt: skip
    negative_N = negative_GK[:, 0]
    gap_N = table_Vd.index_select(0, positive_N), table_Vd.index_select(0, negative_N)
    positive, negative = ((query_Nd * rows).sum(-1) / config.temperature for rows in gap_N)
    terms = functional.softplus(-positive) + functional.softplus(negative)
    return torch.where(positive_N == negative_N, functional.softplus(-positive), terms)


def hard_infonce(
    query_Nd: Tensor,
    table_Vd: Tensor,
    positive_N: Tensor,
    negative_GK: Tensor,
    *,
    temperature: float,
    hardest: int,
) -> Tensor:
    """Return the softmax loss [N] of each position among its highest-scored negatives alone.

    Taking the highest-scored of some uniform draws is dynamic negative sampling (Zhang et al.,
    SIGIR 2013). Which ones they are is not differentiated through. Holds [N, K] logits.

    Args:
        query_Nd: N = G x tile slots.
        table_Vd: item vectors.
        positive_N: int64, rows of the table.
        negative_GK: int64, rows of the table; row g is shared by the g-th tile of slots. One that
            is the position's positive is left out.
        temperature: above 0.
        hardest: negatives that a position keeps, at most K.
    """
    tiles = len(negative_GK)
    logits_GMK = query_Nd.unflatten(0, (tiles, -1)) @ table_Vd[negative_GK].mT / temperature
    same_GMK = positive_N.view(tiles, -1, 1) == negative_GK[:, None]
    # Not -inf: where every negative is the positive, the sum's gradient would not be a number.
    kept_Nh = logits_GMK.masked_fill(same_GMK, _LEFT_OUT).flatten(0, 1).topk(hardest).values
    target_N = (query_Nd * table_Vd.index_select(0, positive_N)).sum(-1) / temperature
    return functional.softplus(kept_Nh.logsumexp(-1) - target_N, threshold=40.0)


def loss_tile(config: TrainingConfig) -> int:
    """Return how many positions share a draw: bce draws for each position alone."""
    return config.negatives_tile if config.loss == "infonce" else 1


def loss_negatives(config: TrainingConfig) -> int:
    """Return how many negatives a tile has: bce has one."""
    return config.negatives if config.loss == "infonce" else 1
