"""How much texts count in each domain's scores, chosen on validation once a model is trained.

Training moves the weight of the text channel little, and to what tells targets from random items
(docs/log.md). How much the ranking of a domain asks for is a number to be chosen, as the epoch is:
among a few multiples of what training left, by NDCG@10 on validation targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.distributed as dist

from pipeline.corpus import DomainInfo
from pipeline.evaluation import EmbeddingScorer
from pipeline.histories import EvaluationCases
from pipeline.metrics import ndcg
from pipeline.task_data import TaskData
from pipeline.validation import CHOSEN_BY_K, Validation
from user_model import Recommender, Workers

MULTIPLES = (1.0, 0.5, 0.7, 1.4, 2.0, 2.8)  # of equal ones the first is taken
MOST_CASES = 10_000  # of a domain


def choose_text_multiples(
    model: Recommender,
    data: TaskData,
    validation: Validation,
    workers: Workers,
    on_domain: Callable[[int, str, float], None],
) -> dict[str, float]:
    """Choose what the texts of each domain are to count, against what they count now.

    Users and items are encoded once; a multiple is one of the columns of texts in the users'
    vectors. All workers have to ask, and get the same.

    Args:
        model: trained, with a text channel; it stays as it is.
        data: what it was trained on.
        validation: whose targets are looked at, at most `MOST_CASES` of a domain.
        workers: that share them.
        on_domain: told how many domains are done, the last one's name and its multiple.

    Returns:
        The multiple of each domain with validation targets, by its name.
    """
    found = {}
    for domain, cases in validation.shares(MOST_CASES):
        gains_M2 = _gains(model, data, domain, cases)
        if workers.size > 1:
            dist.all_reduce(gains_M2)
        if gains_M2[0, 1]:
            found[domain.name] = MULTIPLES[int(gains_M2[:, 0].argmax())]
            on_domain(len(found), domain.name, found[domain.name])
    return found


def multiply_texts(model: Recommender, data: TaskData, multiples: Mapping[str, float]) -> None:
    """Let the texts of each domain count so many times what they do."""
    channel = model.items.channel
    assert channel is not None
    for number, domain in enumerate(data.domains):
        channel.multiply_texts(number, multiples.get(domain.name, 1.0))


def _gains(
    model: Recommender, data: TaskData, domain: DomainInfo, cases: EvaluationCases
) -> torch.Tensor:
    """For each multiple the sum of the cases' NDCG@10, and how many there are: float64 [M, 2]."""
    gains_M2 = torch.zeros(len(MULTIPLES), 2, dtype=torch.float64)
    if not len(cases.targets):
        return gains_M2
    channel = model.items.channel
    assert channel is not None
    scorer = data.scorer(model, domain, cases)
    texts = slice(model.items.dim, model.items.dim + channel.columns.shape[1])
    for row, multiple in enumerate(MULTIPLES):
        users = scorer.user_vectors.clone()
        users[:, texts] *= multiple
        ranks = data.rank_by(EmbeddingScorer(scorer.item_matrix, users), domain, cases)
        gains = ndcg(ranks, CHOSEN_BY_K)
        gains_M2[row] = torch.tensor([gains.sum(), len(gains)])
    return gains_M2
