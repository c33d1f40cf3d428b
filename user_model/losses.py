"""Losses over sampled negatives, a value for each position.

Shapes: N positions, V items of the step, d width, K negatives, G tiles.
"""

import torch
from torch import Tensor
from torch.nn import functional

from user_model import ops
from user_model.training_config import TrainingConfig


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

    infonce: softmax of the positive among the negatives of its tile [P].
    bce: -log sigmoid(positive) - log sigmoid(-negative) with one negative of the position's own, as
    in the published SASRec, on scores over the temperature [D]. A negative that is the positive
    counts for nothing.
    """
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


def loss_tile(config: TrainingConfig) -> int:
    """Return how many positions share a draw: bce draws for each position alone."""
    return config.negatives_tile if config.loss == "infonce" else 1


def loss_negatives(config: TrainingConfig) -> int:
    """Return how many negatives a tile has: bce has one."""
    return config.negatives if config.loss == "infonce" else 1
